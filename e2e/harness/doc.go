// Package harness runs real ACME clients, written by others, against the
// server of this repository.
//
// Every test runs in network, process and mount namespaces of its own
// ([Alone]): ports 53, 80 and 443 are free there, so the clients run with their
// defaults; the trust store of the system is empty; nothing can reach the
// internet; and whatever a client leaves running dies with the test. A
// [World] is what a test finds there: a scratch folder, a DNS server
// ([World.Names] in process, [World.BIND] for real dynamic updates), the CA
// ([World.CA]), commands bounded in time ([World.Run]), and OpenSSL's opinion
// of what was issued ([World.Verify]).
//
// It may import the standard library, golang.org/x, miekg/dns and acmez, and
// nothing of the server: the two meet on the wire only.
package harness

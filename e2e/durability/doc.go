// Package durability tests what the server promises about its state: that
// nothing it answered is lost and nothing is issued twice, whatever ends it (a
// killed process, a power cut, a full disk, a database that goes away), and
// that several requests or replicas at once are as good as one.
//
// The server runs as a process of its own, on namespaces, names and addresses
// from package harness. A [harness.World] has its scratch folder in memory,
// where fsync does nothing; what a power cut leaves is tested on an ext4 file
// system whose block device is taken away at an instant.
//
// It holds tests only, and may import package harness, mtls/acme, miekg/dns
// and golang.org/x/sys; nothing of the server.
package durability

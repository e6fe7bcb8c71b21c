// Package loopdns is a DNS server to which every name is on this machine, so
// that the names of a demo or a test need no entry anywhere. It imports
// golang.org/x/net/dns/dnsmessage and the standard library.
package loopdns

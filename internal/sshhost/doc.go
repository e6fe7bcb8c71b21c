// Package sshhost keeps a server's sshd in step with its CAs: it gets and renews
// host certificates, keeps the CA keys that sshd trusts, fetches the lists of
// revoked keys, and writes sshd's configuration for all that.
//
// Nothing is trusted at first sight: what the SSH CA keys are, and where the KRL
// is, comes from the ACME directory over HTTPS, whose roots the operator gave.
// What was fetched last is kept ([Host] has a folder of its own for that), so a CA
// that can't be reached changes nothing. With several independent CAs the next
// one certifies when one fails, the keys of all are trusted, and their KRLs are
// merged into the one file that sshd takes. A CA that publishes a KRL is trusted
// only once that was fetched: else whoever is between could hold it back from a
// new host.
//
// [Host.Once] does all that is due, [Host.Run] does it again and again. sshd's
// files change only where their content does, each by a rename; sshd itself
// (sshd -t) says whether it takes them, and what it refuses is taken back.
//
// [Watcher] reads sshd's log and tells when a key is used whose use is an alarm.
//
// It may import the standard library, golang.org/x/crypto, the library's
// mtls/acme, and this project's sshca, api, settings and words. Sources: RFC 8555,
// sshd(8), sshd_config(5), PROTOCOL.krl.
package sshhost

// Package krl makes the one key revocation list of all SSH issuers (sshd's
// RevokedKeys) and keeps it fresh: which certificates are withdrawn, by serial
// and CA key, and which plain keys: those of devices that were lost, and those of
// certificates that were withdrawn as compromised. It is the only writer of it;
// internal/publish serves it, internal/sshca makes its bytes.
//
// One replica that holds an SSH CA key makes the list (a lease says which), within
// seconds of a revocation and in the first third of the old one's life, signs it
// through the key's queue, and stores list and signature as one, so that all
// replicas serve the very same bytes, also those without keys. Numbers come from
// the database and the clock and never go back, not after a restore either, since
// hosts refuse a list with a smaller one. Once stored, the old list is served no
// more; while no key is at hand it still is.
//
// It may import internal/store, internal/sshca, internal/signer, internal/cert and
// internal/audit. Sources: OpenSSH's PROTOCOL.krl and PROTOCOL.sshsig, DESIGN
// section 7.
package krl

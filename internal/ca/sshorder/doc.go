// Package sshorder decides what an SSH certificate says: it reads what finalize
// brings for one in place of a CSR, and takes everything else from the order and
// from the device that proved it. It reads the database and changes nothing;
// internal/ca plans, signs and records as it does any certificate.
//
// It may import the standard library, golang.org/x/crypto/ssh, and this project's
// protocol, cert, policy, issuer, sshca and store. Sources: DESIGN section 6
// (SSH certificates), RFC 8555 section 7.4 (finalize), OpenSSH's
// PROTOCOL.certkeys.
package sshorder

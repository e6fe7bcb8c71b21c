// Package sshca makes what an SSH authority gives out: user and host
// certificates in OpenSSH's format, key revocation lists (KRLs), and the lines
// by which hosts and people trust the authority's keys; and it reads what comes
// back: public keys, signatures that prove possession of one, KRLs. Bytes in,
// bytes out: it opens nothing, stores nothing and holds no key.
//
// A certificate is made in steps that survive a crash, as X.509 ones are
// (docs/ISSUANCE.md):
//
//	p, err := authority.Prepare(request) // all is decided and checked
//	// the caller stores p.Serial and p.TBS, then checks again that all stands
//	wire, err := p.Sign(sign)            // one signature, verified; the certificate is linted
//
// [Prepared] is a token for one signature. The bytes to be signed hold the
// nonce too, so what [Authority.Resume] makes of them after a crash is the same
// certificate, but for the random number in an ECDSA signature. Signatures come
// from a [SignFunc], that is, from any crypto.Signer: a file, a token, a queue.
//
// The client's half of it is here as well: [SignPossession] for what
// finalize wants, [OpenKRL] and [KRL.Replaces] for a host that fetches a KRL.
//
// Keys are checked for type and size. What needs more (known weak moduli, keys
// known to be compromised) is for the caller to see, in the key that
// [CryptoKey] returns, as for X.509.
//
// It may import the standard library, golang.org/x/crypto, and this project's
// cert and protocol. Sources: OpenSSH's PROTOCOL.certkeys (certificates),
// PROTOCOL.krl, PROTOCOL.sshsig and PROTOCOL.u2f (keys on FIDO tokens), its
// manual pages sshd(8) and ssh-keygen(1) (lines in files); RFC 4251 section 5
// (encoding), RFC 4253 section 6.6 and RFC 8332 (RSA), RFC 5656 section 3.1
// (ECDSA), RFC 8709 (Ed25519).
package sshca

// Package revocation builds what tells relying parties whether a certificate
// was withdrawn: certificate revocation lists (CRLs), full or in parts, and OCSP
// responses; and it reads OCSP requests. Bytes in, bytes out: it opens nothing,
// stores nothing and holds no key; [Build] and [BuildOCSP] encode what is to be
// signed, [Unsigned.Sign] and [UnsignedOCSP.Sign] ask the caller for the one
// signature and let no faulty one out.
//
// A list may have a million entries. They are read once, as a stream, and the
// list lies in memory once, as the bytes that are served: 36 to 50 bytes an
// entry with our serials, so 50 MB for a million. Nothing is allocated per
// entry and nothing is copied when [List.Expect] was about right.
//
// OCSP requests come from strangers. [ParseOCSPRequest] allocates nothing,
// takes one certificate a request, and [BuildOCSP] doesn't let the issuing key
// sign what a stranger chose: no nonce, no unknown serial.
//
// It may import the standard library, golang.org/x/crypto/cryptobyte and
// internal/cert. Sources: RFC 5280 section 5 (CRLs; 5.1.2.6 entries, 5.2.1 key
// identifier, 5.2.3 number, 5.2.5 parts, 5.3.1 reasons) and section 4.1.2.5
// (times); RFC 6960 section 4 (OCSP; 4.2.2.2 delegated responders), RFC 9654
// (nonces), RFC 5019 section 2 (what of it busy responders use); RFC 5758
// section 3.2, RFC 4055 section 5 and RFC 8410 section 3 (algorithms).
package revocation

// Package revocation builds what tells relying parties that a certificate was
// withdrawn: certificate revocation lists (CRLs). Bytes in, bytes out: it
// opens nothing, stores nothing and holds no key; [Build] encodes what is to be
// signed and [Unsigned.Sign] asks the caller for the one signature.
//
// A list may have a million entries. They are read once, as a stream, and the
// list lies in memory once, as the bytes that are served: 36 to 50 bytes an
// entry with our serials, so 50 MB for a million. Nothing is allocated per
// entry and nothing is copied when [List.Expect] was right.
//
// It may import the standard library, golang.org/x/crypto/cryptobyte and
// internal/cert. Sources: RFC 5280 section 5 (CRLs; 5.1.2.6 entries, 5.2.1 key
// identifier, 5.2.3 number, 5.3.1 reasons) and section 4.1.2.5 (times); RFC
// 5758 section 3.2, RFC 4055 section 5 and RFC 8410 section 3 (algorithms).
package revocation

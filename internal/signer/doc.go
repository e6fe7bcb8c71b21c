// Package signer holds private keys behind crypto.Signer: [Open] finds one by
// URI (file: today), [Queue] lets the many who want signatures wait for the one
// key in a fair order, and [Pool] picks the key that is free soonest.
//
// A signature is a scarce good: a software key makes thousands a second, a
// smart card two to five. So every key has exactly one Queue, with classes
// (issuance, OCSP, CRL) that each keep a share while all want more than there
// is, a bounded length, and a rate measured as it works. An idle key signs on
// its caller's own goroutine with no handoff.
//
// It may import the standard library, internal/cert for the names of key
// types, and internal/yubikey. Sources: RFC 5208 and 5958 (PKCS#8), RFC 8018
// sections 5.2, 6.2 and appendix A (PBES2), RFC 5915 (EC keys), RFC 8017
// appendix A.1.2 (RSA keys).
package signer

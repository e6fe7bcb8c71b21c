// Package signer holds private keys behind crypto.Signer: [Open] finds one by
// URI (a file, a PKCS#11 token, a YubiKey), [Queue] lets the many who want
// signatures wait for the one key in a fair order, and [Pool] picks the key
// that is free soonest.
//
// A signature is a scarce good: a software key makes thousands a second, a
// smart card two to five. So every key has exactly one Queue, with classes
// (issuance, renewal, OCSP, CRL) that each keep a share while all want more
// than there is, a bounded length, and a rate measured as it works; package
// schedule has the order. An idle key in memory signs on its caller's own
// goroutine with no handoff.
//
// Tokens go away: they are pulled out, locked, restarted, or hang. A queue
// takes such a token out of turn at once, lets another that holds the same key
// finish its work or says [ErrAway], and [Queue.Watch] takes it in again when
// it is back. A key that another replica holds is a [Remote], so that a pool
// can choose it too.
//
// It may import the standard library, internal/cert for the names of key
// types, internal/signer/pkcs11 and internal/yubikey. Sources: RFC 5208 and
// 5958 (PKCS#8), RFC 8018 sections 5.2, 6.2 and appendix A (PBES2), RFC 5915
// (EC keys), RFC 8017 appendix A.1.2 (RSA keys), RFC 8089 (file URIs).
package signer

// Package status finds out whether a certificate was withdrawn, from OCSP
// answers and certificate revocation lists (CRLs). They are fetched in the
// background, verified, and kept until their nextUpdate; [Checker.Check] looks
// at what is at hand, and waits for the network only where the policy refuses
// what nothing is known about, once and bounded.
//
// What it promises:
//
//   - An answer or a list counts only if the certificate's own issuer, or for
//     OCSP a responder that the issuer itself certified for this, signed it.
//   - Who stands between us and the responder can keep answers away, and can
//     replay those still valid, but not one older than what is known already:
//     thisUpdate, a list's number, and "revoked" never go back.
//   - All is bounded: sizes, counts, times, fetches at once. URLs are taken from
//     verified chains only, over plain http or https, without redirects.
//
// Not supported, and so never an answer: delta and indirect CRLs, lists of some
// reasons only, answers without a nextUpdate (RFC 5019 section 2.2.4 demands
// it), signatures other than ECDSA and RSA PKCS #1 with SHA-2, and Ed25519.
// What is known is lost when the process ends.
//
// It may import the standard library and golang.org/x/crypto/cryptobyte.
// x/crypto/ocsp isn't used: it knows no Ed25519, compares neither the issuer
// nor the responder's name, and takes SHA-1 signatures.
//
// Sources: RFC 6960 (OCSP; 3.2 what makes an answer acceptable, 4.2.2.2
// delegated responders), RFC 5019 (OCSP over GET), RFC 5280 sections 5 and 6.3
// (CRLs), RFC 9608 (noRevAvail), RFC 8446 section 4.4.2.1 (staples).
package status

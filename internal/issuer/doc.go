// Package issuer turns an approved request into a certificate, in steps that
// survive a crash (DESIGN section 4):
//
//	p, err := local.Prepare(ctx, request) // profile, template, checks
//	// the caller stores p.Serial and p.TBS, then checks again that all stands
//	der, err := local.Issue(ctx, p)       // queue, sign, verify
//
// [Prepared] is a token for exactly one signature by exactly the issuer that
// made it. What is signed are the to-be-signed bytes that were stored: after a
// crash [Local.Resume] makes a new token of them, so that one serial is one
// certificate. Nothing of a CSR counts but its key, its names and, where the
// directory says so, its extended key usage: see [ParseCSR], [CheckKey].
//
// The to-be-signed bytes are built directly and then read back by crypto/x509
// and checked against the request ([RFC 5280] sections 4.1, 4.2); no throw-away
// signature is needed for that.
//
// An SSH certificate takes the same steps: [SSH] stands beside [Local], and the
// bytes are sshca's.
//
// It may import the standard library, golang.org/x/crypto (cryptobyte, ssh), and
// this project's protocol, cert, signer and sshca. Sources: RFC 5280 (certificates), RFC
// 2986 (PKCS#10), RFC 8555 section 7.4 (what a CSR must say), RFC 7093 (key
// identifiers), RFC 9608 (noRevAvail), NIST SP 800-89 section 5.3.3 (RSA keys).
//
// [RFC 5280]: https://www.rfc-editor.org/rfc/rfc5280
package issuer

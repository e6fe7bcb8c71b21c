// Package jws reads and verifies the signed requests of ACME on the server's
// side: RFC 8555 sections 6.2 to 6.4, in the flattened JSON form of RFC 7515
// section 7.2.2, with keys as RFC 7517, 7518, 7638 and 8037 write them. Also
// the two JWS that travel inside a payload: the inner one of a key change
// (RFC 8555 section 7.3.5) and the external account binding (section 7.3.4).
//
//	req, err := jws.Parse(body)           // the frame, the header, the payload's shape
//	key := req.JWK.Key                    // or the stored key of the account req.KID
//	err = req.Verify(key)                 // alg fits the key, signature is good
//
// It knows nothing of HTTP, accounts or nonces. The caller must still check
// the content type, that req.URL is the URL that was asked for, that req.Nonce
// is one it issued and not yet used, and that the resource wants jwk or kid.
//
// One form of every message is taken and all else refused, because whatever
// two readers may understand differently is a way around a check: duplicate
// members (also those that differ only in case, since encoding/json folds
// case when a caller decodes the payload), unprotected headers, several
// signatures, the compact form, base64url with padding, line breaks or spare
// bits, invalid UTF-8, NUL, trailing data, deep nesting, header members that
// change how a JWS is processed (crit, b64) or where its key comes from (jku,
// x5u, x5c and so on). Other unknown header and payload members are ignored.
//
// The signatures are verified by the standard library, not by go-jose.
// go-jose verifies only what it has parsed itself, and it parses more than ACME
// allows, so our strict reading would come on top: everything would be read
// twice, with two readers to disagree. What remains after reading is one hash
// and one call to crypto/ecdsa, ed25519 or rsa. The tests use go-jose as the
// second opinion: what we accept, it must accept, with the same content.
//
// It may import the standard library only (its tests also go-jose). It does
// no I/O and keeps no state.
package jws

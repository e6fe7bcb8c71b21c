// Package ceremony does what an operator does with keys and CA certificates
// by hand, a few times in a CA's life: make keys in files and tokens
// (generate.go) and show them (key.go), certify a CA, at once or with a request
// that is carried to where the root's key is (ca.go), make the root's own CRL
// (crl.go), put a new issuing certificate beside the old one (rotate.go) or a
// new root above it (root.go), and list what there is and when it ends
// (list.go). What they write and read is in files.go.
//
// The certificates themselves are made by internal/issuer. Requests are PKCS
// #10 (RFC 2986), CRLs RFC 5280 section 5; a new root is cross-signed by the
// old one as RFC 4210 section 4.4 describes (its newWithOld).
//
// No file is overwritten but a CRL by the next one. The package may import
// internal/config, internal/issuer, internal/revocation, internal/signer with
// its kinds of keys, and the words below them; it knows neither the server nor
// its database.
package ceremony

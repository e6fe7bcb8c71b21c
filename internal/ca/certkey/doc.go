// Package certkey says whether a key may be certified at all, whatever its type:
// no account's key (RFC 8555 section 11.1) and none that was reported as
// compromised. It reads the database and changes nothing. It may import the
// standard library and this project's protocol, jws, issuer and store.
package certkey

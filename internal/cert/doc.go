// Package cert holds the words for certificates: serial numbers, profiles and
// the record of a certificate from its planning to its revocation. Pure; it
// may import the standard library and internal/protocol. Sources: RFC 5280
// sections 4.1.2.2 (serials) and 5.3.1 (reasons), RFC 9773 section 4.1
// (identifiers of certificates).
package cert

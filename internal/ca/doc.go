// Package ca is the authority: accounts, orders, authorizations, issuance and
// revocation, and the only writer of their state. It knows neither HTTP nor
// SQL: internal/acmeserver and internal/admin hand it requests that are
// authenticated already, internal/store keeps what it decides, and the
// validators of internal/challenge only look and report to it.
//
// Every method takes who is asking, refuses what that one may not do or see,
// and writes the audit entry in the transaction of the change. Errors that a
// client can act on are *protocol.Problem; anything else is the server's own
// trouble and is shown to nobody.
//
// It may import policy, challenge, issuer, store, jws and the words
// (protocol, cert, audit). Sources: RFC 8555 sections 7 and 8, RFC 9773,
// draft-ietf-acme-profiles-02. docs/ISSUANCE.md tells the whole cycle, and
// what survives a power cut at each step.
package ca

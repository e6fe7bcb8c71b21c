// Package ca is the authority: accounts, orders, authorizations, issuance and
// revocation, and the only writer of their state. It knows neither HTTP nor
// SQL: internal/acmeserver hands it requests that are authenticated already,
// internal/ca/operator on top of it is what those who run the CA do,
// internal/store keeps what it decides, and the validators of
// internal/challenge only look and report to it.
//
// Every method takes who is asking, refuses what that one may not do or see,
// and writes the audit entry in the transaction of the change. Errors that a
// client can act on are *protocol.Problem; anything else is the server's own
// trouble and is shown to nobody.
//
// What needs no database is decided below: internal/protocol has the rules by
// which statuses move, internal/policy who may have what and until when.
// internal/ca/proof asks validators, internal/ca/job has what runs in the
// background, internal/ca/known remembers accounts, internal/ca/sweep deletes
// what has ended.
//
// It may import these, policy, challenge, issuer, store, signer, jws and
// the words (protocol, cert, audit). Sources: RFC 8555 sections 7 and 8, RFC
// 9773, draft-ietf-acme-profiles-02. docs/ISSUANCE.md tells the whole cycle,
// and what survives a power cut at each step.
package ca

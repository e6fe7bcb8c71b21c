// Package protocol holds the words of ACME as the authority thinks of them:
// identifiers, accounts, orders, authorizations, challenges, evidence and
// problems, with the rules by which their statuses move. Every function is
// pure: no I/O, no clock but the time handed in.
//
// It may import the standard library and golang.org/x/net/idna, nothing else
// of this project. Sources: RFC 8555 sections 6.7 (problems), 7.1 (resources
// and status changes), 8.2 (retries) and 9.7.7 (identifier types), RFC 8738
// (ip), RFC 9773 (ARI and replaces), draft-ietf-acme-profiles-02.
//
// The wire forms live at the edge (internal/acmeserver), the tables in
// internal/store; both name what they mean with the types of this package.
package protocol

// Package policy decides, before any proof is asked for and again before a
// key signs, whether a caller may have these names under this profile: which
// names a directory issues, what an EAB key adds or takes away, which
// challenge types count for which profile and may be used again, which dates
// a client may ask for, and when it is asked to renew. It is pure: no I/O, no
// context, no clock but the time handed in, and every value is safe for
// concurrent use once made.
//
// It may import the standard library, internal/protocol and internal/cert.
// Sources: RFC 8555 sections 7.1.3 and 7.4 (orders, wildcards, notBefore and
// notAfter), 7.3.4 (external account binding), 7.6 (revocation), 6.7.1
// (subproblems), RFC 8738 (addresses), RFC 9773 section 4.2 (renewal windows),
// draft-ietf-acme-profiles-02.
//
// # Name patterns
//
// One syntax serves a directory's names.allow and names.deny and an EAB key's
// names:
//
//	api.prod.internal   this name and no other
//	*.prod.internal     every name below prod.internal, at any depth, but not
//	                    prod.internal itself
//	10.0.0.0/8          every address of the network
//	10.1.2.3            this address
//	*                   every name and every address
//
// A wildcard identifier ("*.prod.internal" in an order) stands for all the
// names directly below its base. It is allowed where the directory's
// names.wildcards is on and a pattern covers all of these names, and refused
// as soon as one of them is denied: with api.prod.internal denied nobody gets
// *.prod.internal. What is denied is denied whatever allows it.
//
// The empty set covers nothing.
package policy

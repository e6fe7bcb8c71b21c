// Package acl says who may talk to whom: rules about the names in a peer's
// verified certificate. Who isn't allowed is denied.
//
//	id.Server(acl.Allow("web.prod.internal", "*.batch.internal", "10.2.0.0/16"))
//
// or from a file that is followed while the program runs:
//
//	rules, err := acl.Open("/etc/web/rules.acl", nil)
//	if err != nil { … }
//	id.Server(rules)
//
// # Rules
//
// A rule is a line: "allow" or "deny" (allow where neither stands), whom, and
// where it is about some requests only, their methods, their path, or both.
//
//	allow web.prod.internal
//	allow *.batch.internal  GET,POST /reports/*       # below /reports/
//	deny  old.batch.internal
//	allow spiffe://prod.internal/ns/web/sa/*  /pkg.Service/*
//	allow 10.2.0.0/16
//
// What follows a "#" is a comment. The order of rules says nothing: a deny
// rule wins over every allow rule, wherever it stands.
//
// Whom is one of
//
//	web.prod.internal      the dns name, in any case
//	*.prod.internal        every name below it at any depth, not prod.internal itself
//	spiffe://td/ns/web     the SPIFFE ID; its trust domain in any case, its path as written
//	spiffe://td/ns/*       every SPIFFE ID below it, by whole segments, not spiffe://td/ns itself
//	10.2.0.7  10.2.0.0/16  an IP address of the certificate, not the one it connects from
//	*                      everyone whose certificate has any such name
//
// A certificate may have several names. It is allowed if a rule allows one of
// them and no rule denies any of them. A wildcard in the certificate itself
// (*.web.internal) is allowed only by a rule for all that it stands for, and
// denied by a rule for any of that. The common name is never looked at (RFC
// 9525 section 2). A certificate without any name of these kinds is let in by
// nobody but a [Func] and [Anyone]; so is one with a name that can't be
// compared, because deny rules could not be held against it: an empty label,
// a dot at the end, a NUL, an IPv4-mapped address, a SPIFFE ID beside another
// URI (X509-SVID section 2).
//
// # Requests
//
// Methods are upper case, separated by commas; GET stands for HEAD too, as in
// net/http's patterns. A path is compared byte by byte in its encoded form,
// "/reports/2026" exactly or "/reports/*" for "/reports/" and all below it.
// For gRPC it is the full method's name, "/pkg.Service/Method".
//
// What is in doubt is not allowed, and denied. A path that is not in its normal
// form (dot segments, two slashes in a row, an encoded slash or backslash, a
// ";", whatever RFC 3986 section 6.2.2 would write otherwise) meets no allow
// rule with a path and every deny rule with one, because nobody knows what
// the handler makes of it; a method that is none, "get" say, does so with
// rules that have methods. A deny rule covers its path with and without the
// slash at the end. Case matters in paths: before a router that thinks
// otherwise, allow paths rather than deny them.
//
// Whoever has any allow rule at all may connect; which requests he may make is
// asked for each of them. A listener that doesn't ask (raw TCP) calls
// AllowRequest with the zero [Request]: then allow rules with a method or a
// path don't count, and deny rules all do.
//
// # Sources
//
// RFC 9525 and 6125 (names), RFC 5280 section 4.2.1.6, RFC 3986 (paths), the
// SPIFFE-ID and X509-SVID standards. The package imports the standard library
// only and does no I/O but reading the rules' file.
package acl

// Package fakeca is a small ACME CA for the library's own tests, written from
// RFC 8555 and strict about what it says of a client. It answers in memory
// (so that testing/synctest works) or behind any http.Server, and can be as
// hostile as a CA may be. Users' tests have catest, which is the real server.
//
// It imports the standard library and the words of package acme.
package fakeca

// Package authority is one CA as its clients see it: the account there, one
// attempt to get a certificate, bounded in time and checked before it is
// believed, and the CA's wish when to renew. Which of several CAs is asked
// when is package rota's business.
//
// It imports the standard library, package acme and its siblings memkey and
// issued. Sources: RFC 8555, RFC 9773.
package authority

// Package pin asks a person for the PIN of a security key: on the terminal,
// without echo, or by a pinentry program, as GnuPG's. A PIN is never shown,
// logged or kept; who gets it clears it.
//
// It may import the standard library and golang.org/x/term. Source: libassuan's
// manual, chapter "Implementation" (the lines) and pinentry's, "Protocol".
package pin

// Package roots keeps root certificates: it loads them from files, PEM texts,
// the system, pools and the bundle URLs of CAs, looks at files and URLs again
// while the program runs, and hands out pools for crypto/x509 that never
// change: new roots are a new pool with a new generation.
//
// What can't be loaded leaves what was there before; at the start it is an
// error. A bundle is believed because the server that it comes from shows a
// certificate which the roots at hand verify, and it only ever adds to the
// other sources' roots. One goroutine serves all lists of a [Keeper], none if
// nothing can change.
//
// It may import the standard library. Sources: RFC 7468 (PEM), RFC 5280
// sections 4.2.1.3 and 4.2.1.9 (what a CA certificate is).
package roots

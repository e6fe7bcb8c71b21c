// Slowkeys measures chanceryd with keys as slow as cheap hardware's: real
// servers whose keys lie on SoftHSM, behind a PKCS#11 module that makes every
// signature take as long as it is told, driven over ACME and OCSP.
//
//	cd bench && GOWORK=off go run ./slowkeys            # everything, 10 to 12 minutes
//	cd bench && GOWORK=off go run ./slowkeys --quick    # small numbers and faster keys, a minute
//
// It needs softhsm2, gcc and libpcsclite-dev (Debian). Targets are ratios
// within one run. Clients have EAB keys with pre-approved names, so that what
// is measured is the way to the key and not validation; the rate limits are
// off, audit, log and metrics on.
//
// What takes the server's own packages is in folder inside, which is built in
// the server's module: this one has only the client library.
package main

// Package reader gives tests smart card readers as in real life: pcscd, with
// the virtual readers of vsmartcard-vpcd, into which soft cards are put. Each
// [Reader] is a pcscd of its own, with a socket of its own that clients find
// by PCSCLITE_CSOCK_NAME, in a network namespace of its own, since vpcd
// listens on all addresses. So tests run side by side, in one process or in
// several.
//
// It wants Linux, root, and Debian's packages pcscd and vsmartcard-vpcd. It
// may import the standard library, golang.org/x/sys and softcard.
package reader

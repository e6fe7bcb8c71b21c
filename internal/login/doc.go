// Package login gets a person's certificates for the day, and takes them away
// again: what `chancery login`, `status` and `logout` do.
//
// A login has two halves. Prepare needs nobody: for every wanted certificate it
// chooses a CA, makes an account with a key of its own, an order, and looks at
// the challenges; what a server asks to be signed is refused here, before any
// touch, unless it is a challenge of ours at that very directory. Then the card
// is opened once, the PIN shown once, and each challenge signed with a touch,
// one after the other, while what follows (answer, finalize, download) runs
// beside the next touch. What comes back is verified before it is put anywhere,
// and what an earlier login left is taken away only when the new is in place.
//
// A CA that fails is left for the next one of the settings, before its touch
// for nothing, after it for another touch, which the person is told.
//
// It may import the standard library, golang.org/x/crypto and x/sys, mtls/acme,
// and from this project settings, sshca, yubikey and the words. Its subpackages:
// pin asks for the PIN, place puts TLS certificates where programs look.
// Sources: RFC 8555, DESIGN section 6 (challenges), OpenSSH's PROTOCOL.agent
// and PROTOCOL.certkeys, the XDG Base Directory Specification.
package login

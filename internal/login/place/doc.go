// Package place puts a person's certificates where programs find them, and
// takes them away again: files, PKCS#12, the NSS databases of Chromium and
// Firefox, the stores of macOS and Windows, and the slot of a security key.
//
// Each place is a [Target], got from [Named]. Put replaces what an earlier Put
// of the same name left and says in [Placed] what it did; Remove takes exactly
// that away, as often as it is called, and nothing that came later. Both go on
// where an earlier one was cut off. Private keys lie in files that only their owner can read from the
// moment they exist, in folders that nobody else can write to; passwords are
// never on a command line.
//
// It may import the standard library, golang.org/x/crypto/ssh, go-pkcs12 and
// internal/yubikey. Databases that belong to other programs are changed by
// those programs' own tools. Sources: the XDG Base Directory specification;
// RFC 5958 (PKCS#8), RFC 7292 (PKCS#12); NSS's tools certutil and pk12util;
// OpenSSH's PROTOCOL.key and PROTOCOL.certkeys for key files.
package place

// Package softcard is a YubiKey's PIV application in software, for tests: it
// answers what go-piv, yubico-piv-tool, ykcs11 and OpenSC ask, keeps its keys
// and PIN tries while it is unplugged, attests its keys with a chain from a
// test root, and can be made as slow as a card is. Behind pcscd (see package
// reader) no program can tell.
//
// It keeps no secret: never use it for a key that matters. X25519, moving
// keys, biometry and applications other than PIV are not there.
//
// It is written from NIST SP 800-73-4 part 2 (commands), part 1 (objects and
// key references), ISO/IEC 7816-4 (APDUs) and Yubico's description of its
// extensions, apart from internal/yubikey, whose tests it serves, and imports
// the standard library only.
package softcard

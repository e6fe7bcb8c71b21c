// Package yubikey signs with keys that live in the PIV application of
// YubiKeys, makes such keys, and reads the attestations that prove where a key
// was made.
//
// [Cards] is the process's view of the cards in its readers: one session per
// card, however many keys of it are open, and the memory of PINs that a card
// refused, so that no PIN is tried twice. [Key] is a crypto.Signer that may go
// away with its card and come back. [ParseAttestation] and
// [Attestation.Verify] are pure, with [Issuers] for Yubico's pinned CAs; so are
// the messages that keys sign for the CA, and their check ([ResponseMessage],
// [VerifyMessage]).
//
// What talks to cards needs cgo, libpcsclite and the build tag pcsc; without
// them the methods of [Cards] return an error that says so, and the rest works.
//
// While a card is open here, no other program can use it: the session is
// exclusive, as go-piv makes it.
//
// It may import the standard library, internal/cert for the names of key types,
// and go-piv. Its subpackages softcard (a card in software) and softcard/reader
// (pcscd with virtual readers) are for tests only. Sources: NIST SP 800-73-4
// part 2 (commands), Yubico's PIV extensions and its OID arc
// 1.3.6.1.4.1.41482.3 (attestation).
package yubikey

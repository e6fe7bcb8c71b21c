// Package pkcs11 signs with keys that live in a token behind a PKCS#11 module:
// a SoftHSM, NitroKey, YubiHSM, network or cloud HSM. [Open] finds a key by an
// RFC 7512 URI and returns a crypto.Signer, [Generate] makes one in the token,
// and [Key.Reopen] brings it back after the token was pulled or restarted.
//
// What a person should know before naming a key:
//
//	pkcs11:token=ca;object=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so
//
// names one token (by label, serial, model, manufacturer or slot-id) and in it
// one private key (by object, which is its label, or id). Where the URI names
// no module, the environment variable CHANCERY_PKCS11_MODULE does. The PIN
// comes from the caller, or from the file that pin-source names; never from
// the URI itself.
//
// A PIN that a token refused is never tried on it a second time by this
// process, since a few wrong ones lock most tokens for good. A PIN is never
// tried at all where several tokens match.
//
// A module is loaded once and stays until the process ends, however many keys
// use it: PKCS#11 makes both initialization and login matters of the whole
// process (section 5.4 and 5.6 of the base specification), so this package's
// one variable keeps what was loaded and which PINs were refused.
//
// Calls into a module can't be interrupted: each function here says where it
// may block. It needs cgo; built without, Open and Generate say so.
//
// It may import the standard library, internal/cert for the names of key
// types, and github.com/miekg/pkcs11. Sources: OASIS PKCS#11 base
// specification 2.40 and mechanisms 2.40 and 3.0, RFC 7512 (URIs), RFC 5480
// and 8410 (curves), RFC 8017 section 9.2 (DigestInfo), RFC 3279 section 2.2.3
// (ECDSA signatures).
package pkcs11

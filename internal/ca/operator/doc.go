// Package operator is what those who run the CA do: external account keys,
// people's devices, looking accounts, certificates and the audit log up,
// revoking what isn't their own, backups. The admin API hands it calls whose
// caller is authenticated already.
//
// Every call takes who is asking, is authorised here, below the API, and is
// audited before it does anything: what can't be recorded doesn't happen.
// Reads are recorded too, and so are refusals. A table says which role may do
// what; what isn't in it nobody may do.
//
// A device is enrolled when its attestation (package yubikey) and a signature
// by its key show that it is what it says; DESIGN section 6 and
// docs/decisions/0014-registry.md say what follows from it.
//
// It may import ca, store, sshca, yubikey and the words (protocol, cert, audit).
package operator

// Package operator is what those who run the CA do: external account keys,
// looking accounts, certificates and the audit log up, revoking what isn't
// their own, backups. The admin API hands it calls whose caller is
// authenticated already.
//
// Every call takes who is asking, is authorised here, below the API, and is
// audited before it does anything: what can't be recorded doesn't happen.
// Reads are recorded too, and so are refusals.
//
// It may import ca, store and the words (protocol, cert, audit).
package operator

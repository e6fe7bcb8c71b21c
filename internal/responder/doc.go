// Package responder decides which OCSP answers and CRLs exist: what is signed,
// when, by which replica, and what is served while a key is busy or away. It is
// the only writer of these answers and lists; internal/publish serves them over
// HTTP, internal/revocation makes their bytes, internal/signer queues them
// behind what matters more.
//
// A signature is a scarce good and strangers ask. So an answer is signed only
// about a certificate that we issued, that points to the responder and that
// hasn't ended; it lies in the database for its whole validity, on all
// replicas; it is renewed early only if somebody still asks. What must be
// signed is recorded as a want, which the replica that holds the key claims and
// works off, a few at a time: so concurrent askers cost one signature, a
// replica without keys can answer, and a storm waits in the database instead of
// in the key's queue. Who asks waits for a want of an idle key, up to two
// seconds; else there is the last answer, if one is still valid, or tryLater.
//
// No answer outlives a revocation: the store drops it in the transaction that
// revokes, refuses one that was being signed meanwhile, and its notice tells
// caches on all replicas ([Responder.Watch]). While notices may be lost the
// caches are told that too, and the database is asked each time.
//
// CRLs, the full one and its shards, are made by one replica that holds the key
// (a lease says which), within seconds of a revocation and in the first third
// of the old one's life, kept in the database and loaded by all others, so that
// they survive restarts and the loss of the key. A certificate's shard never
// changes: once used, a shard's list is made for good, though the
// configuration may have fewer by now. Numbers come from the database and the
// clock and never go back.
//
// It may import internal/store, internal/revocation, internal/signer,
// internal/cert and internal/audit. Sources: RFC 6960 (OCSP; section 2.3
// errors, 4.2.2.2 delegation), RFC 5019 (the profile for many askers; section
// 3 caching of responses), RFC 9654 (nonces), RFC 5280 sections 3.3 and 5
// (CRLs; 5.2.3 numbers, 5.2.5 shards), DESIGN section 7.
package responder

-- Issuing keys that sign slowly, or elsewhere; OCSP responses; CRLs.

ALTER TABLE certificates ADD COLUMN crl_shard BIGINT NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN client TEXT NOT NULL DEFAULT '';

DROP INDEX certificates_planned;
CREATE INDEX certificates_planned ON certificates (issuer_key_id, claimed_until) WHERE state = 'planned';
DROP INDEX certificates_revoked;
CREATE INDEX certificates_revoked ON certificates (issuer_key_id, crl_shard, serial) WHERE revoked_at > 0;

-- Answers, and wants (wanted_at > 0) that the holder of the key works off. A
-- row without an answer has empty bytes. It is of use until ends: a want until
-- the certificate's end, an answer until its own.
CREATE TABLE ocsp_responses (
	serial        BLOB NOT NULL,
	hash          TEXT NOT NULL, -- of the CertID that it answers
	issuer_key_id BLOB NOT NULL,
	der           BLOB NOT NULL,
	this_update   BIGINT NOT NULL,
	next_update   BIGINT NOT NULL,
	revoked       BOOLEAN NOT NULL,
	wanted_at     BIGINT NOT NULL,
	claimed_until BIGINT NOT NULL,
	ends          BIGINT NOT NULL,
	PRIMARY KEY (serial, hash)
);
CREATE INDEX ocsp_responses_wanted ON ocsp_responses (issuer_key_id, revoked DESC, wanted_at) WHERE wanted_at > 0;
CREATE INDEX ocsp_responses_by_end ON ocsp_responses (ends);

-- The newest list of each shard; its bytes lie in crl_parts, beside those of
-- lists that are being made.
CREATE TABLE crls (
	issuer_key_id BLOB NOT NULL,
	shard         BIGINT NOT NULL,
	number        BIGINT NOT NULL,
	revision      BIGINT NOT NULL,
	this_update   BIGINT NOT NULL,
	next_update   BIGINT NOT NULL,
	entries       BIGINT NOT NULL,
	size          BIGINT NOT NULL,
	parts         BIGINT NOT NULL,
	PRIMARY KEY (issuer_key_id, shard)
) WITHOUT ROWID;
CREATE TABLE crl_parts (
	issuer_key_id BLOB NOT NULL,
	shard         BIGINT NOT NULL,
	number        BIGINT NOT NULL,
	part          BIGINT NOT NULL,
	body          BLOB NOT NULL,
	PRIMARY KEY (issuer_key_id, shard, number, part)
);

-- What each replica says of the keys that it holds.
CREATE TABLE key_states (
	key_id  BLOB NOT NULL,
	replica TEXT NOT NULL,
	at      BIGINT NOT NULL,
	state   TEXT NOT NULL,
	PRIMARY KEY (key_id, replica)
) WITHOUT ROWID;

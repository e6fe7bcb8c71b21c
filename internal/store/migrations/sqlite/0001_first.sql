-- Times are unix microseconds, 0 for none; serials, key ids and hashes bytes. Tables of small rows are WITHOUT
-- ROWID, so that the key's tree holds the row.

CREATE TABLE accounts (
	id         TEXT NOT NULL PRIMARY KEY,
	directory  TEXT NOT NULL,
	status     TEXT NOT NULL,
	thumbprint TEXT NOT NULL,
	jwk        BLOB NOT NULL,
	contact    TEXT NOT NULL,
	terms_at   BIGINT NOT NULL,
	eab_key    TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	keep_until BIGINT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX accounts_by_key ON accounts (directory, thumbprint);
CREATE INDEX accounts_by_end ON accounts (keep_until) WHERE eab_key = '';
CREATE INDEX accounts_by_eab_key ON accounts (eab_key) WHERE eab_key <> '';

-- Keys of accounts that were deactivated or revoked; kept for good.
CREATE TABLE retired_keys (
	directory  TEXT NOT NULL,
	thumbprint TEXT NOT NULL,
	retired_at BIGINT NOT NULL,
	PRIMARY KEY (directory, thumbprint)
) WITHOUT ROWID;

CREATE TABLE eab_keys (
	id           TEXT NOT NULL PRIMARY KEY,
	directory    TEXT NOT NULL,
	label        TEXT NOT NULL,
	mac_key      BLOB NOT NULL,
	profiles     TEXT NOT NULL,
	names        TEXT NOT NULL,
	pre_approved BOOLEAN NOT NULL,
	max_accounts BIGINT NOT NULL,
	accounts     BIGINT NOT NULL,
	created_at   BIGINT NOT NULL,
	expires_at   BIGINT NOT NULL,
	revoked_at   BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE orders (
	id             TEXT NOT NULL PRIMARY KEY,
	account        TEXT NOT NULL,
	directory      TEXT NOT NULL,
	status         TEXT NOT NULL,
	identifiers    TEXT NOT NULL,
	authorizations TEXT NOT NULL, -- the ids, 26 characters each, side by side
	profile        TEXT NOT NULL,
	not_before     BIGINT NOT NULL,
	not_after      BIGINT NOT NULL,
	replaces       TEXT NOT NULL,
	problem        TEXT NOT NULL,
	certificate    TEXT NOT NULL,
	created_at     BIGINT NOT NULL,
	expires_at     BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX orders_by_account ON orders (account, id);
CREATE INDEX orders_by_end ON orders (expires_at);

CREATE TABLE authorizations (
	id            TEXT NOT NULL PRIMARY KEY,
	account       TEXT NOT NULL,
	directory     TEXT NOT NULL,
	identifier    TEXT NOT NULL,
	wildcard      BOOLEAN NOT NULL,
	status        TEXT NOT NULL,
	expires_at    BIGINT NOT NULL,
	token         TEXT NOT NULL,
	offered       TEXT NOT NULL,
	created_at    BIGINT NOT NULL,
	attempt_type  TEXT NOT NULL,
	processing    BOOLEAN NOT NULL,
	tries         BIGINT NOT NULL,
	next_at       BIGINT NOT NULL,
	problem       TEXT NOT NULL,
	validated_at  BIGINT NOT NULL,
	response      BLOB NOT NULL,
	claimed_until BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX authorizations_by_end ON authorizations (expires_at);
CREATE INDEX authorizations_valid ON authorizations (account, identifier, wildcard, expires_at) WHERE status = 'valid';
CREATE INDEX authorizations_due ON authorizations (next_at) WHERE processing;

CREATE TABLE certificates (
	serial         BLOB NOT NULL PRIMARY KEY,
	state          TEXT NOT NULL,
	order_id       TEXT NOT NULL,
	account        TEXT NOT NULL,
	directory      TEXT NOT NULL,
	profile        TEXT NOT NULL,
	issuer         TEXT NOT NULL,
	issuer_key_id  BLOB NOT NULL,
	names          TEXT NOT NULL,
	der            BLOB NOT NULL,
	key_hash       BLOB NOT NULL,
	not_before     BIGINT NOT NULL,
	not_after      BIGINT NOT NULL,
	planned_at     BIGINT NOT NULL,
	revoked_at     BIGINT NOT NULL,
	revoked_reason BIGINT NOT NULL,
	replaced_by    TEXT NOT NULL,
	claimed_until  BIGINT NOT NULL
);
CREATE INDEX certificates_by_account ON certificates (account);
CREATE INDEX certificates_by_end ON certificates (not_after);
CREATE INDEX certificates_planned ON certificates (claimed_until) WHERE state = 'planned';
CREATE INDEX certificates_revoked ON certificates (issuer_key_id, serial) WHERE revoked_at > 0;

CREATE TABLE certificate_names (
	name      TEXT NOT NULL,
	not_after BIGINT NOT NULL,
	serial    BLOB NOT NULL,
	PRIMARY KEY (name, not_after, serial)
) WITHOUT ROWID;

-- Public keys that were compromised; kept for good.
CREATE TABLE blocked_keys (
	key_hash   BLOB NOT NULL PRIMARY KEY,
	why        TEXT NOT NULL,
	blocked_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit (
	sequence INTEGER PRIMARY KEY,
	at       BIGINT NOT NULL,
	object   TEXT NOT NULL, -- its first 12 bytes, which find it
	hash     BLOB NOT NULL,
	entry    TEXT NOT NULL
);
CREATE INDEX audit_by_object ON audit (object);

CREATE TABLE leases (
	name   TEXT NOT NULL PRIMARY KEY,
	holder TEXT NOT NULL,
	ends   BIGINT NOT NULL
) WITHOUT ROWID;

-- Rate limits: the theoretical arrival time of each (GCRA).
CREATE TABLE limits (
	key TEXT NOT NULL PRIMARY KEY,
	tat BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX limits_by_end ON limits (tat);

CREATE TABLE numbers (
	name  TEXT NOT NULL PRIMARY KEY,
	value BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE secrets (
	name  TEXT NOT NULL PRIMARY KEY,
	value BLOB NOT NULL
) WITHOUT ROWID;

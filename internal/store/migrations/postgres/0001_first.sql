-- Times are unix microseconds, 0 for none; serials, key ids and hashes bytes. Text compares by its bytes.

CREATE TABLE accounts (
	id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	directory  TEXT COLLATE "C" NOT NULL,
	status     TEXT COLLATE "C" NOT NULL,
	thumbprint TEXT COLLATE "C" NOT NULL,
	jwk        BYTEA NOT NULL,
	contact    TEXT COLLATE "C" NOT NULL,
	terms_at   BIGINT NOT NULL,
	eab_key    TEXT COLLATE "C" NOT NULL,
	created_at BIGINT NOT NULL,
	keep_until BIGINT NOT NULL
);
CREATE UNIQUE INDEX accounts_by_key ON accounts (directory, thumbprint);
CREATE INDEX accounts_by_end ON accounts (keep_until) WHERE eab_key = '';
CREATE INDEX accounts_by_eab_key ON accounts (eab_key) WHERE eab_key <> '';

-- Keys of accounts that were deactivated or revoked; kept for good.
CREATE TABLE retired_keys (
	directory  TEXT COLLATE "C" NOT NULL,
	thumbprint TEXT COLLATE "C" NOT NULL,
	retired_at BIGINT NOT NULL,
	PRIMARY KEY (directory, thumbprint)
);

CREATE TABLE eab_keys (
	id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	directory    TEXT COLLATE "C" NOT NULL,
	label        TEXT COLLATE "C" NOT NULL,
	mac_key      BYTEA NOT NULL,
	profiles     TEXT COLLATE "C" NOT NULL,
	names        TEXT COLLATE "C" NOT NULL,
	pre_approved BOOLEAN NOT NULL,
	max_accounts BIGINT NOT NULL,
	accounts     BIGINT NOT NULL,
	created_at   BIGINT NOT NULL,
	expires_at   BIGINT NOT NULL,
	revoked_at   BIGINT NOT NULL
);

CREATE TABLE orders (
	id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	account        TEXT COLLATE "C" NOT NULL,
	directory      TEXT COLLATE "C" NOT NULL,
	status         TEXT COLLATE "C" NOT NULL,
	identifiers    TEXT COLLATE "C" NOT NULL,
	authorizations TEXT COLLATE "C" NOT NULL, -- the ids, 26 characters each, side by side
	profile        TEXT COLLATE "C" NOT NULL,
	not_before     BIGINT NOT NULL,
	not_after      BIGINT NOT NULL,
	replaces       TEXT COLLATE "C" NOT NULL,
	problem        TEXT COLLATE "C" NOT NULL,
	certificate    TEXT COLLATE "C" NOT NULL,
	created_at     BIGINT NOT NULL,
	expires_at     BIGINT NOT NULL
);
CREATE INDEX orders_by_account ON orders (account, id);
CREATE INDEX orders_by_end ON orders (expires_at);

CREATE TABLE authorizations (
	id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	account       TEXT COLLATE "C" NOT NULL,
	directory     TEXT COLLATE "C" NOT NULL,
	identifier    TEXT COLLATE "C" NOT NULL,
	wildcard      BOOLEAN NOT NULL,
	status        TEXT COLLATE "C" NOT NULL,
	expires_at    BIGINT NOT NULL,
	token         TEXT COLLATE "C" NOT NULL,
	offered       TEXT COLLATE "C" NOT NULL,
	created_at    BIGINT NOT NULL,
	attempt_type  TEXT COLLATE "C" NOT NULL,
	processing    BOOLEAN NOT NULL,
	tries         BIGINT NOT NULL,
	next_at       BIGINT NOT NULL,
	problem       TEXT COLLATE "C" NOT NULL,
	validated_at  BIGINT NOT NULL,
	response      BYTEA NOT NULL,
	claimed_until BIGINT NOT NULL
);
CREATE INDEX authorizations_by_end ON authorizations (expires_at);
CREATE INDEX authorizations_valid ON authorizations (account, identifier, wildcard, expires_at) WHERE status = 'valid';
CREATE INDEX authorizations_due ON authorizations (next_at) WHERE processing;

CREATE TABLE certificates (
	serial         BYTEA NOT NULL PRIMARY KEY,
	state          TEXT COLLATE "C" NOT NULL,
	order_id       TEXT COLLATE "C" NOT NULL,
	account        TEXT COLLATE "C" NOT NULL,
	directory      TEXT COLLATE "C" NOT NULL,
	profile        TEXT COLLATE "C" NOT NULL,
	issuer         TEXT COLLATE "C" NOT NULL,
	issuer_key_id  BYTEA NOT NULL,
	names          TEXT COLLATE "C" NOT NULL,
	der            BYTEA NOT NULL,
	key_hash       BYTEA NOT NULL,
	not_before     BIGINT NOT NULL,
	not_after      BIGINT NOT NULL,
	planned_at     BIGINT NOT NULL,
	revoked_at     BIGINT NOT NULL,
	revoked_reason BIGINT NOT NULL,
	replaced_by    TEXT COLLATE "C" NOT NULL,
	claimed_until  BIGINT NOT NULL
);
CREATE INDEX certificates_by_account ON certificates (account);
CREATE INDEX certificates_by_end ON certificates (not_after);
CREATE INDEX certificates_planned ON certificates (claimed_until) WHERE state = 'planned';
CREATE INDEX certificates_revoked ON certificates (issuer_key_id, serial) WHERE revoked_at > 0;

CREATE TABLE certificate_names (
	name      TEXT COLLATE "C" NOT NULL,
	not_after BIGINT NOT NULL,
	serial    BYTEA NOT NULL,
	PRIMARY KEY (name, not_after, serial)
);

-- Public keys that were compromised; kept for good.
CREATE TABLE blocked_keys (
	key_hash   BYTEA NOT NULL PRIMARY KEY,
	why        TEXT COLLATE "C" NOT NULL,
	blocked_at BIGINT NOT NULL
);

CREATE TABLE audit (
	sequence BIGINT PRIMARY KEY,
	at       BIGINT NOT NULL,
	object   TEXT COLLATE "C" NOT NULL, -- its first 12 bytes, which find it
	hash     BYTEA NOT NULL,
	entry    TEXT COLLATE "C" NOT NULL
);
CREATE INDEX audit_by_object ON audit (object, sequence);

CREATE TABLE leases (
	name   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	holder TEXT COLLATE "C" NOT NULL,
	ends   BIGINT NOT NULL
);

-- Rate limits: the theoretical arrival time of each (GCRA).
CREATE TABLE limits (
	key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	tat BIGINT NOT NULL
);
CREATE INDEX limits_by_end ON limits (tat);

CREATE TABLE numbers (
	name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	value BIGINT NOT NULL
);

CREATE TABLE secrets (
	name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	value BYTEA NOT NULL
);

-- Entries that wait for their place in the chain, which one replica gives them.
CREATE TABLE audit_unsequenced (
	id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at     BIGINT NOT NULL,
	object TEXT COLLATE "C" NOT NULL, -- its first 12 bytes, which find it
	entry  TEXT COLLATE "C" NOT NULL
);

-- Nonces, shared by the replicas. A crash empties these tables, which starts
-- a new epoch; nothing else is lost.
CREATE UNLOGGED TABLE nonce_epochs (
	epoch      BIGINT PRIMARY KEY,
	tag        BYTEA NOT NULL,
	mac_key    BYTEA NOT NULL,
	started_at BIGINT NOT NULL
);
CREATE UNLOGGED TABLE used_nonces (
	epoch   BIGINT NOT NULL,
	counter BIGINT NOT NULL,
	PRIMARY KEY (epoch, counter)
);

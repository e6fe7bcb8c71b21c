-- Enrolled devices, and certificates that rest on them or are for SSH.
CREATE TABLE devices (
	id           TEXT NOT NULL PRIMARY KEY,
	owner        TEXT NOT NULL,
	state        TEXT NOT NULL,
	spki         BLOB NOT NULL,
	key_hash     BLOB NOT NULL,
	serial       BIGINT NOT NULL,
	slot         TEXT NOT NULL,
	firmware     TEXT NOT NULL,
	form_factor  BIGINT NOT NULL,
	pin_policy   TEXT NOT NULL,
	touch_policy TEXT NOT NULL,
	attestation  BLOB NOT NULL,
	names        TEXT NOT NULL,
	other_names  TEXT NOT NULL,
	principals   TEXT NOT NULL,
	max_lifetime BIGINT NOT NULL, -- microseconds
	enrolled_at  BIGINT NOT NULL,
	enrolled_by  TEXT NOT NULL,
	ended_at     BIGINT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX devices_by_key ON devices (key_hash);
CREATE UNIQUE INDEX devices_by_slot ON devices (serial, slot) WHERE state = 'active'; -- a slot holds one key
CREATE INDEX devices_by_owner ON devices (owner);

-- Names, to whom they belong and by which proof; kept after a device's end,
-- so that nobody inherits one by accident.
CREATE TABLE device_names (
	name  TEXT NOT NULL PRIMARY KEY,
	owner TEXT NOT NULL,
	proof TEXT NOT NULL -- 'own' key or 'other'
) WITHOUT ROWID;

-- Firmware that is refused.
CREATE TABLE advisories (
	id         TEXT NOT NULL PRIMARY KEY,
	first      TEXT NOT NULL,
	last       TEXT NOT NULL,
	created_at BIGINT NOT NULL
) WITHOUT ROWID;

-- SSH keys whose use is an alarm.
CREATE TABLE watched_keys (
	fingerprint TEXT NOT NULL PRIMARY KEY,
	label       TEXT NOT NULL,
	created_at  BIGINT NOT NULL
) WITHOUT ROWID;

ALTER TABLE certificates ADD COLUMN format TEXT NOT NULL DEFAULT 'x509';
ALTER TABLE certificates ADD COLUMN subject TEXT NOT NULL DEFAULT '';
CREATE INDEX certificates_by_subject ON certificates (subject) WHERE subject <> '';

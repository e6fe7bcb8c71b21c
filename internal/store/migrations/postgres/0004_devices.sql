-- Enrolled devices, and certificates that rest on them or are for SSH.
CREATE TABLE devices (
	id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	owner        TEXT COLLATE "C" NOT NULL,
	state        TEXT COLLATE "C" NOT NULL,
	spki         BYTEA NOT NULL,
	key_hash     BYTEA NOT NULL,
	serial       BIGINT NOT NULL,
	slot         TEXT COLLATE "C" NOT NULL,
	firmware     TEXT COLLATE "C" NOT NULL,
	form_factor  BIGINT NOT NULL,
	pin_policy   TEXT COLLATE "C" NOT NULL,
	touch_policy TEXT COLLATE "C" NOT NULL,
	attestation  BYTEA NOT NULL,
	names        TEXT COLLATE "C" NOT NULL,
	other_names  TEXT COLLATE "C" NOT NULL,
	principals   TEXT COLLATE "C" NOT NULL,
	max_lifetime BIGINT NOT NULL, -- microseconds
	enrolled_at  BIGINT NOT NULL,
	enrolled_by  TEXT COLLATE "C" NOT NULL,
	ended_at     BIGINT NOT NULL
);
CREATE UNIQUE INDEX devices_by_key ON devices (key_hash);
CREATE UNIQUE INDEX devices_by_slot ON devices (serial, slot) WHERE state = 'active'; -- a slot holds one key
CREATE INDEX devices_by_owner ON devices (owner);

-- Names, to whom they belong and by which proof; kept after a device's end,
-- so that nobody inherits one by accident.
CREATE TABLE device_names (
	name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	owner TEXT COLLATE "C" NOT NULL,
	proof TEXT COLLATE "C" NOT NULL -- 'own' key or 'other'
);

-- Firmware that is refused.
CREATE TABLE advisories (
	id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	first      TEXT COLLATE "C" NOT NULL,
	last       TEXT COLLATE "C" NOT NULL,
	created_at BIGINT NOT NULL
);

-- SSH keys whose use is an alarm.
CREATE TABLE watched_keys (
	fingerprint TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	label       TEXT COLLATE "C" NOT NULL,
	created_at  BIGINT NOT NULL
);

ALTER TABLE certificates ADD COLUMN format TEXT COLLATE "C" NOT NULL DEFAULT 'x509';
ALTER TABLE certificates ADD COLUMN subject TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX certificates_by_subject ON certificates (subject) WHERE subject <> '';

package store

import (
	"context"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const deviceColumns = `id, owner, state, spki, key_hash, serial, slot, firmware, form_factor, pin_policy, touch_policy, attestation,
	names, other_names, principals, max_lifetime, enrolled_at, enrolled_by, ended_at`

func scanDevice(rows engine.Row, d *protocol.Device) (err error) {
	var names, others, principals string
	var serial, formFactor, maxLifetime, enrolledAt, endedAt int64
	if err := rows.Scan((*string)(&d.ID), &d.Owner, (*string)(&d.State), &d.Key, (*hexed)(&d.KeyHash), &serial, &d.Slot, &d.Firmware,
		&formFactor, &d.PINPolicy, &d.TouchPolicy, &d.Attestation, &names, &others, &principals, &maxLifetime,
		&enrolledAt, &d.EnrolledBy, &endedAt); err != nil {
		return err
	}
	d.Serial, d.FormFactor, d.MaxLifetime = uint32(serial), byte(formFactor), time.Duration(maxLifetime)*time.Microsecond
	d.EnrolledAt, d.EndedAt = fromMicros(enrolledAt), fromMicros(endedAt)
	for _, list := range []struct {
		text string
		to   *[]string
	}{{names, &d.Names}, {others, &d.OtherNames}, {principals, &d.Principals}} {
		if *list.to, err = decodeStrings(list.text); err != nil {
			return err
		}
	}
	return nil
}

// Device returns the device, ErrNotFound if there is none.
func (q *queries) Device(ctx context.Context, id protocol.DeviceID) (protocol.Device, error) {
	return one(ctx, q, scanDevice, "SELECT "+deviceColumns+" FROM devices WHERE id = $1", string(id))
}

// DeviceByKey returns the device, of whatever state, whose key has this hash
// (hex SHA-256 of the SubjectPublicKeyInfo), ErrNotFound if there is none.
func (q *queries) DeviceByKey(ctx context.Context, keyHash string) (protocol.Device, error) {
	return one(ctx, q, scanDevice, "SELECT "+deviceColumns+" FROM devices WHERE key_hash = $1", hexed(keyHash))
}

// DeviceFilter narrows Devices; a zero field matches everything.
type DeviceFilter struct {
	Owner  string
	State  protocol.DeviceState
	Name   string // a dns name of either list, or a principal
	Serial uint32
	After  protocol.DeviceID // the last one of the page before
	Limit  int               // 0: 100; at most 1000
}

// Devices returns a page of devices, oldest first. A search by name reads
// through the table, which has a row for each that was ever enrolled.
func (q *queries) Devices(ctx context.Context, f DeviceFilter) ([]protocol.Device, error) {
	var where filter
	where.and("id > $", string(f.After))
	if f.Owner != "" {
		where.and("owner = $", f.Owner)
	}
	if f.State != "" {
		where.and("state = $", string(f.State))
	}
	if f.Name != "" { // the lists are JSON, and neither engine finds text in a way that the other knows
		where.and("replace(names || other_names || principals, $, '') <> names || other_names || principals", `"`+f.Name+`"`)
	}
	if f.Serial != 0 {
		where.and("serial = $", int64(f.Serial))
	}
	return page(ctx, q, scanDevice, "SELECT "+deviceColumns+" FROM devices", &where, "id", f.Limit)
}

// LostKeys calls yield for each device that is lost, oldest first, until that
// fails. It reads page by page.
func (q *queries) LostKeys(ctx context.Context, yield func(protocol.Device) error) error {
	for f := (DeviceFilter{State: protocol.DeviceLost, Limit: maxPage}); ; {
		list, err := q.Devices(ctx, f)
		if err != nil {
			return err
		}
		for _, d := range list {
			if err := yield(d); err != nil {
				return err
			}
			f.After = d.ID
		}
		if len(list) < maxPage {
			return nil
		}
	}
}

// InsertDevice adds a device; ErrConflict when its key is enrolled already, in
// whatever state, or its slot has another key that is active.
func (tx *Tx) InsertDevice(d protocol.Device) error {
	return tx.insert("INSERT INTO devices ("+deviceColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) ON CONFLICT DO NOTHING`,
		string(d.ID), d.Owner, string(d.State), notNil(d.Key), hexed(d.KeyHash), int64(d.Serial), d.Slot, d.Firmware, int64(d.FormFactor),
		d.PINPolicy, d.TouchPolicy, notNil(d.Attestation), encodeStrings(d.Names), encodeStrings(d.OtherNames), encodeStrings(d.Principals),
		d.MaxLifetime.Microseconds(), micros(d.EnrolledAt), d.EnrolledBy, micros(d.EndedAt))
}

// EndDevice retires an active device, or calls it lost; one that was retired
// may still be called lost. False: it isn't there, or was so already.
func (tx *Tx) EndDevice(id protocol.DeviceID, state protocol.DeviceState) (bool, error) {
	from := "state = 'active'"
	if state == protocol.DeviceLost {
		from = "state <> 'lost'"
	}
	return tx.changed("UPDATE devices SET state = $2, ended_at = $3 WHERE id = $1 AND "+from, string(id), string(state), micros(tx.now))
}

// SetIdentities replaces what an active device may be certified as. False: it
// isn't there, or has ended.
func (tx *Tx) SetIdentities(id protocol.DeviceID, i protocol.Identities) (bool, error) {
	return tx.changed("UPDATE devices SET names = $2, other_names = $3, principals = $4, max_lifetime = $5 WHERE id = $1 AND state = 'active'",
		string(id), encodeStrings(i.Names), encodeStrings(i.OtherNames), encodeStrings(i.Principals), i.MaxLifetime.Microseconds())
}

// HoldSubject keeps the device that a certificate rests on as it is until the
// transaction's end: it writes the row, so that who ends the device meanwhile
// waits, and sees what was recorded. False: the device isn't active. What
// rests on no device is true.
func (tx *Tx) HoldSubject(subject string) (bool, error) {
	id, ok := protocol.DeviceOf(subject)
	if !ok {
		return true, nil
	}
	return tx.changed("UPDATE devices SET state = state WHERE id = $1 AND state = 'active'", string(id))
}

// A name is proven by the device's own key, or for others' keys.
const (
	OwnKey   = "own"
	OtherKey = "other"
)

// TakeName gives a name to a person for good, for one kind of proof, unless it
// was given before; it returns who has it and by which.
func (tx *Tx) TakeName(name, owner, proof string) (hasOwner, hasProof string, err error) {
	if _, err := tx.exec("INSERT INTO device_names (name, owner, proof) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", name, owner, proof); err != nil {
		return "", "", err
	}
	_, err = one(context.Background(), &tx.queries, func(rows engine.Row, _ *struct{}) error { return rows.Scan(&hasOwner, &hasProof) },
		"SELECT owner, proof FROM device_names WHERE name = $1", name)
	return hasOwner, hasProof, err
}

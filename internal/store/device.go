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

// Advisories returns the ranges of firmware that are refused.
func (q *queries) Advisories(ctx context.Context) ([]protocol.Advisory, error) {
	return all(ctx, q, func(rows engine.Row, a *protocol.Advisory) error {
		var createdAt int64
		err := rows.Scan(&a.ID, &a.First, &a.Last, &createdAt)
		a.CreatedAt = fromMicros(createdAt)
		return err
	}, "SELECT id, first, last, created_at FROM advisories ORDER BY id")
}

// InsertDevice adds a device; ErrConflict when its key is enrolled already, in
// whatever state.
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

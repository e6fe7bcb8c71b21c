package operator

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Device is an enrolled device as operators see it.
type Device struct {
	protocol.Device
	KeyType  cert.KeyType
	Advisory string // that refuses its firmware; "": none
}

// Devices searches devices, of all states.
func (o *Console) Devices(ctx context.Context, who Caller, f store.DeviceFilter) ([]Device, error) {
	if err := o.operate(ctx, who, "device.list", f.Owner, nil); err != nil {
		return nil, err
	}
	list, err := o.db.Devices(ctx, f)
	if err != nil {
		return nil, err
	}
	return o.views(ctx, list)
}

// ShowDevice returns one device, by its ID or by its serial number.
func (o *Console) ShowDevice(ctx context.Context, who Caller, id string) (Device, error) {
	if err := o.operate(ctx, who, "device.show", id, nil); err != nil {
		return Device{}, err
	}
	d, err := find(ctx, o.db, id)
	if err != nil {
		return Device{}, err
	}
	return o.view(ctx, d)
}

func (o *Console) view(ctx context.Context, d protocol.Device) (Device, error) {
	list, err := o.views(ctx, []protocol.Device{d})
	if err != nil {
		return Device{}, err
	}
	return list[0], nil
}

// views adds what is found out about devices at the time of asking.
func (o *Console) views(ctx context.Context, list []protocol.Device) ([]Device, error) {
	advisories, err := o.db.Advisories(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Device, 0, len(list))
	for _, d := range list {
		view := Device{Device: d, Advisory: refusedBy(advisories, d.Firmware)}
		if pub, err := x509.ParsePKIXPublicKey(d.Key); err == nil {
			view.KeyType, _ = keyType(pub)
		}
		out = append(out, view)
	}
	return out, nil
}

// registry is what finds devices: the database, or a transaction.
type registry interface {
	Device(context.Context, protocol.DeviceID) (protocol.Device, error)
	Devices(context.Context, store.DeviceFilter) ([]protocol.Device, error)
	Advisories(context.Context) ([]protocol.Advisory, error)
}

// find finds one device, by its ID, or by its serial number where only one
// slot of it is enrolled, or was.
func find(ctx context.Context, r registry, id string) (protocol.Device, error) {
	all, err := ofSerial(ctx, r, id)
	if err != nil {
		return protocol.Device{}, err
	}
	active := slices.DeleteFunc(slices.Clone(all), func(d protocol.Device) bool { return d.State != protocol.DeviceActive })
	switch {
	case len(active) == 1:
		return active[0], nil
	case len(all) == 1:
		return all[0], nil
	}
	var slots []string
	for _, d := range all {
		slots = append(slots, fmt.Sprintf("%s (slot %s, %s)", d.ID, d.Slot, d.State))
	}
	return protocol.Device{}, bad("several slots of YubiKey %s are enrolled, name one: %s", id, strings.Join(slots, ", "))
}

// ofSerial finds the devices of a serial number, or the one of an ID.
func ofSerial(ctx context.Context, r registry, id string) ([]protocol.Device, error) {
	if serial, err := strconv.ParseUint(id, 10, 32); err == nil && serial > 0 {
		all, err := every(ctx, r, store.DeviceFilter{Serial: uint32(serial)})
		if err == nil && len(all) == 0 {
			err = noSuch("device")
		}
		return all, err
	}
	d, err := r.Device(ctx, protocol.DeviceID(id))
	if errors.Is(err, store.ErrNotFound) {
		err = noSuch("device")
	}
	return []protocol.Device{d}, err
}

// every finds all devices that a filter matches, page by page.
func every(ctx context.Context, r registry, f store.DeviceFilter) (all []protocol.Device, err error) {
	for f.Limit = 1000; ; {
		page, err := r.Devices(ctx, f)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(page) < f.Limit {
			return all, nil
		}
		f.After = page[len(page)-1].ID
	}
}

// advisoryOf names the advisory that refuses a device, "" if none does.
func advisoryOf(ctx context.Context, r registry, d protocol.Device) (string, error) {
	advisories, err := r.Advisories(ctx)
	return refusedBy(advisories, d.Firmware), err
}

// refusedBy names the first advisory that is about a firmware. One that can't
// be read is about all.
func refusedBy(advisories []protocol.Advisory, firmware string) string {
	f, err := yubikey.ParseFirmware(firmware)
	for _, a := range advisories {
		first, err1 := yubikey.ParseFirmware(a.First)
		last, err2 := yubikey.ParseFirmware(a.Last)
		if errors.Join(err, err1, err2) != nil || f.Within(first, last) {
			return a.ID
		}
	}
	return ""
}

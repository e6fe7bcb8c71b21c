package admin

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// identities reads what a device may be certified as.
func identities(i api.Identities) (protocol.Identities, error) {
	const most = 1e9 // seconds; thirty years
	if i.MaxLifetime < 0 || i.MaxLifetime > most {
		return protocol.Identities{}, protocol.NewProblem(protocol.Malformed, "max_lifetime: want seconds, 0 for the profiles' bounds alone")
	}
	return protocol.Identities{
		Names: i.Names, OtherNames: i.OtherNames, Principals: i.Principals,
		MaxLifetime: time.Duration(i.MaxLifetime * float64(time.Second)),
	}, nil
}

// device is one of a list; shown adds the attestation.
func device(d operator.Device) api.Device {
	return api.Device{
		ID: string(d.ID), Owner: d.Owner, State: string(d.State),
		Identities: api.Identities{Names: d.Names, OtherNames: d.OtherNames, Principals: d.Principals, MaxLifetime: d.MaxLifetime.Seconds()},
		Serial:     d.Serial, Slot: d.Slot, Firmware: d.Firmware, FormFactor: yubikey.FormFactor(d.FormFactor).String(),
		PINPolicy: d.PINPolicy, TouchPolicy: d.TouchPolicy, Key: d.KeyHash, KeyType: string(d.KeyType),
		EnrolledAt: utc(d.EnrolledAt), EnrolledBy: d.EnrolledBy, EndedAt: utc(d.EndedAt), Advisory: d.Advisory,
	}
}

func shown(d operator.Device, err error) (api.Device, error) {
	if err != nil {
		return api.Device{}, err
	}
	out := device(d)
	out.Attestation = string(d.Attestation)
	return out, nil
}

func each[R, T any](rows []R, shape func(R) T) []T {
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		out = append(out, shape(r))
	}
	return out
}

func (s *Server) listDevices(c call) (api.List[api.Device], error) {
	q := query{c: c}
	f := store.DeviceFilter{
		Owner: strings.ToLower(q.text("owner")), State: protocol.DeviceState(q.text("state")), Name: q.text("name"),
		After: protocol.DeviceID(q.text("after")), Limit: q.limit(),
	}
	switch f.State {
	case "", protocol.DeviceActive, protocol.DeviceRetired, protocol.DeviceLost:
	default:
		q.bad("state", "active, retired or lost")
	}
	if q.err != nil {
		return api.List[api.Device]{}, q.err
	}
	rows, err := s.Console.Devices(c.Context(), c.who, f)
	return page(rows, f.Limit, device, func(d operator.Device) string { return string(d.ID) }), err
}

func (s *Server) enrollDevice(c call) (api.Device, error) {
	var r api.NewDevice
	if err := c.body(&r); err != nil {
		return api.Device{}, err
	}
	i, err := identities(r.Identities)
	if err != nil {
		return api.Device{}, err
	}
	return shown(s.Console.Enroll(c.Context(), c.who, operator.NewDevice{
		Owner: r.Owner, Identities: i, Attestation: []byte(r.Attestation), Possession: r.Possession, MadeAt: r.MadeAt,
	}))
}

func (s *Server) showDevice(c call) (api.Device, error) {
	return shown(s.Console.ShowDevice(c.Context(), c.who, c.PathValue("id")))
}

func (s *Server) setIdentities(c call) (api.Device, error) {
	var r api.Identities
	if err := c.body(&r); err != nil {
		return api.Device{}, err
	}
	i, err := identities(r)
	if err != nil {
		return api.Device{}, err
	}
	return shown(s.Console.SetIdentities(c.Context(), c.who, c.PathValue("id"), i))
}

func (s *Server) retireDevice(c call) (api.Device, error) {
	q := query{c: c}
	revoke := q.boolean("revoke")
	if q.err != nil {
		return api.Device{}, q.err
	}
	return shown(s.Console.Retire(c.Context(), c.who, c.PathValue("id"), revoke != nil && *revoke))
}

func withdrawn(w operator.Withdrawn, err error) (api.Withdrawn, error) {
	plain := func(c cert.Certificate) api.Certificate { return certificate(operator.Certificate{Certificate: c}) }
	return api.Withdrawn{Devices: each(w.Devices, device), Revoked: each(w.Revoked, plain), Irrevocable: each(w.Irrevocable, plain)}, err
}

func (s *Server) loseDevice(c call) (api.Withdrawn, error) {
	return withdrawn(s.Console.Lost(c.Context(), c.who, c.PathValue("id")))
}

func (s *Server) revokePerson(c call) (api.Withdrawn, error) {
	var r api.Revocation
	if err := c.body(&r); err != nil {
		return api.Withdrawn{}, err
	}
	return withdrawn(s.Console.RevokePerson(c.Context(), c.who, c.PathValue("owner"), cert.Reason(r.Reason)))
}

func advisory(a operator.Advisory) api.Advisory {
	return api.Advisory{ID: a.ID, First: a.First, Last: a.Last, CreatedAt: utc(a.CreatedAt), Devices: each(a.Devices, device)}
}

func (s *Server) listAdvisories(c call) (api.List[api.Advisory], error) {
	rows, err := s.Console.Advisories(c.Context(), c.who)
	return api.List[api.Advisory]{Items: each(rows, advisory)}, err
}

func (s *Server) addAdvisory(c call) (api.Advisory, error) {
	var r api.Advisory
	if err := c.body(&r); err != nil {
		return api.Advisory{}, err
	}
	a, err := s.Console.AddAdvisory(c.Context(), c.who, protocol.Advisory{ID: r.ID, First: r.First, Last: r.Last})
	return advisory(a), err
}

func (s *Server) withdrawAdvisory(c call) (none, error) {
	return none{}, s.Console.WithdrawAdvisory(c.Context(), c.who, c.PathValue("id"))
}

func watchedKey(k protocol.WatchedKey) api.WatchedKey {
	return api.WatchedKey{Fingerprint: k.Fingerprint, Label: k.Label, CreatedAt: utc(k.CreatedAt)}
}

func (s *Server) listWatchedKeys(c call) (api.List[api.WatchedKey], error) {
	rows, err := s.Console.WatchedKeys(c.Context(), c.who)
	return api.List[api.WatchedKey]{Items: each(rows, watchedKey)}, err
}

func (s *Server) watchKey(c call) (api.WatchedKey, error) {
	var r api.WatchedKey
	if err := c.body(&r); err != nil {
		return api.WatchedKey{}, err
	}
	k, err := s.Console.Watch(c.Context(), c.who, protocol.WatchedKey{Fingerprint: r.Fingerprint, Label: r.Label})
	return watchedKey(k), err
}

// fingerprint reads the one in the path, which is base64url of its text, since
// that has slashes.
func fingerprint(c call) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(c.PathValue("fingerprint"), "="))
	if err != nil || len(b) > 100 {
		return "", protocol.NewProblem(protocol.Malformed, "the path names no key: want base64url of its fingerprint's text")
	}
	return string(b), nil
}

func (s *Server) forgetKey(c call) (none, error) {
	key, err := fingerprint(c)
	if err != nil {
		return none{}, err
	}
	return none{}, s.Console.Forget(c.Context(), c.who, key)
}

func (s *Server) reportSighting(c call) (none, error) {
	key, err := fingerprint(c)
	if err != nil {
		return none{}, err
	}
	var r api.Sighting
	if err := c.body(&r); err != nil {
		return none{}, err
	}
	return none{}, s.Console.Report(c.Context(), c.who, key, operator.Sighting{Host: r.Host, User: r.User, From: r.From, At: r.At, Detail: r.Detail})
}

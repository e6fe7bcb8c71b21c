package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/chancery-pki/chancery/internal/api"
)

// maxPages bounds a listing that is read to its end: a million rows.
const maxPages = 1000

// errEndless is a server whose listing has no end.
var errEndless = errors.New("the server's listing has no end")

// all reads a listing to its end.
func all[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	q := url.Values{"limit": {strconv.Itoa(api.MaxLimit)}}
	for k, v := range query {
		if v[0] != "" {
			q[k] = v
		}
	}
	var rows []T
	for range maxPages {
		var l api.List[T]
		if err := c.Do(ctx, http.MethodGet, path, q, nil, &l); err != nil {
			return nil, err
		}
		if rows = append(rows, l.Items...); l.Next == "" {
			return rows, nil
		}
		q.Set("after", l.Next)
	}
	return nil, errEndless
}

// one makes a call whose answer is one thing.
func one[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var answer T
	err := c.Do(ctx, method, path, nil, in, &answer)
	return answer, err
}

// Enroll enrolls a device.
func (c *Client) Enroll(ctx context.Context, d api.NewDevice) (api.Device, error) {
	return one[api.Device](ctx, c, http.MethodPost, "/v1/devices", d)
}

// DeviceFilter narrows Devices; "" matches everything.
type DeviceFilter struct{ Owner, State, Name string }

// Devices lists all devices that match.
func (c *Client) Devices(ctx context.Context, f DeviceFilter) ([]api.Device, error) {
	return all[api.Device](ctx, c, "/v1/devices", url.Values{"owner": {f.Owner}, "state": {f.State}, "name": {f.Name}})
}

// slotted is a device as people name it on every CA: serial number and slot.
var slotted = regexp.MustCompile(`^([0-9]{1,10})-([0-9a-f]{2})$`)

// Device finds a device by its ID, its serial number, or serial number and
// slot as in "4711-9a". The device with its attestation is returned. Where a
// slot's key was made anew, the active one counts, else the last.
func (c *Client) Device(ctx context.Context, ref string) (api.Device, error) {
	id := ref
	if m := slotted.FindStringSubmatch(ref); m != nil {
		rows, err := c.Devices(ctx, DeviceFilter{})
		if err != nil {
			return api.Device{}, err
		}
		if id = pick(rows, m[1], m[2]); id == "" {
			return api.Device{}, &api.Problem{Detail: fmt.Sprintf("slot %s of YubiKey %s isn't enrolled", m[2], m[1]), Status: http.StatusNotFound}
		}
	}
	return one[api.Device](ctx, c, http.MethodGet, "/v1/devices/"+url.PathEscape(id), nil)
}

func pick(rows []api.Device, serial, slot string) string {
	var best api.Device
	for _, d := range rows {
		if strconv.FormatUint(uint64(d.Serial), 10) != serial || d.Slot != slot {
			continue
		}
		if best.ID == "" || d.State == "active" || best.State != "active" && d.EnrolledAt.After(best.EnrolledAt) {
			best = d
		}
	}
	return best.ID
}

// SetIdentities replaces what a device (by its ID) may be certified as.
func (c *Client) SetIdentities(ctx context.Context, id string, names api.Identities) (api.Device, error) {
	return one[api.Device](ctx, c, http.MethodPost, "/v1/devices/"+url.PathEscape(id)+"/identities", names)
}

// Retire ends a device (by its ID): it proves nothing any more. What it holds
// is revoked if that is asked for.
func (c *Client) Retire(ctx context.Context, id string, revoke bool) (api.Device, error) {
	query := ""
	if revoke {
		query = "?revoke=true"
	}
	return one[api.Device](ctx, c, http.MethodPost, "/v1/devices/"+url.PathEscape(id)+"/retire"+query, nil)
}

// Lost ends a YubiKey with all its slots, by its serial number or the ID of one
// of its devices, and revokes all that it holds.
func (c *Client) Lost(ctx context.Context, id string) (api.Withdrawn, error) {
	return one[api.Withdrawn](ctx, c, http.MethodPost, "/v1/devices/"+url.PathEscape(id)+"/lost", nil)
}

// RevokePerson revokes everything that a person's devices brought.
func (c *Client) RevokePerson(ctx context.Context, owner string, r api.Revocation) (api.Withdrawn, error) {
	return one[api.Withdrawn](ctx, c, http.MethodPost, "/v1/people/"+url.PathEscape(owner)+"/revoke", r)
}

// Advisories lists which firmware is refused.
func (c *Client) Advisories(ctx context.Context) ([]api.Advisory, error) {
	return all[api.Advisory](ctx, c, "/v1/advisories", nil)
}

// AddAdvisory refuses devices of a range of firmware.
func (c *Client) AddAdvisory(ctx context.Context, a api.Advisory) (api.Advisory, error) {
	return one[api.Advisory](ctx, c, http.MethodPost, "/v1/advisories", a)
}

// WithdrawAdvisory takes an advisory back.
func (c *Client) WithdrawAdvisory(ctx context.Context, id string) error {
	_, err := one[struct{}](ctx, c, http.MethodPost, "/v1/advisories/"+url.PathEscape(id)+"/withdraw", nil)
	return err
}

// WatchedKeys lists the SSH keys whose use is an alarm.
func (c *Client) WatchedKeys(ctx context.Context) ([]api.WatchedKey, error) {
	return all[api.WatchedKey](ctx, c, "/v1/watched-keys", nil)
}

// Watch adds an SSH key whose use is an alarm.
func (c *Client) Watch(ctx context.Context, k api.WatchedKey) (api.WatchedKey, error) {
	return one[api.WatchedKey](ctx, c, http.MethodPost, "/v1/watched-keys", k)
}

// watched is the path of a key: a fingerprint has "/" and "+" in it.
func watched(fingerprint string) string {
	return "/v1/watched-keys/" + base64.RawURLEncoding.EncodeToString([]byte(fingerprint))
}

// Forget takes a watched key back.
func (c *Client) Forget(ctx context.Context, fingerprint string) error {
	_, err := one[struct{}](ctx, c, http.MethodPost, watched(fingerprint)+"/forget", nil)
	return err
}

// Report says that a watched key was used.
func (c *Client) Report(ctx context.Context, fingerprint string, s api.Sighting) error {
	_, err := one[struct{}](ctx, c, http.MethodPost, watched(fingerprint)+"/sightings", s)
	return err
}

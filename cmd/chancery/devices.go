package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/api"
)

type devicesCommand struct {
	fleetFlags `embed:""`

	Enroll     enrollDevice     `cmd:"" help:"Make a key on a YubiKey and enroll it, here or from what attest wrote."`
	Attest     attestDevice     `cmd:"" help:"Make a key on a YubiKey and write what enroll needs, on the person's machine."`
	List       listDevices      `cmd:"" help:"List the devices, and which CAs know them."`
	Show       showDevice       `cmd:"" help:"Show one device."`
	Identities deviceIdentities `cmd:"" help:"Say what a device may be certified as; what isn't given stays."`
	Retire     retireDevice     `cmd:"" help:"End a device; its certificates stay good until they end."`
	Lost       lostDevice       `cmd:"" help:"End a YubiKey and revoke what it holds, TLS and SSH, at once."`
	Advisory   advisoryCommand  `cmd:"" help:"Refuse a range of firmware."`
}

// deviceArg is how people name a device: IDs differ from CA to CA.
type deviceArg struct {
	Device string `arg:"" help:"The YubiKey's serial number, with the slot where several are enrolled (4711-9a), or the device's ID at one CA."`
}

func deviceName(d api.Device) string {
	return fmt.Sprintf("YubiKey %d slot %s of %s", d.Serial, d.Slot, d.Owner)
}

type listDevices struct {
	Owner string `help:"Only this person's."`
	State string `help:"Only active, retired or lost ones." enum:",active,retired,lost" default:""`
	Name  string `help:"Only those that may have this name."`
}

// spread is one device and the CAs that know it.
type spread struct {
	api.Device
	states map[string][]string // the CAs, by the state that the device has there
}

func (c *listDevices) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) ([]api.Device, error) {
		return ca.Devices(ctx, client.DeviceFilter{Owner: c.Owner, State: c.State, Name: c.Name})
	})
	if err != nil {
		return err
	}
	if f.json || len(all) == 1 && !all[0].Done {
		if f.json {
			err = f.show(w, all, "", nil)
		}
		return errors.Join(err, lag(all))
	}
	var reached []string
	for _, o := range all {
		if o.Done {
			reached = append(reached, o.CA)
		} else {
			fl.tell("%s", o.trouble())
		}
	}
	rows := spreadOf(all)
	err = f.show(w, nil, "DEVICE OWNER STATE NAMES OTHER-NAMES PRINCIPALS ENROLLED CAS", func(add func(...any)) {
		for _, s := range rows {
			add(fmt.Sprintf("%d-%s", s.Serial, s.Slot), s.Owner, s.state(), strings.Join(s.Names, ","), strings.Join(s.OtherNames, ","),
				strings.Join(s.Principals, ","), day(s.EnrolledAt), s.where(reached))
		}
	})
	return errors.Join(err, lag(all))
}

// spreadOf joins the CAs' lists: a device is the same everywhere by its key.
func spreadOf(all []outcome[[]api.Device]) []*spread {
	byKey := map[string]*spread{}
	for _, o := range all {
		if o.Answer == nil {
			continue
		}
		for _, d := range *o.Answer {
			s := byKey[d.Key]
			if s == nil {
				s = &spread{d, map[string][]string{}}
				byKey[d.Key] = s
			}
			s.states[d.State] = append(s.states[d.State], o.CA)
		}
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *spread) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.Slot, b.Slot), a.EnrolledAt.Compare(b.EnrolledAt))
	})
}

// state is the device's, with the CAs where they don't agree.
func (s *spread) state() string {
	if len(s.states) == 1 {
		return s.State
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(s.states)) {
		parts = append(parts, state+" at "+strings.Join(s.states[state], "+"))
	}
	return strings.Join(parts, ", ")
}

// where says which of the CAs that were reached know the device.
func (s *spread) where(reached []string) string {
	var missing []string
	for _, ca := range reached {
		if !slices.ContainsFunc(slices.Collect(maps.Values(s.states)), func(in []string) bool { return slices.Contains(in, ca) }) {
			missing = append(missing, ca)
		}
	}
	if len(missing) == 0 {
		return "all"
	}
	return "not " + strings.Join(missing, ", ")
}

type showDevice struct{ deviceArg }

func (c *showDevice) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Device, error) { return ca.Device(ctx, c.Device) })
	if err != nil {
		return err
	}
	if f.json {
		return errors.Join(f.show(w, all, "", nil), lag(all))
	}
	for i, o := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		switch {
		case o.Done:
			err = errors.Join(err, f.show(w, nil, "", func(add func(...any)) { deviceRows(add, o.CA, *o.Answer) }))
		case len(all) > 1:
			fmt.Fprintln(w, o.trouble())
		}
	}
	return errors.Join(err, lag(all))
}

func deviceRows(add func(...any), ca string, d api.Device) {
	add("CA", ca)
	add("device", fmt.Sprintf("YubiKey %d slot %s", d.Serial, d.Slot))
	add("ID", d.ID)
	add("owner", d.Owner)
	state := d.State
	if !d.EndedAt.IsZero() {
		state += " since " + day(d.EndedAt)
	}
	add("state", state)
	if d.Advisory != "" {
		add("refused by advisory", d.Advisory)
	}
	add("names (yubikey-01)", strings.Join(d.Names, ", "))
	add("other names (yubikey-02)", strings.Join(d.OtherNames, ", "))
	add("SSH principals", strings.Join(d.Principals, ", "))
	if d.MaxLifetime > 0 {
		add("longest lifetime", time.Duration(d.MaxLifetime*float64(time.Second)))
	}
	add("model", fmt.Sprintf("%s, firmware %s", d.FormFactor, d.Firmware))
	add("PIN, touch", d.PINPolicy+", "+d.TouchPolicy)
	add("key", fmt.Sprintf("%s %s", d.KeyType, d.Key))
	add("enrolled", fmt.Sprintf("%s by %s", day(d.EnrolledAt), d.EnrolledBy))
}

// identityFlags are what a device may be certified as; nil where not given.
type identityFlags struct {
	Name        []string       `help:"A TLS name for the device's own key (yubikey-01, device-attest-01)."`
	OtherName   []string       `help:"A TLS name for other keys that the device vouches for (yubikey-02)."`
	Principal   []string       `help:"An SSH principal."`
	MaxLifetime *time.Duration `help:"The longest lifetime of any certificate, as 16h; 0 for the profiles' bounds alone."`
}

// over puts what was given in the place of what there is; "" stands for none.
func (c identityFlags) over(i api.Identities) api.Identities {
	for _, l := range []struct {
		given []string
		into  *[]string
	}{{c.Name, &i.Names}, {c.OtherName, &i.OtherNames}, {c.Principal, &i.Principals}} {
		if l.given != nil {
			*l.into = slices.DeleteFunc(slices.Clone(l.given), func(s string) bool { return s == "" })
		}
	}
	if c.MaxLifetime != nil {
		i.MaxLifetime = c.MaxLifetime.Seconds()
	}
	return i
}

// alike reports whether two devices' identities are the same; order means
// nothing.
func alike(a, b api.Identities) bool {
	same := func(a, b []string) bool {
		a, b = slices.Clone(a), slices.Clone(b)
		for _, l := range [][]string{a, b} {
			for i := range l {
				l[i] = strings.ToLower(l[i])
			}
			slices.Sort(l)
		}
		return slices.Equal(a, b)
	}
	return same(a.Names, b.Names) && same(a.OtherNames, b.OtherNames) && same(a.Principals, b.Principals) && a.MaxLifetime == b.MaxLifetime
}

type deviceIdentities struct {
	deviceArg
	identityFlags
}

// Help is shown by --help.
func (c *deviceIdentities) Help() string {
	return `Each of --name, --other-name and --principal replaces the whole list; --name "" empties it.`
}

func (c *deviceIdentities) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Device, error) {
		d, err := ca.Device(ctx, c.Device)
		if err != nil {
			return d, err
		}
		wanted := c.over(d.Identities)
		if alike(wanted, d.Identities) {
			return d, errAlready
		}
		return ca.SetIdentities(ctx, d.ID, wanted)
	})
	if err != nil {
		return err
	}
	return report(w, f, all, "done", deviceName)
}

type retireDevice struct {
	deviceArg
	Revoke bool `help:"Revoke what it holds, too."`
}

func (c *retireDevice) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Device, error) {
		d, err := ca.Device(ctx, c.Device)
		if err != nil {
			return d, err
		}
		if d.State == "lost" || d.State == "retired" && !c.Revoke { // lost is more
			return d, errAlready
		}
		return ca.Retire(ctx, d.ID, c.Revoke)
	})
	if err != nil {
		return err
	}
	return report(w, f, all, "retired", deviceName)
}

type lostDevice struct {
	Device string `arg:"" help:"The YubiKey's serial number, or the ID of one of its devices at one CA; all of its slots are lost."`
}

func (c *lostDevice) Run(ctx context.Context, fl *fleet, f format, w output) error {
	serial, _, _ := strings.Cut(c.Device, "-") // a slot says nothing here
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Withdrawn, error) {
		a, err := ca.Lost(ctx, serial)
		if err == nil && len(a.Devices)+len(a.Revoked) == 0 {
			err = errAlready
		}
		return a, err
	})
	if err != nil {
		return err
	}
	return withdrawals(w, f, all, "lost")
}

type advisoryCommand struct {
	Add      addAdvisory      `cmd:"" help:"Refuse devices with firmware from one version to another."`
	List     listAdvisories   `cmd:"" help:"List what is refused, and which devices that hits."`
	Withdraw withdrawAdvisory `cmd:"" help:"Take an advisory back."`
}

type addAdvisory struct {
	ID    string `arg:"" help:"What people call it, as YSA-2024-03."`
	First string `required:"" help:"The first version that is refused, as 5.0.0."`
	Last  string `required:"" help:"The last one, as 5.6.9."`
}

func (c *addAdvisory) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Advisory, error) {
		have, err := ca.Advisories(ctx)
		if err != nil {
			return api.Advisory{}, err
		}
		for _, a := range have {
			if a.ID == c.ID && a.First == c.First && a.Last == c.Last {
				return a, errAlready
			}
		}
		return ca.AddAdvisory(ctx, api.Advisory{ID: c.ID, First: c.First, Last: c.Last})
	})
	if err != nil {
		return err
	}
	return report(w, f, all, "added", func(a api.Advisory) string {
		return fmt.Sprintf("%s refuses firmware %s to %s: %d active devices", a.ID, a.First, a.Last, len(a.Devices))
	})
}

type listAdvisories struct{}

func (c *listAdvisories) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) ([]api.Advisory, error) { return ca.Advisories(ctx) })
	if err != nil {
		return err
	}
	if len(all) == 1 && !all[0].Done && !f.json {
		return lag(all)
	}
	err = f.show(w, all, "CA ADVISORY FIRST LAST SINCE DEVICES", func(add func(...any)) {
		for _, o := range all {
			if !o.Done {
				fl.tell("%s", o.trouble())
				continue
			}
			for _, a := range *o.Answer {
				var hit []string
				for _, d := range a.Devices {
					hit = append(hit, fmt.Sprintf("%d-%s (%s)", d.Serial, d.Slot, d.Owner))
				}
				add(o.CA, a.ID, a.First, a.Last, day(a.CreatedAt), strings.Join(hit, ", "))
			}
		}
	})
	return errors.Join(err, lag(all))
}

type withdrawAdvisory struct {
	ID string `arg:"" help:"The advisory."`
}

func (c *withdrawAdvisory) Run(ctx context.Context, fl *fleet, f format, w output) error {
	known := false // at any CA
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (string, error) {
		have, err := ca.Advisories(ctx)
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(have, func(a api.Advisory) bool { return a.ID == c.ID }) {
			return c.ID, errAlready
		}
		known = true
		return c.ID, ca.WithdrawAdvisory(ctx, c.ID)
	})
	if err != nil {
		return err
	}
	if !known && !slices.ContainsFunc(all, func(o outcome[string]) bool { return !o.Done }) {
		return fmt.Errorf("there is no advisory %q", c.ID) // rather a slip than done before
	}
	return report(w, f, all, "withdrawn", func(id string) string { return id })
}

package operator

import (
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

func TestAdvisories(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		old := m.stick(1)
		old.firmware = []byte{5, 6, 9}
		d := w.enroll(t, old, "alice", named("alice.example"))
		w.enroll(t, m.stick(2), "alice", named("alice.example"))
		for _, c := range []struct {
			a    protocol.Advisory
			says string
		}{
			{protocol.Advisory{First: "5.0.0", Last: "5.1.0"}, "an advisory's id"},
			{protocol.Advisory{ID: "a b", First: "5.0.0", Last: "5.1.0"}, "an advisory's id"},
			{protocol.Advisory{ID: strings.Repeat("x", 101), First: "5.0.0", Last: "5.1.0"}, "an advisory's id"},
			{protocol.Advisory{ID: "x", First: "5", Last: "5.1.0"}, "three numbers"},
			{protocol.Advisory{ID: "x", First: "5.0.0", Last: "5.1.256"}, "0 to 255"},
			{protocol.Advisory{ID: "x", First: "5.1.1", Last: "5.1.0"}, "older one first"},
		} {
			_, err := w.AddAdvisory(ctx, administrator, c.a)
			wants(t, err, protocol.Malformed, c.says)
		}
		a := protocol.Advisory{ID: "YSA-2024-03", First: "5.0.0", Last: "5.6.255"}
		got, err := w.AddAdvisory(ctx, administrator, a)
		if err != nil || len(got.Devices) != 1 || got.Devices[0].ID != d.ID || got.Devices[0].Advisory != a.ID || got.CreatedAt.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
		_, err = w.AddAdvisory(ctx, administrator, a)
		wants(t, err, protocol.Malformed, "withdraw it first")
		if list, err := w.Advisories(ctx, auditor); err != nil || len(list) != 1 || len(list[0].Devices) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if d, err := w.ShowDevice(ctx, auditor, "1"); err != nil || d.Advisory != a.ID {
			t.Errorf("%+v, %v", d, err)
		}
		if err := w.WithdrawAdvisory(ctx, administrator, a.ID); err != nil {
			t.Error(err)
		}
		wants(t, w.WithdrawAdvisory(ctx, administrator, a.ID), protocol.Malformed, "no such advisory")
		if d, err := w.ShowDevice(ctx, auditor, "1"); err != nil || d.Advisory != "" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A watched key that is seen in use is recorded, and the alarm sounds.
func TestWatchedKeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, good := t.Context(), "SHA256:"+strings.Repeat("A", 43)
		for _, c := range []struct{ fingerprint, label, says string }{
			{"MD5:00", "x", "not a fingerprint"},
			{good[:20], "x", "not a fingerprint"},
			{good + "=", "x", "not a fingerprint"},
			{good[:40] + "\n" + good[40:], "x", "not a fingerprint"},
			{good, "", "label"},
			{good, "a\x00b", "label"},
			{good, strings.Repeat("x", 101), "label"},
		} {
			_, err := w.Watch(ctx, administrator, protocol.WatchedKey{Fingerprint: c.fingerprint, Label: c.label})
			wants(t, err, protocol.Malformed, c.says)
		}
		reporter := Caller{Name: "web", Role: Reporter}
		var heard []string
		w.Sighted = func(k protocol.WatchedKey, s Sighting) { heard = append(heard, k.Label+" on "+s.Host) }
		seen := Sighting{Host: "web.example", User: "root", From: "192.0.2.1", At: w.now(), Detail: "Accepted publickey\x1b[2J" + strings.Repeat("x", 2*maxLine)}
		wants(t, w.Report(ctx, reporter, good, seen), protocol.Malformed, "no such watched key")

		if k, err := w.Watch(ctx, administrator, protocol.WatchedKey{Fingerprint: good, Label: "break glass"}); err != nil || k.CreatedAt.IsZero() {
			t.Errorf("%+v, %v", k, err)
		}
		_, err := w.Watch(ctx, administrator, protocol.WatchedKey{Fingerprint: good, Label: "again"})
		wants(t, err, protocol.Malformed, "watched already")
		if list, err := w.WatchedKeys(ctx, reporter); err != nil || len(list) != 1 || list[0].Label != "break glass" {
			t.Errorf("%+v, %v", list, err)
		}
		if err := w.Report(ctx, reporter, good, seen); err != nil {
			t.Error(err)
		}
		if len(heard) != 1 || heard[0] != "break glass on web.example" {
			t.Errorf("the alarm: %q", heard)
		}
		all := w.entries(t, store.AuditFilter{Action: "ssh.sighting"})
		line, _ := all[len(all)-1].Entry.Detail["line"].(string)
		if len(all) != 2 || all[0].Entry.Denied == "" || all[1].Entry.Object != good || all[1].Entry.Actor != "operator:web" ||
			all[1].Entry.Detail["user"] != "root" || len(line) != maxLine || strings.Contains(line, "\x1b") {
			t.Errorf("%+v", all)
		}
		if err := w.Forget(ctx, administrator, good); err != nil {
			t.Error(err)
		}
		wants(t, w.Forget(ctx, administrator, good), protocol.Malformed, "no such watched key")
	})
}

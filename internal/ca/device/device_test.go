package device

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// One entry for each field, about the device where it is known, and never
// without end.
func TestMismatches(t *testing.T) {
	like := audit.Entry{Action: "authorization.invalid", Actor: "account:a", Peer: "192.0.2.1", Directory: "people", Object: "authz", Denied: "no", Detail: map[string]any{"name": "x"}}
	seen := protocol.Evidence{Target: "YubiKey 1 slot 9a", Faults: []protocol.Fault{{Field: "serial", Want: "2", Got: "1"}, {Field: "chain", Got: "broken"}}}
	all := Mismatches(like, seen)
	if len(all) != 2 || all[0].Object != "YubiKey 1 slot 9a" || all[0].Action != "device.mismatch" || all[0].Denied != "serial 1" ||
		all[0].Detail["want"] != "2" || all[0].Detail["authorization"] != "authz" || all[0].Peer != like.Peer || all[1].Detail["field"] != "chain" {
		t.Errorf("%+v", all)
	}
	if like.Detail["field"] != nil {
		t.Error("the validation's own entry was changed")
	}
	seen.Subject = "device:d1"
	seen.Faults = make([]protocol.Fault, 1000)
	if all := Mismatches(like, seen); len(all) != maxMismatches || all[0].Object != "d1" {
		t.Errorf("%d entries, about %q", len(all), all[0].Object)
	}
	if Mismatches(like, protocol.Evidence{Subject: "device:d1"}) != nil {
		t.Error("entries without a fault")
	}
}

// The device is named only where it, and not the profile, is the bound.
func TestTooLong(t *testing.T) {
	problem := protocol.NewProblem(protocol.Malformed, "too long")
	if got := TooLong(problem, time.Hour, time.Hour); got != error(problem) {
		t.Error(got)
	}
	if got := TooLong(problem, time.Hour, 2*time.Hour); !strings.Contains(got.Error(), "1h0m0s") || problem.Detail != "too long" || protocol.AsProblem(got).Type != protocol.Malformed {
		t.Error(got)
	}
	if err := errors.New("other"); TooLong(err, 1, 2) != err {
		t.Error("an error that is no problem was changed")
	}
}

package storetest

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Opener opens an empty database of its own for a test, with these options
// but for the DSN, and closes it at the test's end.
type Opener func(t *testing.T, o store.Options) *store.DB

// Run is what both engines must pass.
func Run(t *testing.T, open Opener) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"Accounts", testAccounts},
		{"AccountPages", testAccountPages},
		{"EndAccount", testEndAccount},
		{"ReplaceKey", testReplaceKey},
		{"KeepAccount", testKeepAccount},
		{"EABKeys", testEABKeys},
		{"Orders", testOrders},
		{"OrderStatus", testOrderStatus},
		{"OrdersOf", testOrdersOf},
		{"Authorizations", testAuthorizations},
		{"ReusableAuthorizations", testReusable},
		{"Validation", testValidation},
		{"ProvenBy", testProvenBy},
		{"ClaimValidations", testClaimValidations},
		{"StillStands", testStillStands},
		{"Certificates", testCertificates},
		{"CertificateSearch", testCertificateSearch},
		{"Plans", testPlans},
		{"PlansOfKeys", testPlansOfKeys},
		{"Revocation", testRevocation},
		{"RevokedShards", testRevokedShards},
		{"NewestOfNames", testNewestOfNames},
		{"LiveCertificates", testLiveCertificates},
		{"KeyStates", testKeyStates},
		{"Devices", testDevices},
		{"DeviceSearch", testDeviceSearch},
		{"DeviceNames", testDeviceNames},
		{"DeviceStands", testDeviceStands},
		{"DeviceRaces", testDeviceRaces},
		{"Advisories", testAdvisories},
		{"OCSP", testOCSP},
		{"OCSPRollback", testOCSPRollback},
		{"ClaimOCSP", testClaimOCSP},
		{"SweepOCSP", testSweepOCSP},
		{"OCSPRaces", testOCSPRaces},
		{"CRLs", testCRLs},
		{"KRL", testKRL},
		{"Notices", testNotices},
		{"Audit", testAudit},
		{"AuditSearch", testAuditSearch},
		{"AuditClock", testAuditClock},
		{"Update", testUpdate},
		{"UpdateCancelled", testUpdateCancelled},
		{"Leases", testLeases},
		{"Limits", testLimits},
		{"Numbers", testNumbers},
		{"Sweeps", testSweeps},
		{"SweepAudit", testSweepAudit},
		{"Nonces", testNonces},
		{"Races", testRaces},
		{"RacedClaims", testRacedClaims},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := &Clock{now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
			test.run(t, &fixture{t: t, Clock: clock, db: open(t, store.Options{Clock: clock.Now})})
		})
	}
}

// Clock is a clock that tests move by hand.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the time it shows; it goes on by a microsecond each time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a database and its clock.
type fixture struct {
	*Clock
	t  *testing.T
	db *store.DB
}

func (f *fixture) ctx() context.Context { return f.t.Context() }

// update runs fn in a transaction that must succeed.
func (f *fixture) update(fn func(tx *store.Tx) error) {
	f.t.Helper()
	if err := f.db.Update(f.ctx(), fn); err != nil {
		f.t.Fatal(err)
	}
}

// changed runs a compare-and-swap in a transaction and checks its answer.
func (f *fixture) changed(want bool, fn func(tx *store.Tx) (bool, error)) {
	f.t.Helper()
	var got bool
	f.update(func(tx *store.Tx) (err error) {
		got, err = fn(tx)
		return err
	})
	if got != want {
		f.t.Fatalf("changed = %v, want %v", got, want)
	}
}

// issuance is one whose steps up to the n-th are done.
func (f *fixture) issuance(n, steps int) *Issuance {
	f.t.Helper()
	i := NewIssuance(n, f.Now())
	for _, step := range i.Steps()[:steps] {
		f.update(step)
	}
	return i
}

// sequence gives waiting audit entries their place, where that is needed.
func (f *fixture) sequence() {
	f.t.Helper()
	f.update(func(tx *store.Tx) error {
		_, err := tx.SequenceAudit(tx.Now(), "test", 1<<20)
		return err
	})
}

// equal compares what went in with what came out, as times that the database
// rounds to microseconds.
func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// result is a call's answer, so that must(call()).or(t) is one expression.
type result[T any] struct {
	v   T
	err error
}

func must[T any](v T, err error) result[T] { return result[T]{v, err} }

// or returns the answer, or fails the test.
func (r result[T]) or(t *testing.T) T {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.v
}

// wantError checks that err is the one expected.
func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error = %v, want %v", err, want)
	}
}

// awkward is text that SQL, JSON or an encoding might stumble over.
var awkward = strings.Join([]string{"a'b", `c"d`, "e\\f", "$1", "?", "%s", "ü", "\U0001F512", "\n", " ", ","}, "")

func problem() *protocol.Problem {
	return &protocol.Problem{
		Type: protocol.Unauthorized, Detail: awkward, Status: 403, Algorithms: []string{"ES256"}, Instance: "https://x.example/",
		Identifier: &protocol.Identifier{Type: protocol.DNS, Value: "a.example"}, RetryAfter: 1500 * time.Millisecond,
		Sub: []protocol.Problem{{Type: protocol.CAAForbids, Detail: "no", Identifier: &protocol.Identifier{Type: protocol.IP, Value: "2001:db8::1"}}},
	}
}

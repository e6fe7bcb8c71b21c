package slot

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
)

var (
	now     = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	errTest = errors.New("test")
)

// credential lives 24 hours from now and is renewed after 16.
func credential() *issued.Credential {
	return &issued.Credential{Obtained: now, Place: 0.5, Chains: []*tls.Certificate{{Leaf: &x509.Certificate{NotBefore: now, NotAfter: now.Add(24 * time.Hour)}}}}
}

func in(d time.Duration) func(int) time.Time { return func(int) time.Time { return now.Add(d) } }

func TestTake(t *testing.T) {
	const h = time.Hour
	for _, tc := range []struct {
		name string
		make func(*Slot)
		at   time.Duration
		work Work
		next time.Duration
	}{
		{"an empty one", func(*Slot) {}, 0, Replace, 0},
		{"after a failure", func(s *Slot) { s.Failed(errTest, false, in(h)) }, h - 1, Nothing, h},
		{"after a failure, long enough", func(s *Slot) { s.Failed(errTest, false, in(h)) }, h, Replace, h},
		{"after a failure, encouraged", func(s *Slot) { s.Failed(errTest, false, in(h)); s.Encourage() }, 0, Replace, 0},
		{"with a certificate", func(s *Slot) { s.Current.Store(credential()) }, 0, Nothing, 16 * h},
		{"when that is due", func(s *Slot) { s.Current.Store(credential()) }, 16 * h, Replace, 16 * h},
		{"when it is due but failed", func(s *Slot) { s.Current.Store(credential()); s.Failed(errTest, false, in(17*h)) }, 16 * h, Nothing, 17 * h},
		{"it is early for a window", func(s *Slot) {
			s.Current.Store(credential())
			s.Plan(func(p *Plan) { p.Window = acme.Window{Start: now.Add(4 * h), End: now.Add(6 * h)} })
		}, 0, Nothing, 5 * h},
		{"a question comes first", func(s *Slot) { s.Current.Store(credential()); s.Plan(func(p *Plan) { p.AskAt = now.Add(h) }) }, 0, Nothing, h},
		{"the question", func(s *Slot) { s.Current.Store(credential()); s.Plan(func(p *Plan) { p.AskAt = now.Add(h) }) }, h, Ask, h},
		{"the response", func(s *Slot) { s.Current.Store(credential()); s.Plan(func(p *Plan) { p.StapleAt = now.Add(h) }) }, h, Staple, h},
		{"the certificate before the question", func(s *Slot) { s.Current.Store(credential()); s.Plan(func(p *Plan) { p.AskAt = now.Add(h) }) }, 16 * h, Replace, 16 * h},
		{"no plan without a certificate", func(s *Slot) { s.Failed(errTest, false, in(h)); s.Plan(func(p *Plan) { p.AskAt = now }) }, 0, Nothing, h},
	} {
		var s Slot
		tc.make(&s)
		work, next := s.Take(now.Add(tc.at), 0)
		if work != tc.work || !next.Equal(now.Add(tc.next)) {
			t.Errorf("%s: %v at %v, want %v at %v", tc.name, work, next.Sub(now), tc.work, tc.next)
		}
		if work == Nothing {
			continue
		}
		if again, _ := s.Take(now.Add(tc.at), 0); again != Nothing {
			t.Errorf("%s: taken twice", tc.name)
		}
		s.Release()
		if again, _ := s.Take(now.Add(tc.at), 0); again != work {
			t.Errorf("%s: not free after Release", tc.name)
		}
	}
}

func TestRounds(t *testing.T) {
	var s Slot
	if err := s.LastError(); err != ErrNotYet || s.Tried() {
		t.Error(err)
	}
	var rounds []int
	again := func(n int) time.Time { rounds = append(rounds, n); return now }
	s.Failed(errTest, false, again)
	s.Failed(ErrNotYet, true, again) // nobody was asked
	s.Failed(errTest, false, again)
	if fmt.Sprint(rounds) != "[1 1 2]" || s.LastError() != errTest || !s.Tried() {
		t.Errorf("%v, %v", rounds, s.LastError())
	}
	s.Succeeded()
	s.Failed(errTest, false, again)
	if rounds[3] != 1 {
		t.Errorf("a success doesn't begin anew: %v", rounds)
	}
	if next, err := s.Status(0); err != errTest || !next.Equal(now) {
		t.Error(next, err)
	}
}

func TestNames(t *testing.T) {
	gone := 0
	n := &Names{Max: 2, Gone: func(*issued.Credential) { gone++ }}
	s, ended, err := n.Want("a.test", now)
	if err != nil || ended == nil || s.String() != "server a.test" || !s.OnDemand() || n.Find("a.test") != s {
		t.Fatal(s, err)
	}
	if again, same, _ := n.Want("a.test", now); again != s || same != ended {
		t.Error("two rounds for one name")
	}
	if work, _ := s.Take(now, 0); work != Replace {
		t.Error("not due though it is wanted")
	}
	s.Failed(errTest, false, in(Pause(1)))
	s.Release()
	select {
	case <-ended:
	default:
		t.Error("who waits isn't told")
	}
	if _, _, err := n.Want("a.test", now.Add(Pause(1)-1)); !errors.Is(err, errTest) {
		t.Errorf("%v", err)
	}
	if work, _ := s.Take(now.Add(time.Hour), 0); work != Nothing {
		t.Error("tried again although nobody asks")
	}
	if _, ended, err := n.Want("a.test", now.Add(Pause(1))); ended == nil || err != nil {
		t.Errorf("%v", err)
	}

	// Full of names that are wanted: nothing goes for another.
	b, _, _ := n.Want("b.test", now)
	if _, _, err := n.Want("c.test", now.Add(100*time.Hour)); err == nil {
		t.Error("a name that somebody waits for was pushed out")
	}
	b.Current.Store(credential())
	b.Succeeded()
	if _, _, err := n.Want("c.test", now.Add(Keep-1)); err == nil || gone != 0 {
		t.Error("a new one was pushed out")
	}
	if _, _, err := n.Want("c.test", now.Add(Keep)); err != nil || gone != 1 || n.Find("b.test") != nil {
		t.Errorf("%v, %d gone", err, gone)
	}

	n.Expire(now.Add(1000 * time.Hour))
	if len(n.All()) != 2 {
		t.Error("dropped while somebody waits")
	}
	for _, s := range n.All() {
		s.Failed(errTest, false, in(0))
	}
	n.Expire(now.Add(maxRetry))
	if len(n.All()) != 2 {
		t.Error("a failure was forgotten at once")
	}
	n.Expire(now.Add(maxRetry + 1))
	if len(n.All()) != 0 {
		t.Error("failures are kept for ever")
	}
	var none *Names
	if none.All() != nil {
		t.Error("nil has slots")
	}
	none.Expire(now)
}

// TestNeeded: a certificate on demand is renewed if it was used in the second
// half of its time.
func TestNeeded(t *testing.T) {
	for used, want := range map[time.Duration]Work{0: Nothing, 7 * time.Hour: Nothing, 9 * time.Hour: Replace, 20 * time.Hour: Replace} {
		n := &Names{Max: 1}
		s, _, _ := n.Want("a.test", now)
		s.Current.Store(credential())
		s.Succeeded()
		s.Used(now.Add(used))
		if work, _ := s.Take(now.Add(21*time.Hour), 0); work != want {
			t.Errorf("used after %v: %v", used, work)
		}
	}
}

func TestPause(t *testing.T) {
	for fails, want := range map[int]time.Duration{0: Retry, 1: Retry, 2: 2 * Retry, 4: 8 * Retry, 7: time.Hour, 1000: time.Hour, -5: Retry} {
		if got := Pause(fails); got != want {
			t.Errorf("%d: %v, want %v", fails, got, want)
		}
	}
}

package issued

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

func TestRenewAt(t *testing.T) {
	const h = time.Hour
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tc := range []struct {
		name             string
		life, before     time.Duration
		window           acme.Window
		earliest, latest time.Duration // after the start
	}{
		{"two thirds, give or take a twentieth", 24 * h, 0, acme.Window{}, 14*h + 48*time.Minute, 17*h + 12*time.Minute},
		{"before its end", 24 * h, 4 * h, acme.Window{}, 20*h - 12*time.Minute, 20 * h},
		{"not in the first half", 24 * h, 20 * h, acme.Window{}, 12 * h, 12 * h},
		{"in the window", 24 * h, 0, acme.Window{Start: at(5 * h), End: at(6 * h)}, 5 * h, 6 * h},
		{"a window in the past", 24 * h, 0, acme.Window{Start: at(-5 * h), End: at(-4 * h)}, 10 * time.Second, 10 * time.Second},
		{"a window after the end", 24 * h, 0, acme.Window{Start: at(25 * h), End: at(26 * h)}, 20 * h, 20 * h},
		{"a window later than the program wants", 24 * h, 12 * h, acme.Window{Start: at(15 * h), End: at(16 * h)}, 12*h - 36*time.Minute, 12 * h},
		{"an endless window", 24 * h, 0, acme.Window{Start: at(0), End: at(1 << 62)}, 10 * time.Second, 20 * h},
		{"a second's life", time.Second, 0, acme.Window{}, 10 * time.Second, 10 * time.Second},
	} {
		for _, place := range []float64{0, 0.3, 0.999999} {
			c := &Credential{Chains: []*tls.Certificate{{Leaf: &x509.Certificate{NotBefore: now, NotAfter: now.Add(tc.life)}}}, Obtained: now, Place: place}
			got := c.RenewAt(tc.before, tc.window).Sub(now)
			if got < tc.earliest || got > tc.latest {
				t.Errorf("%s: after %v, want %v to %v", tc.name, got, tc.earliest, tc.latest)
			}
			if again := c.RenewAt(tc.before, tc.window).Sub(now); again != got {
				t.Errorf("%s: now %v, then %v", tc.name, got, again)
			}
		}
	}
}

// While a root is replaced, the chain that goes on to the old one is good for
// everybody.
func TestWidest(t *testing.T) {
	old, young := newCA(t, "old", nil), newCA(t, "young", nil)
	parse := func(der []byte) *x509.Certificate { c, _ := x509.ParseCertificate(der); return c }
	middle := newCA(t, "middle", young)
	cross := *young.cert
	der, err := x509.CreateCertificate(rand.Reader, &cross, old.cert, young.key.Public(), old.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(middle.issue(t, newKey(t), nil))
	short, wide, other := []*x509.Certificate{leaf, middle.cert}, []*x509.Certificate{leaf, middle.cert, parse(der)}, []*x509.Certificate{leaf, old.cert, old.cert, old.cert}
	for _, tc := range []struct {
		chains [][]*x509.Certificate
		want   int
	}{
		{[][]*x509.Certificate{short}, 0},
		{[][]*x509.Certificate{short, wide}, 1},
		{[][]*x509.Certificate{wide, short}, 0},
		{[][]*x509.Certificate{short, other, wide}, 2},
		{[][]*x509.Certificate{short, other}, 0},
	} {
		c := new(Credential)
		for _, chain := range tc.chains {
			c.Add(chain)
		}
		if c.Widest() != c.Chains[tc.want] || c.Accepted(nil) != c.Chains[tc.want] || len(c.Stapled(nil).Widest().Certificate) != len(tc.chains[tc.want]) {
			t.Errorf("%d chains: not number %d", len(tc.chains), tc.want)
		}
	}
}

func TestLate(t *testing.T) {
	c := &Credential{Chains: []*tls.Certificate{{Leaf: &x509.Certificate{NotBefore: now, NotAfter: now.Add(24 * time.Hour)}}}, Obtained: now, Place: 0.5}
	for after, want := range map[time.Duration]bool{0: false, 16 * time.Hour: false, 21 * time.Hour: false, 21*time.Hour + 21*time.Minute: true, 25 * time.Hour: true} {
		if c.Late(0, now.Add(after)) != want {
			t.Errorf("after %v: %v", after, !want)
		}
	}
}

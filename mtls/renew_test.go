package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
)

// TestWeeks: 24-hour certificates, renewed around 16 hours, each with a key of
// its own, the old one served until the new one is in, for three weeks.
func TestWeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		id := w.ready()
		defer id.Close()
		last := serverLeaf(t, id, "a.test")
		keys := map[string]bool{}
		for range 3 * 7 * 24 * 4 { // a look each quarter of an hour
			time.Sleep(15 * time.Minute)
			synctest.Wait()
			cert := serverLeaf(t, id, "a.test")
			clientLeaf(t, id)
			if cert == last {
				continue
			}
			age := time.Since(last.Leaf.NotBefore)
			if age < 14*time.Hour+48*time.Minute || age > 17*time.Hour+28*time.Minute {
				t.Errorf("replaced after %v", age)
			}
			if time.Since(cert.Leaf.NotBefore) > 17*time.Minute {
				t.Errorf("the new one came %v after it was issued", time.Since(cert.Leaf.NotBefore))
			}
			key, _ := x509.MarshalPKIXPublicKey(cert.Leaf.PublicKey)
			if keys[string(key)] {
				t.Error("a key came twice")
			}
			keys[string(key)] = true
			last = cert
		}
		if n := len(keys); n < 28 || n > 34 {
			t.Errorf("%d renewals in three weeks", n)
		}
		if n := w.log.count("level=WARN") + w.log.count("level=ERROR"); n > 0 {
			t.Errorf("complaints: %s", w.log)
		}
		accounts := map[string]bool{}
		for _, one := range w.issued() {
			if accounts[one.Account] || one.Replaces != "" {
				t.Error("an account was used twice, or replaced another's certificate")
			}
			accounts[one.Account] = true
		}
		if w.cas[0].Replaces()+w.cas[1].Replaces() > 0 {
			t.Error("a throwaway account tried to replace another's certificate")
		}
	})
}

// TestOldServedMeanwhile: while the CA takes its time, the old certificate
// serves; a minute after its replacement its key is erased, and not before.
func TestOldServedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].NoInfo, w.cfg.Usage, w.cfg.RenewBefore = true, UsageServer, 8*time.Hour
		id := w.ready()
		defer id.Close()
		old := serverLeaf(t, id, "a.test")
		w.cas[0].Set(fakeca.Slow)
		time.Sleep(time.Until(id.Health().Certificates[0].RenewAt) + 30*time.Second)
		if serverLeaf(t, id, "a.test") != old {
			t.Error("replaced while the CA is at it")
		}
		fresh := old
		for fresh == old {
			time.Sleep(time.Second)
			fresh = serverLeaf(t, id, "a.test")
		}
		if erased(old) {
			t.Error("the old key went while a handshake may be using it")
		}
		time.Sleep(eraseAfter + time.Second)
		synctest.Wait()
		if !erased(old) || erased(fresh) {
			t.Error("the old key is not erased, or the new one is")
		}
	})
}

// TestRenewalInformation: the CA asks for an early renewal and gets it at a
// random point of its window; what it says later counts too.
func TestRenewalInformation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage = UsageServer
		begin := time.Now()
		w.cas[0].RetryAfter = 10 * time.Minute
		w.cas[0].Window = func(leaf *x509.Certificate) acme.Window {
			start := leaf.NotBefore.Add(8 * time.Hour) // "as always", later than ours would be
			if time.Since(begin) > 3*time.Hour && leaf.NotBefore.Before(begin) {
				start = begin.Add(4 * time.Hour) // a change of mind, about the first
			}
			return acme.Window{Start: start, End: start.Add(time.Hour)}
		}
		id := w.ready()
		defer id.Close()
		time.Sleep(4*time.Hour - time.Minute)
		if n := len(w.issued()); n != 1 {
			t.Fatalf("%d certificates before the window", n)
		}
		time.Sleep(time.Hour + 2*time.Minute)
		synctest.Wait()
		if n := len(w.issued()); n != 2 {
			t.Fatalf("%d certificates after the window", n)
		}
		if at := w.issued()[1].At.Sub(begin); at < 4*time.Hour || at > 5*time.Hour {
			t.Errorf("renewed %v after the start", at)
		}
	})
}

// TestRenewalInformationIsNotTrusted: no window renews without end, later than
// the certificate can bear, or makes a difference when it makes no sense.
func TestRenewalInformationIsNotTrusted(t *testing.T) {
	for name, window := range map[string]func(*x509.Certificate) acme.Window{
		"always now": func(*x509.Certificate) acme.Window {
			return acme.Window{Start: time.Now().Add(-time.Hour), End: time.Now().Add(-time.Minute)}
		},
		"after the end": func(leaf *x509.Certificate) acme.Window {
			return acme.Window{Start: leaf.NotAfter.Add(time.Hour), End: leaf.NotAfter.Add(2 * time.Hour)}
		},
		"in a thousand years": func(leaf *x509.Certificate) acme.Window {
			return acme.Window{Start: leaf.NotAfter, End: leaf.NotAfter.AddDate(1000, 0, 0)}
		},
		"backwards": func(leaf *x509.Certificate) acme.Window {
			return acme.Window{Start: leaf.NotAfter, End: leaf.NotBefore}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			defer w.end()
			w.cfg.Usage, w.cas[0].Window, w.cas[0].RetryAfter = UsageServer, window, 10*time.Minute
			if name == "always now" {
				w.cas[0].RetryAfter = time.Second
			}
			id := w.ready()
			defer id.Close()
			for range 3 * 24 {
				time.Sleep(time.Hour)
				serverLeaf(t, id, "a.test")
			}
			n, most := len(w.issued()), 6
			if name == "always now" {
				most = 3*24*2 + 2 // a window's first look is half an hour to an hour away
			}
			if n < 4 || n > most {
				t.Errorf("%s: %d certificates in three days", name, n)
			}
		})
	}
}

// TestRenewBefore, and a lifetime that was asked for.
func TestRenewBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cfg.Lifetime, w.cfg.RenewBefore, w.cas[0].NoInfo = UsageServer, 6*time.Hour, time.Hour, true
		id := w.ready()
		defer id.Close()
		first := serverLeaf(t, id, "a.test").Leaf
		if got := time.Until(first.NotAfter); got < 6*time.Hour-time.Minute || got > 6*time.Hour {
			t.Errorf("lives %v", got)
		}
		time.Sleep(time.Until(first.NotAfter) - time.Hour - 4*time.Minute)
		if len(w.issued()) != 1 {
			t.Error("renewed too early")
		}
		time.Sleep(4*time.Minute + time.Second)
		synctest.Wait()
		if len(w.issued()) != 2 {
			t.Error("not renewed in time")
		}
	})
}

// TestLosingCAs: without one CA, or all but one, all goes on; without any the
// certificates serve until they end, and not a moment longer, and what is
// going to happen is told. When one comes back, so does everything.
func TestLosingCAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.end()
		id := w.ready()
		defer id.Close()
		day := func() {
			for range 24 {
				time.Sleep(time.Hour)
				serverLeaf(t, id, "a.test")
				clientLeaf(t, id)
				if h := id.Health(); !h.OK || !h.Able {
					t.Fatalf("%+v", h)
				}
			}
		}
		w.cas[0].Set(fakeca.Away)
		day()
		w.cas[1].Set(fakeca.Internal)
		day()
		if n := len(w.cas[2].Issued()); n == 0 {
			t.Fatal("the last CA issued nothing")
		}
		if h := id.Health(); h.CAs[0].Error == "" || h.CAs[1].Error == "" || h.CAs[2].Error != "" || h.CAs[2].Score < 0.9 {
			t.Errorf("%+v", h.CAs)
		}
		w.cas[2].Set(fakeca.Away)
		h := id.Health()
		dark, errors := h.DarkAt, 0
		for time.Until(dark) > time.Minute {
			time.Sleep(time.Minute)
			serverLeaf(t, id, "a.test")
			clientLeaf(t, id)
			h := id.Health()
			if !h.Able || !h.DarkAt.Equal(dark) || !strings.Contains(h.Dark, "a.test") {
				t.Fatalf("%+v", h)
			}
			if left := time.Until(dark); h.OK && left < time.Hour {
				t.Errorf("healthy with %v left", left)
			}
		}
		for _, ca := range id.Health().CAs {
			if ca.Score > 0.2 || ca.Error == "" {
				t.Errorf("%+v", ca)
			}
		}
		errors = w.log.count("level=ERROR")
		if w.log.count("could not be renewed") < 20 || errors < 10 || w.log.count("level=WARN") < 10 {
			t.Errorf("told too little: %d errors, %d warnings", errors, w.log.count("level=WARN"))
		}
		if !strings.Contains(w.log.String(), "ends="+dark.UTC().Format("2006-01-02T15:04")) {
			t.Error("the log doesn't say when")
		}
		time.Sleep(time.Minute + time.Second)
		_, serverErr := id.serverCertificate(hello("a.test"))
		_, clientErr := id.clientCertificate(new(tls.CertificateRequestInfo))
		if serverErr == nil && clientErr == nil {
			t.Fatal("a certificate that has ended is served")
		}
		for range 10 {
			id.serverCertificate(hello("a.test"))
		}
		if n := w.log.count("has ended; handshakes fail"); n < 1 || n > 2 {
			t.Errorf("the end was told %d times", n)
		}
		if h := id.Health(); h.Able || h.OK {
			t.Errorf("%+v", h)
		}
		w.cas[1].Set(fakeca.None)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		serverLeaf(t, id, "a.test")
		clientLeaf(t, id)
		if h := id.Health(); !h.OK {
			t.Errorf("%+v", h)
		}
	})
}

// TestEagerness: tries come closer together as the end does, and a dead CA is
// not flooded.
func TestEagerness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cas[0].NoInfo = UsageServer, true
		var mu sync.Mutex
		var attempts []time.Time
		w.cfg.Hooks.Attempted = func(a Attempt) {
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, time.Now())
		}
		id := w.ready()
		defer id.Close()
		end := serverLeaf(t, id, "a.test").Leaf.NotAfter
		w.cas[0].Set(fakeca.Away)
		time.Sleep(time.Until(end))
		id.Close()
		far, near := 0, 0
		for _, at := range attempts[1:] {
			switch left := end.Sub(at); {
			case left < 10*time.Minute:
				near++
			case left > 4*time.Hour && left < 5*time.Hour:
				far++
			}
		}
		if far < 5 || far > 14 || near < 15 || near > 90 {
			t.Errorf("%d tries in the fourth hour before the end, %d in the last ten minutes", far, near)
		}
	})
}

// TestRateLimit: what a CA asks for is kept.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cas[0].NoInfo, w.cas[0].RetryAfter = UsageServer, true, 20*time.Minute
		var tries atomic.Int32
		w.cfg.Hooks.Attempted = func(Attempt) { tries.Add(1) }
		id := w.ready()
		defer id.Close()
		w.cas[0].Set(fakeca.Limited)
		time.Sleep(time.Until(id.Health().Certificates[0].RenewAt))
		tries.Store(0)
		time.Sleep(time.Hour - time.Minute)
		if n := tries.Load(); n != 3 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}

// TestClockJumps: a machine that slept past the end of its certificates finds
// out at the next handshake.
func TestClockJumps(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	clock := &manual{now: time.Now()}
	w.cfg.Clock, w.cas[0].Now, w.cfg.Usage = clock, clock.Now, UsageServer
	id := w.ready()
	defer id.Close()
	clock.jump(48 * time.Hour) // and no timer fires
	if _, err := id.serverCertificate(hello("a.test")); err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Fatalf("%v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := id.serverCertificate(hello("a.test")); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestStaples: a response is there from the first handshake, is replaced
// before it ends, and is left out when it has ended.
func TestStaples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].OCSP, w.cas[0].Both, w.cas[0].Life = "http://ocsp.test/", true, 1000*time.Hour
		var n atomic.Int32
		var away atomic.Bool
		w.cfg.staple = func(_ context.Context, chain []*x509.Certificate) ([]byte, time.Time, error) {
			if away.Load() || len(chain) != 2 {
				return nil, time.Time{}, context.DeadlineExceeded
			}
			return []byte{byte(n.Add(1))}, time.Now().Add(12 * time.Hour), nil
		}
		id := w.ready()
		defer id.Close()
		if got := serverLeaf(t, id, "a.test"); len(got.OCSPStaple) != 1 || got.OCSPStaple[0] != 1 {
			t.Fatalf("staple %v", got.OCSPStaple)
		}
		time.Sleep(7 * time.Hour)
		synctest.Wait()
		first := serverLeaf(t, id, "a.test")
		if len(first.OCSPStaple) != 1 || first.OCSPStaple[0] != 2 || clientLeaf(t, id) != first {
			t.Errorf("staple %v", first.OCSPStaple)
		}
		away.Store(true)
		time.Sleep(10 * time.Hour)
		if got := serverLeaf(t, id, "a.test"); len(got.OCSPStaple) != 1 {
			t.Error("dropped while it is valid")
		}
		time.Sleep(2*time.Hour + time.Minute)
		synctest.Wait()
		if got := serverLeaf(t, id, "a.test"); got.OCSPStaple != nil {
			t.Error("a response that has ended is served")
		}
		away.Store(false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := serverLeaf(t, id, "a.test"); len(got.OCSPStaple) != 1 {
			t.Error("no new response")
		}
		if len(w.issued()) != 1 {
			t.Error("the certificate was replaced meanwhile")
		}
	})
}

// offset is a clock that can be set, whose timers don't notice.
type offset struct{ by atomic.Int64 }

// Now is the bubble's time and more.
func (o *offset) Now() time.Time { return time.Now().Add(time.Duration(o.by.Load())) }

// After goes by the bubble's time.
func (o *offset) After(d time.Duration) <-chan time.Time { return time.After(d) }

// TestClockIsSet: without any handshake it is noticed within ten minutes.
func TestClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		clock := new(offset)
		w.cfg.Clock, w.cas[0].Now = clock, clock.Now
		id := w.ready()
		defer id.Close()
		clock.by.Store(int64(20 * time.Hour))
		time.Sleep(longestSleep + time.Second)
		synctest.Wait()
		if n := len(w.issued()); n != 4 {
			t.Errorf("%d certificates", n)
		}
	})
}

// TestEncouragement: when a CA answers again, who waits for it doesn't wait
// any longer.
func TestEncouragement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		id := w.ready()
		defer id.Close()
		client := clientLeaf(t, id)
		id.client.Failed(errTest, false, func(int) time.Time { return time.Now().Add(23 * time.Hour) })
		time.Sleep(17*time.Hour + 30*time.Minute)
		synctest.Wait()
		if clientLeaf(t, id) == client {
			t.Error("waits on")
		}
	})
}

// TestRefusedUsage: a CA that refuses one certificate keeps nobody from the
// other, and isn't asked for ever faster.
func TestRefusedUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].NoInfo, w.cas[0].NoProfile, w.cas[0].Life, w.cfg.CAs[0].ClientProfile = true, "c", 3*time.Hour, "c"
		var refusals atomic.Int32
		w.cfg.Hooks.Attempted = func(a Attempt) {
			if a.Err != nil && a.Usage == UsageClient {
				refusals.Add(1)
			}
		}
		id := w.start()
		defer id.Close()
		time.Sleep(time.Minute)
		first := serverLeaf(t, id, "a.test")
		time.Sleep(time.Until(id.Health().Certificates[0].RenewAt) + time.Second)
		synctest.Wait()
		if serverLeaf(t, id, "a.test") == first {
			t.Error("the server's certificate waits for the client's")
		}
		if n := refusals.Load(); n < 110 || n > 270 { // a minute at most, half of it at least
			t.Errorf("refused %d times", n)
		}
		if _, err := id.clientCertificate(new(tls.CertificateRequestInfo)); err == nil || !strings.Contains(err.Error(), "not this profile") {
			t.Errorf("%v", err)
		}
	})
}

// TestNoRenewalInformation: a CA without is asked for it once.
func TestNoRenewalInformation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cas[0].NoInfo, w.cfg.Usage = true, UsageServer
		id := w.ready()
		defer id.Close()
		before := w.cas[0].Requests()
		time.Sleep(14 * time.Hour)
		if n := w.cas[0].Requests() - before; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

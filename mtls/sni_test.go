package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// onlyTest permits names under .test.
func onlyTest(name string) error {
	if !strings.HasSuffix(name, ".test") {
		return errors.New("not one of ours")
	}
	return nil
}

// TestSNI: listed names share a certificate, others get one each under the
// policy, once however many ask.
func TestSNI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Names, w.cfg.Usage, w.cfg.SNI = []string{"a.test", "*.wild.test"}, UsageServer, onlyTest
		id := w.ready()
		defer id.Close()
		base := serverLeaf(t, id, "a.test")
		for _, name := range []string{"", "A.test", "x.wild.test"} {
			if serverLeaf(t, id, name) != base {
				t.Errorf("%q gets a certificate of its own", name)
			}
		}
		var all sync.WaitGroup
		var got [50]*tls.Certificate
		for i := range got {
			all.Go(func() { got[i], _ = id.serverCertificate(hello("New.test")) })
		}
		all.Wait()
		for _, cert := range got {
			if cert == nil || cert != got[0] || len(cert.Leaf.DNSNames) != 1 || cert.Leaf.DNSNames[0] != "new.test" {
				t.Fatalf("%+v", cert)
			}
		}
		if serverLeaf(t, id, "x.y.wild.test") == base {
			t.Error("a wildcard covers one label only")
		}
		if n := len(w.issued()); n != 3 {
			t.Errorf("%d certificates", n)
		}
		for name, want := range map[string]string{
			"else.example": "not one of ours", "a_b..test": "no server's name", "*.test": "no server's name",
			strings.Repeat("a.", 130) + "test": "no server's name", "ä.test": "no server's name", "192.0.2.1": "not one of ours",
		} {
			if _, err := id.serverCertificate(hello(name)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", name, err)
			}
		}
		if n := len(w.issued()); n != 3 {
			t.Errorf("%d certificates after bad names", n)
		}
	})
}

// TestSNIAlone: no names but those that are asked for.
func TestSNIAlone(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	w.cfg.Names, w.cfg.Usage, w.cfg.SNI = nil, UsageServer, onlyTest
	id := w.ready()
	defer id.Close()
	serverLeaf(t, id, "x.test")
	if _, err := id.serverCertificate(hello("")); err == nil {
		t.Error("a certificate for no name")
	}
	if h := id.Health(); !h.OK || len(h.Certificates) != 1 {
		t.Errorf("%+v", h)
	}
}

// TestStrangersNames: names that no CA gives are not asked for again and
// again, cost the identity's own certificates nothing, and the CA no good name.
func TestStrangersNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cfg.SNI, w.cfg.MaxSNI = UsageServer, onlyTest, 20
		id := w.ready()
		defer id.Close()
		serverLeaf(t, id, "good.test")
		w.cas[0].Set(fakeca.Refuses)
		before := w.cas[0].Requests()
		for i := range 500 {
			if _, err := id.serverCertificate(hello(fmt.Sprintf("n%d.test", i))); err == nil {
				t.Fatal("no error")
			}
		}
		for range 500 {
			if _, err := id.serverCertificate(hello("n1.test")); err == nil || !strings.Contains(err.Error(), "not these names") || !strings.Contains(err.Error(), "no other try") {
				t.Fatalf("%v", err)
			}
		}
		if n := w.cas[0].Requests() - before; n > 20*6 {
			t.Errorf("strangers made us send %d requests", n)
		}
		if h := id.Health(); !h.OK || h.CAs[0].Score != 1 || len(id.names.All()) > 20 {
			t.Errorf("%+v, %d names", h, len(id.names.All()))
		}
		serverLeaf(t, id, "good.test")
		serverLeaf(t, id, "a.test")

		// The pause grows: a minute, two, four …
		w.cas[0].Set(fakeca.Refuses)
		tries := 0
		for range 60 {
			time.Sleep(time.Minute)
			before := w.cas[0].Requests()
			id.serverCertificate(hello("n1.test"))
			if w.cas[0].Requests() > before {
				tries++
			}
		}
		if tries < 4 || tries > 7 {
			t.Errorf("%d tries in an hour", tries)
		}
		w.cas[0].Set(fakeca.None)
		time.Sleep(time.Hour)
		serverLeaf(t, id, "n1.test")
	})
}

// TestManyNames: the least used one goes, but not while it is young, and what
// goes is erased.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cfg.SNI, w.cfg.MaxSNI, w.cas[0].NoInfo = UsageServer, onlyTest, 3, true
		id := w.ready()
		defer id.Close()
		one := serverLeaf(t, id, "one.test")
		serverLeaf(t, id, "two.test")
		serverLeaf(t, id, "three.test")
		if _, err := id.serverCertificate(hello("four.test")); err == nil || !strings.Contains(err.Error(), "MaxSNI") {
			t.Fatalf("%v", err)
		}
		time.Sleep(slot.Keep)
		serverLeaf(t, id, "two.test")
		serverLeaf(t, id, "three.test")
		serverLeaf(t, id, "four.test")
		if id.names.Find("one.test") != nil || id.names.Find("two.test") == nil || len(id.names.All()) != 3 {
			t.Error("not the least used one went")
		}
		time.Sleep(2 * eraseAfter)
		if !erased(one) {
			t.Error("its key stayed")
		}
	})
}

// TestNamesAreRenewedWhileUsed: the ones that are used are renewed without a
// handshake that waits, the others end.
func TestNamesAreRenewedWhileUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		var allow atomic.Bool
		var refusals atomic.Int32
		allow.Store(true)
		w.cfg.Usage, w.cfg.SNI = UsageServer, func(name string) error {
			if name == "revoked.test" && !allow.Load() {
				refusals.Add(1)
				return errTest
			}
			return nil
		}
		id := w.ready()
		defer id.Close()
		idle := serverLeaf(t, id, "idle.test")
		used := serverLeaf(t, id, "used.test")
		serverLeaf(t, id, "revoked.test")
		allow.Store(false)
		for range 23 {
			time.Sleep(time.Hour)
			serverLeaf(t, id, "used.test")
			serverLeaf(t, id, "revoked.test")
		}
		if got := serverLeaf(t, id, "used.test"); got == used {
			t.Error("not renewed")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if id.names.Find("idle.test") != nil || !erased(idle) {
			t.Error("what nobody uses is kept")
		}
		if _, err := id.serverCertificate(hello("revoked.test")); !errors.Is(err, errTest) {
			t.Errorf("renewed against the policy: %v", err)
		}
		if n := refusals.Load(); n > 300 {
			t.Errorf("the policy was asked %d times", n)
		}
		if n := len(w.issued()); n != 6 { // a.test and used.test twice
			t.Errorf("%d certificates", n)
		}
	})
}

// TestHandshakeWaitsNotForEver, and the certificate comes all the same.
func TestHandshakeWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.cfg.Usage, w.cfg.SNI = UsageServer, onlyTest
		id := w.ready()
		defer id.Close()
		w.cas[0].Set(fakeca.Slow) // 120 s in all
		begin := time.Now()
		if _, err := id.serverCertificate(hello("x.test")); err == nil || time.Since(begin) != nameWait {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		serverLeaf(t, id, "a.test") // the others don't wait
		time.Sleep(2 * time.Second)
		w.cas[0].Set(fakeca.None)
		time.Sleep(time.Minute)
		begin = time.Now()
		if serverLeaf(t, id, "x.test"); time.Since(begin) != 0 {
			t.Error("waited again")
		}
	})
}

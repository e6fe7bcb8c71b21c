package e2e_test

import (
	"crypto"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// signerLines are those of the issuer for servers.
const signerLines = "      - key: \"file:ca/servers.key\"\n        certificate: \"ca/servers.pem\"\n"

// clientLines are those of the issuer for clients, and what stands for them
// where its key isn't.
const (
	clientLines     = "      - key: \"file:ca/clients.key\"\n        certificate: \"ca/clients.pem\"\n"
	clientElsewhere = "      - certificate: \"ca/clients.pem\"\n"
)

// tokens makes tokens of SoftHSM's that take 100 ms a signature, one at a time as
// a smart card, and returns a URI for a key in each.
func tokens(w *harness.World, labels ...string) (uris []string) {
	w.Helper()
	dir := w.Mkdir("hsm", "tokens")
	conf := w.Write("hsm/softhsm2.conf", "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	module, pin := w.Path("hsm", "slowhsm.so"), w.Write("hsm/pin", "1234\n")
	w.Run("cp", w.Tool("slowhsm.so"), module)
	ownersOnly(w, pin)
	w.Write("hsm/real", "/usr/lib/softhsm/libsofthsm2.so")
	w.Write("hsm/env", "SOFTHSM2_CONF="+conf)
	w.Write("hsm/delay", "100000") // microseconds
	for _, label := range labels {
		w.Cmd("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678").Env("SOFTHSM2_CONF=" + conf).OK()
		uris = append(uris, "pkcs11:token="+label+";object=ca?chancery-parallel=1&module-path="+module+"&pin-source=file:"+pin)
	}
	return uris
}

// slowSigners makes keys on tokens and their CA certificates, named E2E Server
// CA 1 and so on, in every folder. It returns the lines of the configuration
// that name them, where a key is here and where it is elsewhere.
func slowSigners(w *harness.World, s *site, uris []string, folders ...string) (here, elsewhere []string) {
	w.Helper()
	for n, uri := range uris {
		name := fmt.Sprintf("ca/slow-%d.pem", n+1)
		w.Run(w.Tool("chanceryd"), "ca", "create", "--name", fmt.Sprintf("E2E Server CA %d", n+1), "--usage", "server",
			"--generate", "--key", uri, "--parent", s.dir+"/root/root.pem",
			"--parent-key", "file:"+s.dir+"/root/root.key", "--parent-password-file", s.passphrase, "--out", w.Path(name))
		for _, dir := range folders {
			w.Run("cp", w.Path(name), dir+"/ca/")
		}
		here = append(here, "      - key: \""+uri+"\"\n        certificate: \""+name+"\"\n")
		elsewhere = append(elsewhere, "      - certificate: \""+name+"\"\n")
	}
	return here, elsewhere
}

// prepare makes many orders of one account ready, for the names that name
// gives. What it returns finalizes all at once, and tells how many certificates
// were signed by which key, and how long that took.
func (r *replica) prepare(w *harness.World, many int, name func(n int) string) func() (signed map[string]int, took time.Duration) {
	w.Helper()
	c, orders := r.ready(w, many, name)
	return func() (map[string]int, time.Duration) {
		w.Helper()
		start := time.Now()
		signed := finalizeAll(w, c, orders)
		took := time.Since(start)
		w.Logf("%d orders at %s: signed by %v in %v", many, r.acme, signed, took)
		return signed, took
	}
}

// ready makes many orders of one account ready.
func (r *replica) ready(w *harness.World, many int, name func(n int) string) (c *acme.Client, orders []acme.Order) {
	w.Helper()
	c = r.account()
	for n := range many {
		o, err := c.NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers(name(n))})
		if err != nil {
			w.Fatal(err)
		}
		r.prove(w, c, o.Authorizations[0])
		o.Status = acme.StatusReady
		orders = append(orders, o)
	}
	return c, orders
}

// prove answers the one http-01 challenge of an authorization.
func (r *replica) prove(w *harness.World, c *acme.Client, authorization string) {
	w.Helper()
	z, err := c.Authorization(w.Context(), authorization)
	if err != nil {
		w.Fatal(err)
	}
	if z.Status == acme.StatusValid { // of an order before
		return
	}
	i := slices.IndexFunc(z.Challenges, func(ch acme.Challenge) bool { return ch.Type == acme.HTTP01 })
	answer, err := c.KeyAuthorization(z.Challenges[i].Token)
	if err != nil {
		w.Fatal(err)
	}
	r.site.responder().HTTP(z.Challenges[i].Token, answer)
	ch, err := c.Accept(w.Context(), z.Challenges[i], nil)
	if err == nil && ch.Status != acme.StatusValid {
		_, err = c.WaitAuthorization(w.Context(), z)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// finalizeAll finalizes orders at once and counts their certificates by who
// signed them.
func finalizeAll(w *harness.World, c *acme.Client, orders []acme.Order) map[string]int {
	w.Helper()
	signed := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, o := range orders {
		all.Go(func() {
			by := finalize(w, c, o)
			mu.Lock()
			defer mu.Unlock()
			signed[by]++
		})
	}
	all.Wait()
	return signed
}

// finalize takes a ready order to its certificate and returns who signed that.
func finalize(w *harness.World, c *acme.Client, o acme.Order) (by string) {
	csr, err := acme.NewCSR(w.NewKey(), o.Identifiers...)
	if err == nil {
		o, err = c.Finalize(w.Context(), o, csr)
	}
	if err == nil {
		o, err = c.WaitOrder(w.Context(), o)
	}
	var chain acme.Chain
	if err == nil {
		chain, err = c.Certificate(w.Context(), o.Certificate)
	}
	if err != nil {
		w.Errorf("the order of %v: %v", o.Identifiers, err)
		return "nobody"
	}
	return w.Chain(string(chain.PEM))[0].Issuer.CommonName
}

// names are one for each order of a burst.
func names(what string) func(int) string {
	return func(n int) string { return fmt.Sprintf("%s-%d.test", what, n) }
}

// The issuing certificates of two keys.
const firstCA, secondCA = "E2E Server CA 1", "E2E Server CA 2"

// twoKeys is a site of three replicas: two with a key each, of one issuer, and
// one without any.
func twoKeys(w *harness.World) (s *site, one, two, keyless *replica) {
	w.Helper()
	s = sharedSite(w)
	at, none := s.certificatesOnly("two"), s.certificatesOnly("none")
	here, elsewhere := slowSigners(w, s, tokens(w, "one", "two"), s.dir, at, none)
	one = s.replica(0, s.dir, signerLines, here[0]+elsewhere[1]).start()
	two = s.replica(1, at, signerLines, elsewhere[0]+here[1], clientLines, clientElsewhere).start()
	keyless = s.replica(2, none, signerLines, elsewhere[0]+elsewhere[1], clientLines, clientElsewhere).start()
	time.Sleep(3 * time.Second) // they tell each other every two seconds how their keys are doing
	return s, one, two, keyless
}

// Keys on different replicas sign for all of them: orders taken where there is
// one key, or none, are signed by whichever key is free.
func TestReplicaKeys(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no replicas")
		s, one, two, keyless := twoKeys(w)
		all := []*replica{one, two, keyless}
		const many = 16
		both := func(w *harness.World, signed map[string]int) {
			w.Helper()
			if signed[firstCA]+signed[secondCA] != many || signed[firstCA] < many*3/8 || signed[secondCA] < many*3/8 {
				w.Errorf("%d certificates were signed by %v", many, signed)
			}
		}
		for _, r := range all {
			w.Sub("orders at "+r.acme, func(w *harness.World) {
				signed, _ := r.prepare(w, many, names("at-"+r.acme[len(r.acme)-1:]))()
				both(w, signed)
			})
		}
		w.Sub("renewals, of which the orders don't tell", func(w *harness.World) {
			// The same names by the same account (RFC 9773's replaces is for
			// those who know it).
			name := func(int) string { return "again.test" }
			signed, _ := one.prepare(w, many, name)()
			both(w, signed)
		})
		w.Sub("three quarters of what both can do", func(w *harness.World) { steady(w, one, 15, 90) })
		w.Sub("OCSP and revocation anywhere", func(w *harness.World) { anywhere(w, s, all) })
	})
}

// steady has orders finalized at a rate. Below what all keys can do together,
// nobody waits for long, wherever the order was taken.
func steady(w *harness.World, r *replica, rate, many int) {
	w.Helper()
	c, orders := r.ready(w, many, names("steady"))
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(3 * time.Second))) // what was before is over
	took, signed := make([]time.Duration, many), make([]string, many)
	var all sync.WaitGroup
	begin := time.Now()
	for n, o := range orders {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		all.Go(func() {
			start := time.Now()
			signed[n] = finalize(w, c, o)
			took[n] = time.Since(start)
		})
	}
	all.Wait()
	slices.Sort(took)
	slices.Sort(signed)
	second := many - slices.Index(signed, secondCA)
	w.Logf("%d orders a second: %d of %d by the other replica's key, p50 %v, p90 %v", rate, second, many, took[many/2], took[many*9/10])
	if took[many*9/10] > time.Second || second < many*3/10 || second > many*7/10 {
		w.Errorf("%d a second, of 20 that two keys can sign: %d of %d by the other replica's, p90 %v", rate, second, many, took[many*9/10])
	}
}

// A key whose replica is gone isn't waited for.
func TestReplicaKeyGoes(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no replicas")
		_, one, _, keyless := twoKeys(w)
		w.Sub("stops", func(w *harness.World) {
			finish := keyless.prepare(w, 10, names("stopped"))
			one.Stop()
			// In order, so that nobody need wait for it in vain.
			signed, took := finish()
			if signed[secondCA] != 10 || took > 5*time.Second {
				w.Errorf("10 orders were signed by %v in %v", signed, took)
			}
		})
		w.Sub("dies", func(w *harness.World) {
			one.start()
			round := 0
			w.Until("its key is used again", func() bool {
				round++
				signed, _ := keyless.prepare(w, 4, names(fmt.Sprintf("back-%d", round)))()
				return signed[firstCA] > 0
			})
			finish := keyless.prepare(w, 10, names("dead"))
			one.Signal(syscall.SIGKILL)
			// Until its silence is noticed it is given plans; then they move.
			if signed, took := finish(); signed[secondCA] != 10 || took > 25*time.Second {
				w.Errorf("10 orders were signed by %v in %v", signed, took)
			}
		})
	})
}

// A replica without keys may be started before those that have them: it waits
// for its own certificate.
func TestReplicaStartsFirst(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no replicas")
		s := sharedSite(w)
		keyless := s.replica(1, s.certificatesOnly("none"), signerLines, "      - certificate: \"ca/servers.pem\"\n",
			clientLines, clientElsewhere)
		keyless.Proc = w.Cmd(w.Tool("chanceryd"), "serve", keyless.conf).Start()
		time.Sleep(2 * time.Second)
		w.Log(keyless.Output())
		s.start1()
		start := time.Now()
		keyless.Listens(keyless.acme)
		w.Logf("it listens %v after the holder of the key", time.Since(start))
		w.Until("it issues", func() bool {
			_, err := s.tryObtain(keyless.account(), acme.OrderRequest{Identifiers: acme.Identifiers("a.test")})
			return err == nil
		})
	})
}

// anywhere: each replica answers about what each of the others issued, and
// withdraws it for all.
func anywhere(w *harness.World, s *site, all []*replica) {
	w.Helper()
	h := relying(w)
	for n, at := range all {
		c := at.account()
		i := s.obtain(c, fmt.Sprintf("any%d.test", n))
		for _, r := range all {
			r.becomes(w, h, i, ocsp.Good)
		}
		s.revoke(c, i, acme.ReasonSuperseded)
		start := time.Now()
		for _, r := range all {
			w.Until("it says revoked", func() bool {
				a, err := postOCSP(h, r.ocspURL(), ocspRequest(w, i, crypto.SHA1))
				return err == nil && a.status() == ocsp.Success && verified(w, a, i).Status == ocsp.Revoked
			})
		}
		if took := time.Since(start); took > time.Second {
			w.Errorf("revoked at %s, and everywhere %v later", at.acme, took)
		}
	}
}

// A certificate withdrawn while its key is away is good for nobody any more:
// where nobody can sign that, the answer is tryLater, and never the old one.
func TestReplicaRevokesWithoutKey(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no replicas")
		s := sharedSite(w)
		holder := s.start1()
		dir := s.certificatesOnly("none")
		keyless := s.replica(1, dir, signerLines, "      - certificate: \"ca/servers.pem\"\n",
			clientLines, clientElsewhere).start()
		front := s.replica(2, dir).startPublishing()
		h, c := relying(w), keyless.account()
		i := s.obtain(c, "a.test")
		all := []*replica{keyless, front}
		for _, r := range all {
			r.becomes(w, h, i, ocsp.Good)
			r.wantStatus(w, h, i, crypto.SHA1, ocsp.Success) // from its cache
		}
		holder.Stop()
		for _, r := range all {
			r.wantStatus(w, h, i, crypto.SHA1, ocsp.Success)
		}
		s.revoke(c, i, acme.ReasonKeyCompromise)
		keyless.wantStatus(w, h, i, crypto.SHA1, ocsp.TryLater)
		start := time.Now()
		w.Until("nobody says good", func() bool {
			a, err := postOCSP(h, front.ocspURL(), ocspRequest(w, i, crypto.SHA1))
			return err == nil && a.status() == ocsp.TryLater
		})
		if took := time.Since(start); took > 3*time.Second { // two of them is what an asker waits
			w.Errorf("the old answer was given for %v", took)
		}
		holder.start()
		for _, r := range all {
			w.Logf("revoked %v after the holder's start", r.becomes(w, h, i, ocsp.Revoked))
		}
		w.Until("the list shows it", func() bool { return onList(w, h, i, shardOf(w, i)) })
	})
}

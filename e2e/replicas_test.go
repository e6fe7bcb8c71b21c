package e2e_test

import (
	"crypto"
	"fmt"
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

// signersLine writes the issuer's signers: those with a key, and those whose
// key is on another replica.
func signersLine(here []string, elsewhere ...string) (lines string) {
	for _, name := range here {
		lines += "      - key: \"file:ca/" + name + ".key\"\n        certificate: \"ca/" + name + ".pem\"\n"
	}
	for _, name := range elsewhere {
		lines += "      - certificate: \"ca/" + name + ".pem\"\n"
	}
	return lines
}

// slowSigners gives the issuer for servers two keys in place of the one it
// has, in two folders, which take some milliseconds a signature so that it
// matters where there is room.
func slowSigners(w *harness.World, s *site, folders ...string) {
	w.Helper()
	for n, dir := range folders {
		name := fmt.Sprintf("ca/slow-%d", n+1)
		w.Run(w.Tool("chanceryd"), "ca", "create", "--name", fmt.Sprintf("E2E Server CA %d", n+1), "--usage", "server",
			"--generate", "--type", "RSA-4096", "--key", "file:"+dir+"/"+name+".key", "--parent", s.dir+"/root/root.pem",
			"--parent-key", "file:"+s.dir+"/root/root.key", "--parent-password-file", s.passphrase, "--out", dir+"/"+name+".pem")
		for _, other := range folders {
			if other != dir {
				w.Run("cp", dir+"/"+name+".pem", other+"/ca/")
			}
		}
	}
}

// burst has many orders of one account finalized at once, and returns how many
// certificates were signed by which key, and how long that took.
func burst(w *harness.World, r *replica, what string, many int) (signed map[string]int, took time.Duration) {
	w.Helper()
	ctx, c := w.Context(), r.account()
	name := acme.Identifiers(what + ".test")
	r.site.obtain(c, what+".test") // so that the next orders are ready at once
	orders := make([]acme.Order, many)
	for n := range orders {
		var err error
		if orders[n], err = c.NewOrder(ctx, acme.OrderRequest{Identifiers: name}); err != nil {
			w.Fatal(err)
		}
	}
	csr, err := acme.NewCSR(w.NewKey(), name...)
	if err != nil {
		w.Fatal(err)
	}
	signed = map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	start := time.Now()
	for n, o := range orders {
		all.Go(func() {
			o, err := c.Finalize(ctx, o, csr)
			if err == nil {
				o, err = c.WaitOrder(ctx, o)
			}
			var chain acme.Chain
			if err == nil {
				chain, err = c.Certificate(ctx, o.Certificate)
			}
			if err != nil {
				w.Errorf("order %d of %d: %v", n, many, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			signed[w.Chain(string(chain.PEM))[0].Issuer.CommonName]++
		})
	}
	all.Wait()
	took = time.Since(start)
	w.Logf("%s: %v in %v", what, signed, took)
	return signed, took
}

// Keys on different replicas sign for all of them: orders taken where there is
// one key, or none, are signed by whichever key is free.
func TestReplicaKeys(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no replicas")
		s := sharedSite(w)
		two, none := s.certificatesOnly("two"), s.certificatesOnly("none")
		w.Run("cp", s.dir+"/ca/clients.key", two+"/ca/") // of the other issuer
		slowSigners(w, s, s.dir, two)
		w.Run("sh", "-c", "cp "+two+"/ca/*.pem "+none+"/ca/")
		const first, second = "E2E Server CA 1", "E2E Server CA 2"
		one := s.replica(0, s.dir, signerLines, signersLine([]string{"slow-1"}, "slow-2")).start()
		other := s.replica(1, two, signerLines, signersLine([]string{"slow-2"}, "slow-1")).start()
		keyless := s.replica(2, none, signerLines, signersLine(nil, "slow-1", "slow-2"),
			"      - key: \"file:ca/clients.key\"\n        certificate: \"ca/clients.pem\"\n", "      - certificate: \"ca/clients.pem\"\n").start()
		time.Sleep(3 * time.Second) // they tell each other every two seconds how their keys are doing
		const many = 60
		for _, r := range []*replica{one, other, keyless} {
			w.Sub("orders at "+r.acme, func(w *harness.World) {
				signed, _ := burst(w, r, "at-"+r.acme[len(r.acme)-1:], many)
				if signed[first]+signed[second] != many || signed[first] < many/6 || signed[second] < many/6 {
					w.Errorf("%d certificates were signed by %v", many, signed)
				}
			})
		}
		w.Sub("OCSP and revocation anywhere", func(w *harness.World) { anywhere(w, s, []*replica{one, other, keyless}) })
		w.Sub("one key's replica dies", func(w *harness.World) {
			one.Signal(syscall.SIGKILL)
			// Until its silence is noticed it is given plans; they move.
			if signed, _ := burst(w, keyless, "dead", 20); signed[second] != 20 {
				w.Errorf("20 orders were signed by %v", signed)
			}
		})
		w.Sub("one key's replica stops", func(w *harness.World) {
			one.start()
			w.Until("the key is known to be back", func() bool {
				signed, _ := burst(w, keyless, "back", 10)
				return signed[first] > 0
			})
			one.Stop()
			// It stopped in order, so that nobody need wait for it in vain.
			signed, took := burst(w, keyless, "stopped", 20)
			if signed[second] != 20 || took > 5*time.Second {
				w.Errorf("20 orders were signed by %v in %v", signed, took)
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
		keyless := s.replica(1, s.certificatesOnly("none"), signerLines, signersLine(nil, "servers"),
			"      - key: \"file:ca/clients.key\"\n        certificate: \"ca/clients.pem\"\n", "      - certificate: \"ca/clients.pem\"\n")
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
		keyless := s.replica(1, dir, signerLines, signersLine(nil, "servers"),
			"      - key: \"file:ca/clients.key\"\n        certificate: \"ca/clients.pem\"\n", "      - certificate: \"ca/clients.pem\"\n").start()
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

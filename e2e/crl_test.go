package e2e_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// listURL is where a list of a certificate's issuer is: the full one (0) or
// that of a shard.
func listURL(i *issued, shard int) string {
	if shard == 0 {
		return fmt.Sprintf("http://crl.ca.test:8080/crl/%x.crl", i.issuer.SubjectKeyId)
	}
	return fmt.Sprintf("http://crl.ca.test:8080/crl/%x/%d.crl", i.issuer.SubjectKeyId, shard)
}

// shardOf is the shard that a certificate points to; 0 is the full list.
func shardOf(w *harness.World, i *issued) int {
	w.Helper()
	if len(i.leaf.CRLDistributionPoints) != 1 {
		w.Fatalf("the certificate's lists are %q", i.leaf.CRLDistributionPoints)
	}
	at := i.leaf.CRLDistributionPoints[0]
	for shard := range 257 {
		if listURL(i, shard) == at {
			return shard
		}
	}
	w.Fatalf("the certificate points to %s", at)
	return 0
}

// tryFetchList fetches a list of the certificate's issuer, verified by Go; nil
// where there is none yet.
func tryFetchList(w *harness.World, h *http.Client, i *issued, shard int) *x509.RevocationList {
	w.Helper()
	res, err := h.Get(listURL(i, shard))
	a, err := readOCSP(res, err)
	if err != nil {
		w.Fatal(err)
	}
	if a.code == http.StatusNotFound {
		return nil
	}
	if a.code != http.StatusOK || a.header.Get("Content-Type") != "application/pkix-crl" || a.header.Get("ETag") == "" {
		w.Fatalf("%s: %d %v", listURL(i, shard), a.code, a.header)
	}
	l, err := x509.ParseRevocationList(a.body)
	if err != nil {
		w.Fatal(err)
	}
	if err := l.CheckSignatureFrom(i.issuer); err != nil {
		w.Error(err)
	}
	if now := time.Now(); now.Before(l.ThisUpdate) || !now.Before(l.NextUpdate) {
		w.Errorf("a list from %v to %v was given at %v", l.ThisUpdate, l.NextUpdate, now)
	}
	return l
}

func fetchList(w *harness.World, h *http.Client, i *issued, shard int) *x509.RevocationList {
	w.Helper()
	l := tryFetchList(w, h, i, shard)
	if l == nil {
		w.Fatalf("there is no list at %s", listURL(i, shard))
	}
	return l
}

// onList reports whether a certificate is on a list of its issuer.
func onList(w *harness.World, h *http.Client, i *issued, shard int) bool {
	w.Helper()
	for _, e := range fetchList(w, h, i, shard).RevokedCertificateEntries {
		if e.SerialNumber.Cmp(i.leaf.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

// rises checks that a list has a higher number than the one before.
func rises(w *harness.World, was *big.Int, l *x509.RevocationList) {
	w.Helper()
	if l.Number == nil || was != nil && l.Number.Cmp(was) <= 0 {
		w.Errorf("a new list has number %v, the one before had %v", l.Number, was)
	}
}

// pemList has OpenSSL verify a list and write it as PEM.
func (s *site) pemList(w *harness.World, der []byte, i *issued) string {
	w.Helper()
	in, out := w.Write("list.crl", string(der)), w.Path("list.pem")
	said := w.Run("openssl", "crl", "-inform", "DER", "-in", in, "-CAfile", i.issuerFile, "-verify", "-out", out)
	if !strings.Contains(said, "verify OK") {
		w.Errorf("openssl crl says %s", said)
	}
	return out
}

// checkedBy has OpenSSL verify the certificate against lists in files.
func (s *site) checkedBy(w *harness.World, i *issued, revoked bool, lists ...string) {
	w.Helper()
	args := []string{"verify", "-crl_check", "-CAfile", s.root, "-untrusted", i.issuerFile}
	for _, l := range lists {
		args = append(args, "-CRLfile", l)
	}
	s.verdict(w, append(args, i.file), revoked)
}

func (s *site) verdict(w *harness.World, args []string, revoked bool) {
	w.Helper()
	if !revoked {
		w.Run("openssl", args...)
		return
	}
	if out := w.Cmd("openssl", args...).Fails(); !strings.Contains(out, "certificate revoked") {
		w.Errorf("openssl %s\n%s", strings.Join(args, " "), out)
	}
}

// checked has OpenSSL verify the certificate against its own shard's list, the
// full list, and what it fetches by itself.
func (s *site) checked(w *harness.World, h *http.Client, i *issued, revoked bool) {
	w.Helper()
	for _, shard := range []int{shardOf(w, i), 0} {
		s.checkedBy(w, i, revoked, s.pemList(w, fetchList(w, h, i, shard).Raw, i))
	}
	s.verdict(w, []string{"verify", "-crl_check", "-crl_download", "-CAfile", s.root, "-untrusted", i.issuerFile, i.file}, revoked)
}

// published waits until lists of all shards are there.
func published(w *harness.World, i *issued, shards int) {
	w.Helper()
	for shard := range shards + 1 {
		w.Until("the list "+listURL(i, shard)+" is there", func() bool {
			res, err := http.Get(listURL(i, shard)) // 503 while it is being made
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == http.StatusOK
		})
	}
}

// within gets certificates until one is in a shard that pick wants.
func (s *site) within(w *harness.World, c *acme.Client, pick func(shard int) bool) *issued {
	w.Helper()
	for range 100 {
		i := s.obtain(c, "a.test")
		if pick(shardOf(w, i)) {
			return i
		}
	}
	w.Fatal("a hundred certificates, and none in the shard wanted")
	return nil
}

// CRLs, whole and in parts: OpenSSL and Go check certificates against them,
// before and after a revocation, a restart and changes of the number of parts.
func TestOCSPLists(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no CRLs")
		s := newSite(w)
		r := s.start1()
		c := r.account()
		h := relying(w)
		a := s.obtain(c, "a.test")
		published(w, a, 4)
		shard := shardOf(w, a)
		if shard < 1 || shard > 4 {
			w.Fatalf("the certificate is in shard %d of 4", shard)
		}
		b := s.within(w, c, func(n int) bool { return n != shard }) // in another shard
		w.Sub("good", func(w *harness.World) {
			s.checked(w, h, a, false)
			s.checked(w, h, b, false)
			// RFC 5280, 6.3.3 (b)(2)(i): another's part says nothing of it.
			other := s.pemList(w, fetchList(w, h, a, shardOf(w, b)).Raw, a)
			out := w.Cmd("openssl", "verify", "-crl_check", "-CAfile", s.root, "-untrusted", a.issuerFile, "-CRLfile", other, a.file).Fails()
			if !strings.Contains(out, "unable to get certificate CRL") && !strings.Contains(out, "different CRL scope") {
				w.Errorf("openssl with another shard's list:\n%s", out)
			}
		})
		numbers := map[int]*big.Int{}
		for n := range 5 {
			numbers[n] = fetchList(w, h, a, n).Number
		}
		w.Sub("revoked", func(w *harness.World) {
			start := time.Now()
			s.revoke(c, a, acme.ReasonSuperseded)
			w.Until("both lists show it", func() bool { return onList(w, h, a, 0) && onList(w, h, a, shard) })
			w.Logf("on both lists after %v", time.Since(start))
			s.checked(w, h, a, true)
			s.checked(w, h, b, false)
			for _, n := range []int{0, shard} {
				rises(w, numbers[n], fetchList(w, h, a, n))
				numbers[n] = fetchList(w, h, a, n).Number
			}
			for _, e := range fetchList(w, h, a, shard).RevokedCertificateEntries {
				if e.ReasonCode != acme.ReasonSuperseded {
					w.Errorf("reason %d", e.ReasonCode)
				}
			}
		})
		w.Sub("after a restart", func(w *harness.World) {
			r.Stop()
			r.start()
			for n := range 5 { // at once: they were in the database all the time
				if l := fetchList(w, h, a, n); l.Number.Cmp(numbers[n]) != 0 {
					w.Errorf("list %d has number %v after a restart, %v before: a signature spent in vain", n, l.Number, numbers[n])
				}
			}
			s.checked(w, h, a, true)
			s.checked(w, h, b, false)
			r.admin("certs", "revoke", b.serial())
			w.Until("both lists show it", func() bool { return onList(w, h, b, 0) && onList(w, h, b, shardOf(w, b)) })
			s.checked(w, h, b, true)
			rises(w, numbers[0], fetchList(w, h, b, 0))
		})
		w.Sub("other numbers of shards", func(w *harness.World) { reshard(w, s, r, c, h) })
		w.Sub("caches", func(w *harness.World) { cachedLists(w, h, a, shard) })
	})
}

// reshard raises and lowers the number of shards: a certificate's list goes on
// being published, whatever is configured since.
func reshard(w *harness.World, s *site, r *replica, c *acme.Client, h *http.Client) {
	w.Helper()
	early := s.within(w, c, func(n int) bool { return n > 1 })
	numbers := map[int]*big.Int{}
	note := func(i *issued) { numbers[shardOf(w, i)] = fetchList(w, h, i, shardOf(w, i)).Number }
	note(early)
	r.reload("      shards: 4", "      shards: 16")
	late := s.within(w, c, func(n int) bool { return n > 4 })
	published(w, late, 16)
	s.checked(w, h, late, false)
	s.checked(w, h, early, false)
	note(late)
	r.reload("      shards: 16", "      shards: 1")
	for range 3 {
		if i := s.obtain(c, "a.test"); shardOf(w, i) != 1 {
			w.Errorf("a certificate is in shard %d of 1", shardOf(w, i))
		}
	}
	for _, i := range []*issued{early, late} {
		s.checked(w, h, i, false)
		s.revoke(c, i, acme.ReasonUnspecified)
		w.Until("its own list shows it", func() bool { return onList(w, h, i, shardOf(w, i)) && onList(w, h, i, 0) })
		s.checked(w, h, i, true)
		rises(w, numbers[shardOf(w, i)], fetchList(w, h, i, shardOf(w, i)))
	}
	r.reload("    crl:\n      shards: 1\n", "")
	if i := s.obtain(c, "a.test"); shardOf(w, i) != 0 {
		w.Errorf("a certificate is in shard %d of none", shardOf(w, i))
	}
	r.Stop()
	r.start() // and that is remembered
	for _, i := range []*issued{early, late} {
		s.checked(w, h, i, true)
	}
}

// cachedLists: what caches are told of lists, and that they can ask whether
// theirs is still the newest.
func cachedLists(w *harness.World, h *http.Client, i *issued, shard int) {
	w.Helper()
	for _, n := range []int{0, shard} {
		res, err := h.Get(listURL(i, n))
		first, err := readOCSP(res, err)
		if err != nil {
			w.Fatal(err)
		}
		if first.header.Get("Expires") == "" || !strings.Contains(first.header.Get("Cache-Control"), "max-age=") {
			w.Errorf("caches are told %v", first.header)
		}
		req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, listURL(i, n), nil)
		if err != nil {
			w.Fatal(err)
		}
		req.Header.Set("If-None-Match", first.header.Get("ETag"))
		if res, err := h.Do(req); err != nil || res.StatusCode != http.StatusNotModified {
			w.Errorf("asked again with the ETag: %v, %v", res, err)
		} else {
			res.Body.Close()
		}
	}
	for _, path := range []string{"/crl/", "/crl/00.crl", "/crl/../../etc/passwd", "/ca/", "/", "/crl/" + strconv.Itoa(1<<40) + ".crl"} {
		res, err := h.Get("http://crl.ca.test:8080" + path)
		if err != nil {
			w.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			w.Errorf("GET %s: %s", path, res.Status)
		}
	}
}

// The root's own list is made where its key is, carried to the server, and
// published there; then whole chains can be checked.
func TestOCSPRootList(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no CRLs")
		s := newSite(w)
		w.Run(w.Tool("chanceryd"), "ca", "crl", "--number", "1", "--parent", s.dir+"/root/root.pem", "--parent-key", "file:"+s.dir+"/root/root.key",
			"--parent-password-file", s.passphrase, "--out", s.dir+"/root.crl")
		r := s.start1("  listen: \"127.0.0.1:8080\"\n", "  listen: \"127.0.0.1:8080\"\n  crls: [\"root.crl\"]\n")
		h := relying(w)
		i := s.obtain(r.account(), "a.test")
		published(w, i, 0)
		root := w.Chain(w.Read(s.root))[0]
		res, err := h.Get(fmt.Sprintf("http://crl.ca.test:8080/crl/%x.crl", root.SubjectKeyId))
		a, err := readOCSP(res, err)
		if err != nil || a.code != http.StatusOK {
			w.Fatalf("the root's list: %d %v", a.code, err)
		}
		onDisk, err := x509.ParseRevocationList(a.body)
		if err != nil || onDisk.CheckSignatureFrom(root) != nil || onDisk.Number.Cmp(big.NewInt(1)) != 0 {
			w.Errorf("the root's list: %v", err)
		}
		out := w.Path("root-list.pem")
		w.Run("openssl", "crl", "-inform", "DER", "-in", w.Write("root-list.crl", string(a.body)), "-out", out)
		full := s.pemList(w, fetchList(w, h, i, 0).Raw, i)
		args := []string{"verify", "-crl_check_all", "-CAfile", s.root, "-untrusted", i.issuerFile, "-CRLfile", full, "-CRLfile", out, i.file}
		s.verdict(w, args, false)
		// The root withdraws the issuing CA; the next list is carried over.
		w.Run(w.Tool("chanceryd"), "ca", "crl", "--parent", s.dir+"/root/root.pem", "--parent-key", "file:"+s.dir+"/root/root.key",
			"--parent-password-file", s.passphrase, "--revoke", s.dir+"/ca/servers.pem=superseded", "--out", s.dir+"/root.crl")
		r.reload()
		res, err = h.Get(fmt.Sprintf("http://crl.ca.test:8080/crl/%x.crl", root.SubjectKeyId))
		b, err := readOCSP(res, err)
		if err != nil || bytes.Equal(a.body, b.body) {
			w.Fatalf("the root's new list isn't served: %v", err)
		}
		if err := os.WriteFile(w.Path("root-list.crl"), b.body, 0o644); err != nil {
			w.Fatal(err)
		}
		w.Run("openssl", "crl", "-inform", "DER", "-in", w.Path("root-list.crl"), "-out", out)
		s.verdict(w, args, true)
	})
}

package durability

import (
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// publishAddr is where the CRLs are.
const publishAddr = "127.0.0.1:14080"

// crlNumber fetches the CRL that a certificate points to, and checks that it
// is the issuer's.
func crlNumber(w *harness.World, leaf *x509.Certificate) (*big.Int, []x509.RevocationListEntry) {
	w.Helper()
	if len(leaf.CRLDistributionPoints) != 1 {
		w.Fatalf("the certificate points to %d CRLs", len(leaf.CRLDistributionPoints))
	}
	c := &http.Client{Timeout: requestLimit}
	res, err := c.Get(leaf.CRLDistributionPoints[0])
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	der, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	if res.StatusCode != http.StatusOK { // the first one isn't made yet
		return new(big.Int), nil
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		w.Fatal(err)
	}
	return crl.Number, crl.RevokedCertificateEntries
}

// revokedNumber waits until a certificate is on its CRL, whose number it
// returns.
func revokedNumber(w *harness.World, leaf *x509.Certificate) *big.Int {
	w.Helper()
	var number *big.Int
	until(w, 15*time.Second, "the CRL has the revoked certificate", func() bool {
		n, entries := crlNumber(w, leaf)
		number = n
		for _, e := range entries {
			if e.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				return true
			}
		}
		return false
	})
	return number
}

func withCRL(s *server) {
	s.edit(`    # crl_url: "http://crl.example.internal"`, `    crl_url: "http://`+publishAddr+`"`)
	s.edit(`    revocation: none # crl and ocsp need the issuer's crl_url and ocsp_url`, `    revocation: crl`)
	s.edit(`audit:`, "publish:\n  listen: \""+publishAddr+"\"\naudit:")
}

// A backup of a working server, from one moment; restored, it has all that
// was answered before the backup began, the restore tells of every
// certificate that came later, what was revoked stays revoked, and the numbers
// of CRLs go on rising.
func TestBackupSQLite(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		s := newServer(w, w.Path("ca"), "")
		withCRL(s)
		s.start()
		l := newLoad(w, s)
		early := obtain(w, s.register(s.client(""), "servers", nil), l.responder, "early.load.test")
		l.start(4, 1)
		l.resume()
		time.Sleep(time.Second)
		done := l.backedUp(w, s)
		c := s.register(s.client(""), "servers", nil)
		late := obtain(w, c, l.responder, "late.load.test")
		if err := c.Revoke(w.Context(), late.Raw, acme.ReasonSuperseded, nil); err != nil {
			w.Fatal(err)
		}
		number := revokedNumber(w, late)
		time.Sleep(500 * time.Millisecond)
		l.finish()
		before := s.census(w)

		if said := w.Cmd(program("chanceryd"), "restore", s.config(), "--from", w.Path("backup")).Fails(); !strings.Contains(said, "in use") {
			w.Errorf("a restore under the feet of a running server says: %s", said)
		}
		if len(s.census(w)) != len(before) {
			w.Error("the refused restore has changed something")
		}
		s.stop()
		said := run(w, program("chanceryd"), "restore", s.config(), "--from", w.Path("backup"))
		s.start()
		after := s.census(w)
		w.Logf("%d orders, %d of them done before the backup began; %d certificates, %d after the restore", len(l.orders), len(done), len(before), len(after))
		for _, o := range done {
			l.verifyOrder(s.client(""), o)
		}
		missing := 0
		for id, c := range before {
			told := strings.Contains(said, c.Serial)
			kept, ok := after[id]
			switch {
			case ok && kept.Serial != c.Serial:
				w.Errorf("order %s had certificate %s and has %s after the restore", id, c.Serial, kept.Serial)
			case ok && told:
				w.Errorf("certificate %s is said to be missing, and isn't", c.Serial)
			case !ok && !told:
				w.Errorf("certificate %s is missing after the restore, which didn't tell so", c.Serial)
			case !ok:
				missing++
			}
		}
		if missing == 0 {
			w.Error("nothing was issued after the backup")
		}
		if !strings.Contains(said, fmt.Sprintf("%x", late.SerialNumber)) {
			w.Errorf("the restore doesn't tell of certificate %x:\n%s", late.SerialNumber, said)
		}
		until(w, 15*time.Second, "there is a CRL", func() bool { n, _ := crlNumber(w, early); return n.Sign() > 0 })
		// Revoked after the backup, and unknown to it: the CRL names it still.
		if n := revokedNumber(w, late); n.Cmp(number) <= 0 {
			w.Errorf("the CRL's number is %v after the restore; it was %v", n, number)
		}
		obtain(w, s.register(s.client(""), "servers", nil), l.responder, "again.load.test")
	})
}

// backedUp makes a backup while the clients go on, and returns the orders
// that were finished when it began.
func (l *load) backedUp(w *harness.World, s *server) []*order {
	w.Helper()
	l.mu.Lock()
	var done []*order
	for _, o := range l.orders {
		o.mu.Lock()
		if o.chain != nil {
			done = append(done, o)
		}
		o.mu.Unlock()
	}
	l.mu.Unlock()
	run(w, program("chanceryd"), "backup", s.config(), "-o", w.Path("backup"))
	if len(done) == 0 {
		w.Error("nothing was issued before the backup")
	}
	return done
}

// The same from PostgreSQL into an empty database.
func TestBackupPostgres(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		s := newServer(w, w.Path("ca"), pg.dsn())
		s.start()
		l := newLoad(w, s)
		l.start(4, 1)
		l.resume()
		time.Sleep(time.Second)
		early := l.backedUp(w, s)
		time.Sleep(500 * time.Millisecond)
		l.finish()
		s.census(w)
		s.stop()
		restore := w.Cmd(program("chanceryd"), "restore", s.config(), "--from", w.Path("backup"))
		if said := restore.Fails(); !strings.Contains(said, "empty") {
			w.Errorf("a restore into a database that isn't empty says: %s", said)
		}
		run(w, pg.bin("createdb"), "-h", "127.0.0.1", "-U", "ca", "restored")
		s.edit(`  dsn: "`+pg.dsn()+`"`, `  dsn: "`+strings.Replace(pg.dsn(), "/postgres?", "/restored?", 1)+`"`)
		restore.OK()
		s.start()
		s.census(w)
		for _, o := range early {
			l.verifyOrder(s.client(""), o)
		}
		obtain(w, s.register(s.client(""), "servers", nil), l.responder, "again.load.test")
	})
}

package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// The same server on PostgreSQL: one client of each kind of life, a library, a
// command and a script.
func TestPostgres(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no database")
		w.Names()
		ca := w.CA(harness.Options{Database: w.Postgres()})
		r := w.Responder()
		c := newAcmez(w, ca, solveHTTP01(r))
		key := w.NewKey()
		cert, _ := c.obtain(key, nil, "a.test", "b.test")
		if err := c.RevokeCertificate(w.Context(), c.account, cert, nil, 4); err != nil {
			w.Fatal(err)
		}
		w.RevokedKey(ca, cert, key)
		raw := w.Raw(ca, ca.Directory)
		kid, hmac := ca.EAB()
		raw.Want(http.StatusCreated, raw.Account(j{"externalAccountBinding": raw.EAB(kid, hmac, "HS256")}))
		raw.Issue(r, w.NewKey(), nil, "a.test")
		cb := newCertbot(w, ca)
		cb.register(w)
	})
}

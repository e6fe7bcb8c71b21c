package durability

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func TestFinalizeSQLite(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		s := newServer(w, w.Path("ca"), "")
		s.start()
		finalizedByMany(w, s, []*http.Client{s.client("")}, 5)
		s.census(w)
	})
}

func TestFinalizePostgres(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		s := newServer(w, w.Path("ca"), pg.dsn())
		s.start()
		finalizedByMany(w, s, []*http.Client{s.client("")}, 5)
		s.census(w)
	})
}

// finalizedByMany finalizes orders twenty times at once, each time for
// another key, spread over the HTTP clients, and then once more: one request
// wins, and the certificate is for its key.
func finalizedByMany(w *harness.World, s *server, over []*http.Client, orders int) {
	w.Helper()
	const many = 20
	r := w.Responder()
	c := s.register(over[0], "servers", nil)
	clients := make([]*acme.Client, many)
	for i := range clients {
		clients[i] = through(c, over[i%len(over)])
	}
	for range orders {
		o := ready(w, c, r, "many.load.test")
		type result struct {
			order acme.Order
			err   error
		}
		results := make([]result, many)
		keys := make([]crypto.PublicKey, many)
		start := make(chan struct{})
		var prepared, done sync.WaitGroup
		for i, c := range clients {
			key := newKey(w)
			keys[i] = key.Public()
			csr, err := acme.NewCSR(key, o.Identifiers...)
			if err != nil {
				w.Fatal(err)
			}
			prepared.Add(1)
			done.Go(func() {
				_, err := c.Account(w.Context()) // a connection and a nonce are at hand now
				prepared.Done()
				if err != nil {
					w.Error(err)
					return
				}
				<-start
				results[i].order, results[i].err = c.Finalize(w.Context(), o, csr)
			})
		}
		prepared.Wait()
		close(start)
		done.Wait()

		winner := -1
		for i, res := range results {
			switch {
			case res.err == nil && winner < 0:
				winner = i
			case res.err == nil:
				w.Errorf("finalize requests %d and %d of one order were both answered 200", winner, i)
			default:
				refused(w, res.err, acme.ErrOrderNotReady, "a finalize request too many")
			}
		}
		if winner < 0 {
			w.Fatal("none of the finalize requests was taken")
		}
		final, err := c.WaitOrder(w.Context(), results[winner].order)
		if err != nil {
			w.Fatal(err)
		}
		chain, err := c.Certificate(w.Context(), final.Certificate)
		if err != nil {
			w.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(chain.DER[0])
		if err != nil {
			w.Fatal(err)
		}
		if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(keys[winner]) {
			w.Error("the certificate is for another key than the winner's")
		}
		csr, err := acme.NewCSR(newKey(w), o.Identifiers...)
		if err != nil {
			w.Fatal(err)
		}
		_, err = c.Finalize(w.Context(), o, csr)
		refused(w, err, acme.ErrOrderNotReady, "finalizing a valid order")
	}
	id := c.AccountURL[strings.LastIndexByte(c.AccountURL, '/')+1:]
	if got := list[certificate](s, "/v1/certificates", url.Values{"account": {id}}); len(got) != orders {
		w.Errorf("%d orders have made %d certificates", orders, len(got))
	}
}

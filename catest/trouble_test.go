package catest_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
)

func get(t testing.TB, ctx context.Context, ca *catest.CA) (int, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, ca.Directory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Client().Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	_, err = io.Copy(io.Discard, a.Body)
	return a.StatusCode, err
}

// inBoth runs a test of a CA on the network and of one in memory.
func inBoth(t *testing.T, test func(t *testing.T, ca *catest.CA)) {
	t.Run("network", func(t *testing.T) { test(t, catest.New(t, catest.StoppedAt(noon))) })
	t.Run("memory", func(t *testing.T) { test(t, catest.New(t, catest.StoppedAt(noon), catest.InMemory())) })
}

// Down cuts what is open and what comes; Up brings all back where it was.
func TestDown(t *testing.T) {
	inBoth(t, func(t *testing.T, ca *catest.CA) {
		mustObtain(t, ca.Config("web.test")) // leaves a connection open
		url := ca.Directory()
		for range 2 {
			ca.Down()
			if status, err := get(t, t.Context(), ca); err == nil {
				t.Errorf("it answers %d while it is down", status)
			}
			ca.Issue(mtls.UsageServer, "peer.test") // a peer's own affair
			ca.Up()
			if status, err := get(t, t.Context(), ca); status != http.StatusOK || err != nil {
				t.Errorf("after that: %d, %v", status, err)
			}
		}
		if ca.Directory() != url {
			t.Errorf("it moved to %s", ca.Directory())
		}
		mustObtain(t, ca.Config("web.test"))
	})
}

// A request under way ends when the CA goes down.
func TestDownCutsRequests(t *testing.T) {
	inBoth(t, func(t *testing.T, ca *catest.CA) {
		ca.Slow(time.Hour)
		failed := make(chan error, 1)
		go func() {
			_, err := get(t, context.Background(), ca)
			failed <- err
		}()
		ca.Clock().BlockUntil(1)
		ca.Down()
		if err := <-failed; err == nil {
			t.Error("it was answered")
		}
	})
}

// A slow CA answers when its clock says so, or when it is slow no more; who
// leaves meanwhile waits no longer.
func TestSlow(t *testing.T) {
	inBoth(t, func(t *testing.T, ca *catest.CA) {
		ca.Slow(time.Minute)
		ask := func() <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := get(t, context.Background(), ca)
				done <- err
			}()
			ca.Clock().BlockUntil(1)
			return done
		}
		done := ask()
		ca.Advance(59 * time.Second)
		select {
		case err := <-done:
			t.Fatalf("it didn't wait: %v", err)
		default:
		}
		ca.Advance(time.Second)
		if err := <-done; err != nil {
			t.Error(err)
		}
		done = ask()
		ca.Slow(0)
		if err := <-done; err != nil {
			t.Errorf("slow no more: %v", err)
		}
		ca.Slow(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := get(t, ctx, ca); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
	})
}

// A test may end while a client waits: nothing of it is left.
func TestEndWhileSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory(), catest.StoppedAt(noon))
		ca.Slow(time.Hour)
		go register(t, ca.Config("web.test"))
		ca.Clock().BlockUntil(1)
	})
}

// Whatever else a CA may do wrong.
func TestAnswer(t *testing.T) {
	inBoth(t, func(t *testing.T, ca *catest.CA) {
		hits := 0
		ca.Answer(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if hits++; hits > 1 {
					http.Error(w, "no", http.StatusTeapot)
					return
				}
				w.Header().Set("X-Spoilt", "yes")
				next.ServeHTTP(w, r)
			})
		})
		for _, want := range []int{http.StatusOK, http.StatusTeapot} {
			if status, err := get(t, t.Context(), ca); status != want || err != nil {
				t.Errorf("%d, %v, want %d", status, err, want)
			}
		}
		ca.Answer(nil)
		if status, err := get(t, t.Context(), ca); status != http.StatusOK || err != nil {
			t.Errorf("as before: %d, %v", status, err)
		}
	})
}

// Renewals over weeks, in a bubble: nothing there keeps time from passing, and
// nothing is left at its end.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := catest.New(t, catest.InMemory())
		other := catest.New(t, catest.InMemory(), ca.Clock())
		begun, renewals := time.Now(), 0
		for time.Since(begun) < 4*7*24*time.Hour {
			for _, from := range []*catest.CA{ca, other} {
				leaf, _ := mustObtain(t, from.Config("web.test", "10.0.0.1"))
				if want := time.Now().Add(-time.Minute).Truncate(time.Second).UTC(); !leaf.NotBefore.Equal(want) {
					t.Fatalf("from %v, want %v", leaf.NotBefore, want)
				}
			}
			renewals++
			<-ca.Clock().After(16 * time.Hour)
		}
		if renewals != 42 {
			t.Errorf("%d renewals in four weeks, want 42", renewals)
		}
		if ca.Directory() == other.Directory() {
			t.Error("one directory for two CAs")
		}
		if _, err := get(t, t.Context(), ca); err != nil {
			t.Error(err)
		}
		if _, err := ca.Client().Get(other.Directory()); err == nil {
			t.Error("one CA's client reached another")
		}
	})
}

// writeChain answers with a certificate, as a CA does.
func writeChain(w http.ResponseWriter, c tls.Certificate) {
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	for _, der := range c.Certificate {
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
}

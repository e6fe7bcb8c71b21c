package catest_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
)

// Ten identities renew four times over TLS on loopback, each with an HTTP
// client of the library's own: no connection, and so no goroutine, stays behind.
func TestRenewalsLeaveNothingBehind(t *testing.T) {
	const n, times = 10, 4
	ca := catest.New(t)
	config := ca.Config()
	config.CAs[0].HTTPClient = nil
	begun := runtime.NumGoroutine()
	var ids []*mtls.Identity
	for i := range n {
		config.Names = []string{fmt.Sprintf("n%d.test", i)}
		id, err := mtls.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer id.Close()
		ids = append(ids, id)
	}
	for range times {
		ca.Advance(17 * time.Hour)
		for _, id := range ids {
			until(t, "a certificate renewed", func() bool { return renewed(id, ca.Clock().Now()) })
		}
	}
	// The CA may have a connection or two that it has not seen the end of yet.
	until(t, "one goroutine for each", func() bool { return runtime.NumGoroutine() <= begun+n })
	for _, id := range ids {
		id.Close()
	}
	until(t, "no goroutine", func() bool { return runtime.NumGoroutine() <= begun })
}

// renewed reports whether nothing of an identity is due.
func renewed(id *mtls.Identity, now time.Time) bool {
	for _, c := range id.Health().Certificates {
		if !c.RenewAt.After(now) {
			return false
		}
	}
	return true
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("still not: %s; %d goroutines\n%s", what, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}

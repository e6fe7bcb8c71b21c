package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
)

// Ears listen to a database and remember what they heard.
type Ears struct {
	mu     sync.Mutex
	heard  []store.Notice
	intact []bool
	end    context.CancelFunc
	done   chan struct{}
}

// Listen returns ears that hear all notices from now on.
func Listen(t *testing.T, db *store.DB) *Ears {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	e := &Ears{end: end, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		db.Listen(ctx, e.hear, func(is bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.intact = append(e.intact, is)
		})
	}()
	t.Cleanup(e.End)
	e.WaitIntact(t, true)
	return e
}

func (e *Ears) hear(n store.Notice) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, n)
}

// End ends it.
func (e *Ears) End() {
	e.end()
	<-e.done
}

// Heard is what was heard so far, each once.
func (e *Ears) Heard() (all []store.Notice) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.heard {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// Wait waits until a notice was heard.
func (e *Ears) Wait(t *testing.T, n store.Notice) {
	t.Helper()
	wait(t, "a notice", func() bool { return slices.Contains(e.Heard(), n) })
}

// WaitIntact waits until it was said last that notices are heard, or aren't.
func (e *Ears) WaitIntact(t *testing.T, want bool) {
	t.Helper()
	wait(t, "its being said whether all is heard", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.intact) > 0 && e.intact[len(e.intact)-1] == want
	})
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// testNotices: whoever is told that a certificate is revoked can rely on this
// replica's having heard it; nobody hears of what didn't happen.
func testNotices(t *testing.T, f *fixture) {
	one, two := Listen(t, f.db), Listen(t, f.db)
	f.update(func(tx *store.Tx) error {
		if err := tx.Notify("topic", awkward); err != nil {
			return err
		}
		if len(one.Heard()) > 0 {
			t.Error("heard before the commit")
		}
		return tx.Notify("empty", "")
	})
	want := []store.Notice{{Topic: "topic", Body: awkward}, {Topic: "empty"}}
	equal(t, one.Heard(), want)
	equal(t, two.Heard(), want)

	c := f.issued(issuerKey)
	no := errors.New("no")
	wantError(t, f.db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := revoke(c, tx.Now())(tx)
		return errors.Join(no, err)
	}), no)
	equal(t, one.Heard(), want)
	two.End()
	f.changed(true, revoke(c, f.Now()))
	f.changed(false, revoke(c, f.Now()))
	equal(t, one.Heard(), append(want, store.Notice{Topic: store.TopicRevoked, Body: issuerKey + " " + string(c.Serial)}))
	equal(t, two.Heard(), want)
	two.WaitIntact(t, false) // which it said in the end

	for _, bad := range [][2]string{{"", "x"}, {"two words", ""}, {"x", strings.Repeat("x", 201)}, {strings.Repeat("x", 51), ""}, {"x", "a\x00b"}, {"x", "\xff"}, {"a\x00", ""}} {
		if err := f.db.Update(t.Context(), func(tx *store.Tx) error { return tx.Notify(bad[0], bad[1]) }); err == nil {
			t.Errorf("%q was sent", bad)
		}
	}
	f.update(func(tx *store.Tx) error { return tx.Notify(strings.Repeat("t", 50), strings.Repeat("ü", 100)) })
	equal(t, len(one.Heard()), 4)
}

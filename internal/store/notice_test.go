package store_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// A revocation at one replica is heard at the others, and nothing that didn't
// happen is. While the server is away they know that they may miss something.
func TestPostgresNotices(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		a, b := replicas(t, nil)
		ears := storetest.Listen(t, b)
		i := storetest.NewIssuance(0, time.Now())
		if err := issue(t.Context(), a, i); err != nil {
			t.Fatal(err)
		}
		update(t, a, func(tx *store.Tx) error {
			_, err := tx.RevokeCertificate(i.Certificate.Serial, cert.Revoked{At: tx.Now()})
			return err
		})
		revoked := store.Notice{Topic: store.TopicRevoked, Body: i.Certificate.IssuerKeyID + " " + string(i.Certificate.Serial)}
		ears.Wait(t, revoked)
		if err := a.Update(t.Context(), func(tx *store.Tx) error {
			if err := tx.Notify("undone", ""); err != nil {
				return err
			}
			return context.Canceled
		}); err != context.Canceled {
			t.Fatal(err)
		}
		notify := func(db *store.DB, topic, body string) {
			t.Helper()
			update(t, db, func(tx *store.Tx) error { return tx.Notify(topic, body) })
			ears.Wait(t, store.Notice{Topic: topic, Body: body})
		}
		notify(a, "next", "a b  c") // after which nothing that came before it is still to come
		notify(b, "own", "")
		if n := len(ears.Heard()); n != 3 {
			t.Errorf("heard %v, want three notices", ears.Heard())
		}
		if err := postgres.Kill(); err != nil {
			t.Fatal(err)
		}
		ears.WaitIntact(t, false)
		if err := postgres.Start(); err != nil {
			t.Fatal(err)
		}
		ears.WaitIntact(t, true)
		notify(a, "again", "")
	})
}

// A server that falls silent is noticed within three seconds, although nobody
// expects to hear anything.
func TestPostgresNoticesSilence(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		w := newWire(t)
		e := w.open(t, 0, 1)
		intact := make(chan bool, 10)
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.Listen(ctx, func(string) {}, func(is bool) { intact <- is })
		}()
		expect := func(want bool, within time.Duration) {
			t.Helper()
			select {
			case got := <-intact:
				if got != want {
					t.Fatalf("intact: %v, want %v", got, want)
				}
			case <-time.After(within):
				t.Fatalf("nobody said in %v that intact is %v", within, want)
			}
		}
		expect(true, 10*time.Second)
		w.mu.Lock()
		expect(false, 4*time.Second) // one for a busy machine
		w.mu.Unlock()
		expect(true, 10*time.Second)
		end()
		expect(false, 10*time.Second)
		<-done
	})
}

// Behind a pooler that takes LISTEN and then gives our connection another
// session, nobody believes that notices are heard.
func TestPostgresNoticesPooler(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		u, err := url.Parse(dsn(t, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		var swallowed atomic.Int64
		server := u.Host
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go withoutNotices(c, server, &swallowed)
			}
		}()
		u.Host = l.Addr().String()
		db := open(t, store.Options{DSN: u.String()})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		db.Listen(ctx, func(store.Notice) {}, func(is bool) {
			if is {
				t.Error("notices are said to be heard, and none comes through")
			}
		})
		if swallowed.Load() == 0 {
			t.Error("no notice was on its way, so that nothing was tried")
		}
	})
}

// withoutNotices carries a connection to the server, and back all but
// NotificationResponse (PostgreSQL manual, 55.7: 'A', then the length).
func withoutNotices(c net.Conn, server string, swallowed *atomic.Int64) {
	defer c.Close()
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		io.Copy(s, c)
		s.Close()
	}()
	from := bufio.NewReader(s)
	for {
		head, err := from.Peek(5)
		if err != nil {
			return
		}
		to := io.Writer(c)
		if head[0] == 'A' {
			swallowed.Add(1)
			to = io.Discard
		}
		if _, err := io.CopyN(to, from, 1+int64(binary.BigEndian.Uint32(head[1:]))); err != nil {
			return
		}
	}
}

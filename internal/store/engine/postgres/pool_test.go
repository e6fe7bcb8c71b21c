package postgres

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// One silence is waited for once, however often the driver reads, and the next
// question begins another.
func TestLineSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, server := net.Pipe()
		defer ours.Close()
		defer server.Close()
		go func() {
			for b := make([]byte, 1); ; {
				if _, err := server.Read(b); err != nil {
					return
				}
			}
		}()
		l := &line{Conn: ours, silence: time.Second, generation: new(atomic.Int64)}
		l.patience.Store(int64(l.silence))
		read := func(want time.Duration) {
			t.Helper()
			begun := time.Now()
			_, err := l.Read(make([]byte, 1))
			if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took != want {
				t.Errorf("a read took %v, want %v: %v", took, want, err)
			}
		}
		for range 2 {
			if _, err := l.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			read(time.Second)
			read(0)
			read(0)
		}
		if !l.outdated() {
			t.Error("a silent connection is to be used again")
		}
	})
}

package signer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// TestPoolScales: N keys that are asked by many are each busy for at least
// 95 % of the time and together sign at least 0.95 N times as fast as one.
func TestPoolScales(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		synctest.Test(t, func(t *testing.T) {
			p, queues := cards(t, n, 200*time.Millisecond)
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Second)
			defer stop()
			for range 10 * n { // as many clients, each with one request at a time
				go func() {
					for ctx.Err() == nil {
						chosen(ctx, p, queues)
					}
				}()
			}
			time.Sleep(101 * time.Second)
			total := uint64(0)
			for i, q := range queues {
				s := q.Stats()
				total += s.Signed[schedule.Issuance]
				if s.Busy < 95*time.Second {
					t.Errorf("key %d of %d was busy for %v of 100 s", i, n, s.Busy)
				}
			}
			if want := uint64(500 * n); total < want*95/100 {
				t.Errorf("%d keys made %d signatures; one makes 500", n, total)
			}
		})
	}
}

// TestTokensScale: so do N tokens of one key, and so do keys of unequal speed.
func TestTokensScale(t *testing.T) {
	for _, n := range []int{2, 4, 8} {
		synctest.Test(t, func(t *testing.T) {
			q, k := tokens(t, QueueOptions{}, n, 1, 200*time.Millisecond)
			k[0].takes = 300 * time.Millisecond
			for range 100 * n {
				go sign(q, schedule.Issuance)
			}
			time.Sleep(10*time.Second + time.Millisecond)
			if got, want := q.Stats().Signed[schedule.Issuance], uint64(50*(n-1)+33); got != want {
				t.Errorf("%d tokens made %d signatures in 10 s, want %d", n, got, want)
			}
			time.Sleep(time.Minute)
		})
	}
}

// TestStormKeepsIssuance: a storm of OCSP that always wants more takes at most
// 5 % of issuance's rate while issuance wants all, and at half the load adds at
// most two signature times to its 99th percentile of waiting.
func TestStormKeepsIssuance(t *testing.T) {
	const signature = 200 * time.Millisecond
	run := func(storm bool, load func(ctx context.Context, sign func())) (count uint64, p99 time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			q := newCard(t, signature).queue(t, 1, 100_000)
			ctx, stop := context.WithCancel(t.Context())
			if storm {
				for range 2000 {
					go func() {
						for ctx.Err() == nil {
							q.Sign(ctx, Request{Class: schedule.OCSP}, digestOf(0), crypto.SHA256)
						}
					}()
				}
			}
			synctest.Wait()
			var mu sync.Mutex
			var waits []time.Duration
			go load(ctx, func() {
				start := time.Now()
				if _, err := q.Sign(ctx, Request{}, digestOf(0), crypto.SHA256); err == nil {
					mu.Lock()
					waits = append(waits, time.Since(start))
					mu.Unlock()
				}
			})
			time.Sleep(2000 * time.Second)
			count = q.Stats().Signed[schedule.Issuance]
			stop()
			time.Sleep(time.Minute)
			synctest.Wait()
			slices.Sort(waits)
			p99 = waits[len(waits)*99/100]
		})
		return count, p99
	}
	saturate := func(ctx context.Context, sign func()) {
		for range 50 {
			go func() {
				for ctx.Err() == nil {
					sign()
				}
			}()
		}
	}
	without, _ := run(false, saturate)
	with, _ := run(true, saturate)
	if float64(with) < 0.95*float64(without) {
		t.Errorf("saturated: %d certificates in the storm, %d without", with, without)
	}
	half := func(ctx context.Context, sign func()) { // at random, half of what the key makes
		random := mathrand.New(mathrand.NewPCG(3, 4))
		for ctx.Err() == nil {
			time.Sleep(time.Duration(random.ExpFloat64() * float64(2*signature)))
			go sign()
		}
	}
	_, calm := run(false, half)
	_, wild := run(true, half)
	if wild > calm+2*signature {
		t.Errorf("at half load: the 99th percentile is %v in the storm, %v without", wild, calm)
	}
	t.Logf("saturated %d of %d; p99 at half load %v, without storm %v", with, without, wild, calm)
}

// BenchmarkQueue compares a key by itself with one behind its queue, idle and
// with more asking than it serves.
func BenchmarkQueue(b *testing.B) {
	key := ecKey(b)
	digest := sha256.Sum256([]byte("x"))
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			key.Sign(rand.Reader, digest[:], crypto.SHA256)
		}
	})
	b.Run("bare-rfc6979", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			key.Sign(nil, digest[:], crypto.SHA256)
		}
	})
	b.Run("queued", func(b *testing.B) {
		q := newQueue(b, QueueOptions{}, &Signer{Signer: key, Parallel: runtime.GOMAXPROCS(0)})
		b.ReportAllocs()
		for b.Loop() {
			q.Sign(b.Context(), Request{}, digest[:], crypto.SHA256)
		}
	})
	b.Run("chosen", func(b *testing.B) {
		q := newQueue(b, QueueOptions{}, &Signer{Signer: key, Parallel: runtime.GOMAXPROCS(0)})
		p, queues := NewPool(q), []*Queue{q}
		b.ReportAllocs()
		for b.Loop() {
			chosen(b.Context(), p, queues)
		}
	})
}

// BenchmarkOverhead is what the queue itself costs: its key does nothing.
func BenchmarkOverhead(b *testing.B) {
	for _, c := range []struct{ parallel, callers int }{{1, 1}, {2, 2}, {1, 64}} {
		b.Run(fmt.Sprintf("parallel=%d/callers=%d", c.parallel, c.callers), func(b *testing.B) {
			q := newQueue(b, QueueOptions{}, &Signer{Signer: nothing{ecKey(b)}, Parallel: c.parallel})
			digest := digestOf(0)
			b.ReportAllocs()
			b.SetParallelism(max(1, c.callers/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					q.Sign(context.Background(), Request{}, digest, crypto.SHA256)
				}
			})
		})
	}
}

type nothing struct{ crypto.Signer }

func (nothing) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return digest, nil
}

// BenchmarkBusy reports how busy a key of a millisecond is, in real time, while
// work waits: 1 is always.
func BenchmarkBusy(b *testing.B) {
	q := newCard(b, time.Millisecond).queue(b, 1, 0)
	var all sync.WaitGroup
	start := time.Now()
	for range 32 {
		all.Go(func() {
			for range max(1, b.N/32) {
				sign(q, schedule.Issuance)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(q.Stats().Busy)/float64(time.Since(start)), "busy")
}

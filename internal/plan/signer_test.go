package plan

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// slowKey takes its time for a signature.
type slowKey struct {
	public    crypto.PublicKey
	signature time.Duration
}

func (k slowKey) Public() crypto.PublicKey { return k.public }

func (k slowKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	time.Sleep(k.signature)
	return []byte{1}, nil
}

// The server's own queues and pool, with goroutines and their clock, take as
// long for a drain beside an OCSP storm as the simulation says.
func TestAgreesWithTheSigner(t *testing.T) {
	for _, c := range []struct {
		name  string
		keys  []Key
		storm float64
	}{
		{"one key", keys(1, card), 0},
		{"four keys", keys(4, card), 0},
		{"a fast and two slow", []Key{{Signature: card / 4}, {Signature: card}, {Signature: 2 * card}}, 0},
		{"two keys in a storm", keys(2, card), .5},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{
				Fleet: Fleet{Workloads: 300, PerWorkload: 2, Clients: 7, Lifetime: 9000 * time.Hour},
				Drain: Drain{Workloads: 150}, OCSP: OCSP{Validity: 8 * time.Hour, Storm: c.storm},
				Keys: c.keys, Vary: -1, Seed: 3,
			}
			want := measure(t, in)
			got := mustRun(t, in).Drain.Workloads
			near(t, "p50", got.P50.Seconds(), want.P50.Seconds(), .05)
			near(t, "p99", got.P99.Seconds(), want.P99.Seconds(), .05)
			near(t, "worst", got.Worst.Seconds(), want.Worst.Seconds(), .05)
		})
	}
}

// measure lets the drain and the storm happen to real queues.
func measure(t *testing.T, in Input) Waits {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var waits histogram
	synctest.Test(t, func(t *testing.T) {
		var queues []*signer.Queue
		var candidates []signer.Candidate
		for _, k := range in.Keys {
			q, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: slowKey{key.Public(), k.Signature}, Parallel: 1})
			if err != nil {
				t.Fatal(err)
			}
			queues, candidates = append(queues, q), append(candidates, q)
			for range 3 { // the rate is known
				ask(t, q, signer.Request{})
			}
		}
		pool := signer.NewPool(candidates...)
		begun := time.Now()
		var all sync.WaitGroup
		answers := int(in.OCSP.Storm * float64(in.Fleet.inUse()))
		for i := range answers {
			all.Go(func() { ask(t, queues[i%len(queues)], signer.Request{Class: schedule.OCSP}) })
		}
		synctest.Wait()
		var mu sync.Mutex
		for w := range in.Drain.Workloads {
			var own sync.WaitGroup
			for range int(in.Fleet.PerWorkload) {
				r := signer.Request{Class: schedule.Issuance, Client: strconv.Itoa(w % in.Fleet.Clients)}
				place, reservation := pool.Choose(r, nil)
				r.Reservation = reservation
				own.Go(func() { ask(t, queues[place], r) })
				synctest.Wait()
			}
			all.Go(func() {
				own.Wait()
				mu.Lock()
				defer mu.Unlock()
				waits.add(time.Since(begun))
			})
		}
		all.Wait()
	})
	return waits.waits()
}

func ask(t *testing.T, q *signer.Queue, r signer.Request) {
	if _, err := q.Sign(context.Background(), r, make([]byte, 32), crypto.SHA256); err != nil {
		t.Error(err)
	}
}

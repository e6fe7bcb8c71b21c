package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// card is a key that takes its time, one signature at once, as a smart card.
type card struct {
	*ecdsa.PrivateKey
	takes time.Duration
	mu    sync.Mutex
	busy  int
	most  int
	order []byte // first digest byte of each signature
	fail  error
}

func newCard(t testing.TB, takes time.Duration) *card {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &card{PrivateKey: key, takes: takes}
}

func (c *card) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.mu.Lock()
	c.busy++
	c.most = max(c.most, c.busy)
	c.order = append(c.order, digest[0])
	fail := c.fail
	c.mu.Unlock()
	time.Sleep(c.takes)
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	return []byte("signature"), nil
}

// signed is what was signed so far, in order.
func (c *card) signed() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

func digestOf(b byte) []byte { d := make([]byte, 32); d[0] = b; return d }

func (c *card) queue(parallel, depth int) *Queue {
	return NewQueue(&Signer{Signer: c, Parallel: parallel}, depth)
}

func sign(q *Queue, c Class) error {
	_, err := q.Sign(context.Background(), c, digestOf(byte(c)), crypto.SHA256)
	return err
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, 200*time.Millisecond)
		q := key.queue(1, 0)
		for i := range 10 {
			go q.Sign(t.Context(), Issuance, digestOf(byte(i)), crypto.SHA256)
			synctest.Wait()
		}
		start := time.Now()
		if err := sign(q, Issuance); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 11*200*time.Millisecond {
			t.Errorf("the eleventh signature took %v", took)
		}
		if order := key.signed(); !slices.IsSorted(order[:10]) || key.most != 1 {
			t.Errorf("order %v, %d at once", order, key.most)
		}
	})
}

// TestNoneStarves: while every class wants more than there is, each gets its
// share, and issuance is never held up by a storm of OCSP.
func TestNoneStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Millisecond)
		q := key.queue(1, 10000)
		ctx, stop := context.WithCancel(t.Context())
		for c := range classes {
			for range 100 {
				go func() {
					for ctx.Err() == nil {
						q.Sign(ctx, c, digestOf(byte(c)), crypto.SHA256)
					}
				}()
			}
		}
		time.Sleep(10 * time.Second)
		stop()
		time.Sleep(time.Second)
		s := q.Stats()
		total := s.Signed[Issuance] + s.Signed[OCSP] + s.Signed[CRL]
		if total < 9990 {
			t.Errorf("the key idled: %d signatures in 10 s", total)
		}
		for c := range classes {
			if got := float64(s.Signed[c]) / float64(total); got < share[c]*0.95 || got > share[c]*1.1 {
				t.Errorf("%v got %.4f of the key, want %.2f", c, got, share[c])
			}
		}
	})
}

// TestIdleEarnsNoCredit: a class that was quiet for long doesn't then shut the
// others out.
func TestIdleEarnsNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Millisecond)
		q := key.queue(1, 0)
		for range 1000 {
			go sign(q, Issuance)
		}
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		before := len(key.signed())
		for range 100 {
			go sign(q, OCSP)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		ocsp := 0
		for _, c := range key.signed()[before:] {
			if Class(c) == OCSP {
				ocsp++
			}
		}
		if ocsp < 5 || ocsp > 12 { // 4/99 of 200 is 8
			t.Errorf("OCSP got %d of 200 signatures", ocsp)
		}
		time.Sleep(time.Minute)
	})
}

func TestCancelLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Second)
		q := key.queue(1, 0)
		go sign(q, Issuance)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		for range 5 {
			go q.Sign(ctx, OCSP, digestOf(9), crypto.SHA256)
		}
		_, err := q.Sign(ctx, Issuance, digestOf(9), crypto.SHA256)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("err = %v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if s := q.Stats(); s.Waiting != [classes]int{} {
			t.Errorf("%v still wait", s.Waiting)
		}
		if err := sign(q, Issuance); err != nil { // the slot isn't lost
			t.Fatal(err)
		}
		if slices.Contains(key.signed(), 9) {
			t.Error("a cancelled request was signed")
		}
		if _, err := q.Sign(ctx, Issuance, digestOf(9), crypto.SHA256); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an ended context: err = %v", err)
		}
	})
}

// TestCancelRace: a slot handed over in the moment of cancellation is passed on.
func TestCancelRace(t *testing.T) {
	key := newCard(t, 0)
	q := key.queue(1, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i+j)%7)*10*time.Microsecond)
				q.Sign(ctx, Class(j%3), digestOf(0), crypto.SHA256)
				cancel()
			}
		})
	}
	wg.Wait()
	if s := q.Stats(); s.Running != 0 || s.Waiting != [classes]int{} || key.most != 1 {
		t.Errorf("after all: %+v, %d at once", s, key.most)
	}
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, time.Second).queue(1, 2)
		for range 3 {
			go sign(q, OCSP)
		}
		synctest.Wait()
		if err := sign(q, OCSP); !errors.Is(err, ErrFull) {
			t.Errorf("err = %v, want ErrFull", err)
		}
		// A full class doesn't shut out another.
		if err := sign(q, Issuance); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := sign(q, OCSP); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Second)
		q := key.queue(4, 0)
		start := time.Now()
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() { sign(q, Issuance) })
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second || key.most != 4 {
			t.Errorf("12 signatures took %v, %d at once", took, key.most)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, 200*time.Millisecond).queue(1, 0)
		if w := q.Wait(Issuance); w > time.Second {
			t.Errorf("unmeasured: %v", w)
		}
		sign(q, Issuance)
		if w := q.Wait(Issuance); w != 200*time.Millisecond {
			t.Errorf("idle: %v, want one signature", w)
		}
		for range 50 {
			go sign(q, Issuance)
		}
		for range 20 {
			go sign(q, OCSP)
		}
		synctest.Wait()
		for _, c := range []Class{Issuance, OCSP} {
			guess, start := q.Wait(c), time.Now()
			if err := sign(q, c); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); guess < took*9/10 || guess > took*13/10+400*time.Millisecond {
				t.Errorf("%v: guessed %v, took %v", c, guess, took)
			}
		}
		time.Sleep(time.Minute)
	})
}

// TestRateFollows: a key that slows down is noticed within some signatures.
func TestRateFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, 10*time.Millisecond)
		q := key.queue(1, 0)
		for range 5 {
			sign(q, Issuance)
		}
		key.takes = 500 * time.Millisecond
		for range 25 {
			sign(q, Issuance)
		}
		if m := q.Stats().Mean; m < 450*time.Millisecond {
			t.Errorf("mean is %v", m)
		}
	})
}

// TestAs: the standard library signs a CRL through the queue, in its class.
func TestAs(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue(&Signer{Signer: key}, 0)
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte("id"), PublicKey: &key.PublicKey}
	crl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Unix(1, 0), NextUpdate: time.Unix(2, 0)}
	der, err := x509.CreateRevocationList(rand.Reader, crl, issuer, q.As(t.Context(), CRL))
	if err != nil || len(der) == 0 || q.Stats().Signed[CRL] != 1 {
		t.Errorf("%d bytes, %v, %+v", len(der), err, q.Stats())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x509.CreateRevocationList(rand.Reader, crl, issuer, q.As(ctx, CRL)); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestFailuresGiveTheSlotBack(t *testing.T) {
	key := newCard(t, 0)
	q := key.queue(1, 0)
	key.fail = errors.New("card pulled out")
	if err := sign(q, CRL); !errors.Is(err, key.fail) {
		t.Errorf("err = %v", err)
	}
	key.fail = nil
	if err := sign(q, CRL); err != nil {
		t.Error(err)
	}
	if s := q.Stats(); s.Failed != 1 || s.Signed[CRL] != 1 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
	if err := sign(q, 7); err == nil {
		t.Error("an unknown class was signed")
	}
	bad := NewQueue(&Signer{Signer: panicky{key}}, 0)
	func() {
		defer func() { recover() }()
		sign(bad, CRL)
	}()
	if s := bad.Stats(); s.Running != 0 {
		t.Error("a panic kept the slot")
	}
}

type panicky struct{ crypto.Signer }

func (panicky) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("driver fault") }

// TestDeterministic: ECDSA in memory signs by RFC 6979, so that a certificate
// signed again after a crash is the same bytes.
func TestDeterministic(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue(&Signer{Signer: key, Parallel: 2}, 0)
	digest := sha256.Sum256([]byte("x"))
	a, err := q.Sign(t.Context(), Issuance, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := q.Sign(t.Context(), Issuance, digest[:], crypto.SHA256)
	if !slices.Equal(a, b) || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], a) {
		t.Error("two signatures differ, or don't verify")
	}
}

// TestPoolTriesNewKeys: a key that was never measured is tried once, and not
// flooded while it is at its first signature.
func TestPoolTriesNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, slow := newCard(t, time.Millisecond).queue(1, 0), newCard(t, time.Second).queue(1, 0)
		sign(fast, Issuance)
		queues := []*Queue{fast, slow}
		p := NewPool(queues...)
		for range 100 {
			go sign(queues[p.Choose(Issuance, nil)], Issuance)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		if s := slow.Stats(); s.Signed[Issuance] != 1 || s.Mean != time.Second {
			t.Errorf("the slow key signed %d times", s.Signed[Issuance])
		}
	})
}

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cards := []*card{newCard(t, 200*time.Millisecond), newCard(t, 200*time.Millisecond), newCard(t, 200*time.Millisecond)}
		var queues []*Queue
		for _, c := range cards {
			q := c.queue(1, 0)
			sign(q, Issuance)
			queues = append(queues, q)
		}
		p := NewPool(queues...)
		count := [3]int{}
		for range 30 { // nothing is signed meanwhile: equals take turns
			count[p.Choose(Issuance, nil)]++
		}
		if count != [3]int{10, 10, 10} {
			t.Errorf("equal keys were chosen %v times", count)
		}
		for range 2 {
			go sign(queues[0], Issuance)
		}
		go sign(queues[1], Issuance)
		synctest.Wait()
		for range 6 {
			if got := p.Choose(Issuance, nil); got != 2 {
				t.Errorf("chose %d, not the idle key", got)
			}
			if got := p.Choose(Issuance, func(i int) bool { return i != 2 }); got != 1 {
				t.Errorf("chose %d, not the shorter queue", got)
			}
		}
		if w := p.Wait(Issuance); w != 200*time.Millisecond {
			t.Errorf("the pool's wait is %v", w)
		}
		if got := p.Choose(Issuance, func(int) bool { return false }); got != -1 {
			t.Errorf("chose %d of none", got)
		}
		time.Sleep(time.Second)
	})
	if got := NewPool().Choose(CRL, nil); got != -1 {
		t.Errorf("an empty pool chose %d", got)
	}
}

// TestPoolScales: N busy keys sign at least 0.95 N times as fast as one.
func TestPoolScales(t *testing.T) {
	for _, n := range []int{2, 4, 8} {
		synctest.Test(t, func(t *testing.T) {
			var queues []*Queue
			for range n {
				queues = append(queues, newCard(t, 200*time.Millisecond).queue(1, 0))
			}
			p := NewPool(queues...)
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Second)
			defer stop()
			for range 10 * n { // as many clients, each with one request at a time
				go func() {
					for ctx.Err() == nil {
						queues[p.Choose(Issuance, nil)].Sign(ctx, Issuance, digestOf(0), crypto.SHA256)
					}
				}()
			}
			time.Sleep(101 * time.Second)
			total := uint64(0)
			for _, q := range queues {
				total += q.Stats().Signed[Issuance]
			}
			if want := uint64(500 * n); total < want*95/100 {
				t.Errorf("%d keys made %d signatures; one makes 500", n, total)
			}
		})
	}
}

func BenchmarkQueue(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
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
		q := NewQueue(&Signer{Signer: key, Parallel: runtime.GOMAXPROCS(0)}, 0)
		b.ReportAllocs()
		for b.Loop() {
			q.Sign(b.Context(), Issuance, digest[:], crypto.SHA256)
		}
	})
}

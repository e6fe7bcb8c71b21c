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
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
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

func (c *card) queue(t testing.TB, parallel, depth int) *Queue {
	t.Helper()
	return newQueue(t, QueueOptions{Depth: depth}, &Signer{Signer: c, URI: "file:card", Parallel: parallel})
}

func newQueue(t testing.TB, o QueueOptions, signers ...*Signer) *Queue {
	t.Helper()
	q, err := NewQueue(o, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func sign(q *Queue, c schedule.Class) error {
	_, err := q.Sign(context.Background(), Request{Class: c}, digestOf(byte(c)), crypto.SHA256)
	return err
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, 200*time.Millisecond)
		q := key.queue(t, 1, 0)
		for i := range 10 {
			go q.Sign(t.Context(), Request{Class: schedule.Issuance}, digestOf(byte(i)), crypto.SHA256)
			synctest.Wait()
		}
		start := time.Now()
		if err := sign(q, schedule.Issuance); err != nil {
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
// share.
func TestNoneStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Millisecond)
		q := key.queue(t, 1, 10000)
		ctx, stop := context.WithCancel(t.Context())
		for c := range schedule.Classes {
			for range 100 {
				go func() {
					for ctx.Err() == nil {
						q.Sign(ctx, Request{Class: c}, digestOf(byte(c)), crypto.SHA256)
					}
				}()
			}
		}
		time.Sleep(10 * time.Second)
		stop()
		time.Sleep(time.Second)
		s := q.Stats()
		total, share := uint64(0), schedule.DefaultShares()
		for _, n := range s.Signed {
			total += n
		}
		if total < 9990 {
			t.Errorf("the key idled: %d signatures in 10 s", total)
		}
		for c := range schedule.Classes {
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
		q := key.queue(t, 1, 0)
		for range 1000 {
			go sign(q, schedule.Issuance)
		}
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		before := len(key.signed())
		for range 100 {
			go sign(q, schedule.OCSP)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		ocsp := 0
		for _, c := range key.signed()[before:] {
			if schedule.Class(c) == schedule.OCSP {
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
		q := key.queue(t, 1, 0)
		go sign(q, schedule.Issuance)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		for range 5 {
			go q.Sign(ctx, Request{Class: schedule.OCSP}, digestOf(9), crypto.SHA256)
		}
		_, err := q.Sign(ctx, Request{Class: schedule.Issuance}, digestOf(9), crypto.SHA256)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("err = %v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if s := q.Stats(); s.Waiting != [schedule.Classes]int{} {
			t.Errorf("%v still wait", s.Waiting)
		}
		if err := sign(q, schedule.Issuance); err != nil { // the slot isn't lost
			t.Fatal(err)
		}
		if slices.Contains(key.signed(), 9) {
			t.Error("a cancelled request was signed")
		}
		if _, err := q.Sign(ctx, Request{Class: schedule.Issuance}, digestOf(9), crypto.SHA256); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an ended context: err = %v", err)
		}
	})
}

// TestCancelRace: a slot handed over in the moment of cancellation is passed on.
func TestCancelRace(t *testing.T) {
	key := newCard(t, 0)
	q := key.queue(t, 1, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i+j)%7)*10*time.Microsecond)
				q.Sign(ctx, Request{Class: schedule.Class(j % 4)}, digestOf(0), crypto.SHA256)
				cancel()
			}
		})
	}
	wg.Wait()
	if s := q.Stats(); s.Running != 0 || s.Waiting != [schedule.Classes]int{} || key.most != 1 {
		t.Errorf("after all: %+v, %d at once", s, key.most)
	}
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, time.Second).queue(t, 1, 2)
		for range 3 {
			go sign(q, schedule.OCSP)
		}
		synctest.Wait()
		if err := sign(q, schedule.OCSP); !errors.Is(err, ErrFull) {
			t.Errorf("err = %v, want ErrFull", err)
		}
		// A full class doesn't shut out another.
		if err := sign(q, schedule.Issuance); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := sign(q, schedule.OCSP); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Second)
		q := key.queue(t, 4, 0)
		start := time.Now()
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() { sign(q, schedule.Issuance) })
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second || key.most != 4 {
			t.Errorf("12 signatures took %v, %d at once", took, key.most)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, 200*time.Millisecond).queue(t, 1, 0)
		if w := q.Wait(Request{}); w > time.Second {
			t.Errorf("unmeasured: %v", w)
		}
		sign(q, schedule.Issuance)
		if w := q.Wait(Request{}); w != 200*time.Millisecond {
			t.Errorf("idle: %v, want one signature", w)
		}
		for range 50 {
			go sign(q, schedule.Issuance)
		}
		for range 20 {
			go sign(q, schedule.OCSP)
		}
		synctest.Wait()
		for _, c := range []schedule.Class{schedule.Issuance, schedule.OCSP} {
			guess, start := q.Wait(Request{Class: c}), time.Now()
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
		q := key.queue(t, 1, 0)
		for range 5 {
			sign(q, schedule.Issuance)
		}
		key.takes = 500 * time.Millisecond
		for range 25 {
			sign(q, schedule.Issuance)
		}
		if m := q.Stats().Mean; m < 450*time.Millisecond {
			t.Errorf("mean is %v", m)
		}
	})
}

// TestAs: the standard library signs a schedule.CRL through the queue, in its class.
func TestAs(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q := newQueue(t, QueueOptions{}, &Signer{Signer: key})
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte("id"), PublicKey: &key.PublicKey}
	crl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Unix(1, 0), NextUpdate: time.Unix(2, 0)}
	der, err := x509.CreateRevocationList(rand.Reader, crl, issuer, q.As(t.Context(), Request{Class: schedule.CRL}))
	if err != nil || len(der) == 0 || q.Stats().Signed[schedule.CRL] != 1 {
		t.Errorf("%d bytes, %v, %+v", len(der), err, q.Stats())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x509.CreateRevocationList(rand.Reader, crl, issuer, q.As(ctx, Request{Class: schedule.CRL})); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestFailuresGiveTheSlotBack(t *testing.T) {
	key := newCard(t, 0)
	q := key.queue(t, 1, 0)
	key.fail = errors.New("card pulled out")
	if err := sign(q, schedule.CRL); !errors.Is(err, key.fail) {
		t.Errorf("err = %v", err)
	}
	key.fail = nil
	if err := sign(q, schedule.CRL); err != nil {
		t.Error(err)
	}
	if s := q.Stats(); s.Failed != 1 || s.Signed[schedule.CRL] != 1 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
	if err := sign(q, 7); err == nil {
		t.Error("an unknown class was signed")
	}
	bad := newQueue(t, QueueOptions{}, &Signer{Signer: panicky{key}})
	func() {
		defer func() { recover() }()
		sign(bad, schedule.CRL)
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
	q := newQueue(t, QueueOptions{}, &Signer{Signer: key, Parallel: 2})
	digest := sha256.Sum256([]byte("x"))
	a, err := q.Sign(t.Context(), Request{Class: schedule.Issuance}, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := q.Sign(t.Context(), Request{Class: schedule.Issuance}, digest[:], crypto.SHA256)
	if !slices.Equal(a, b) || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], a) {
		t.Error("two signatures differ, or don't verify")
	}
}

// TestFairByClient: in a storm of one client another waits for one turn.
func TestFairByClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, time.Second).queue(t, 1, 0)
		for _, c := range []schedule.Class{schedule.Issuance, schedule.Renewal} {
			for range 500 {
				go q.Sign(t.Context(), Request{Class: c, Directory: "web", Client: "storm"}, digestOf(0), crypto.SHA256)
			}
		}
		synctest.Wait()
		start := time.Now()
		if _, err := q.Sign(t.Context(), Request{Directory: "web", Client: "quiet"}, digestOf(0), crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		// The one under way, the storm's next, a renewal, its own.
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Hour)
	})
}

// TestNearExpiryFirst: of renewals that wait, those go first whose certificates
// would end soon after their turn, if they waited for it.
func TestNearExpiryFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newCard(t, time.Second)
		q := key.queue(t, 1, 0)
		renew := func(id byte, left time.Duration) {
			r := Request{Class: schedule.Renewal}
			if left != 0 {
				r.Ends = time.Now().Add(left)
			}
			go q.Sign(t.Context(), r, digestOf(id), crypto.SHA256)
			synctest.Wait()
		}
		sign(q, schedule.Issuance) // so that the rate is known
		renew(0, 0)
		for range 1200 { // 20 minutes of work
			renew(1, 24*time.Hour)
		}
		renew(2, 75*time.Minute) // within the hour after its turn
		renew(3, 25*time.Minute) // within ten minutes after its turn
		renew(4, 5*time.Minute)
		renew(5, 75*time.Minute)
		renew(6, 0)
		renew(7, -time.Hour) // ended: as urgent as can be
		time.Sleep(time.Hour)
		synctest.Wait()
		var order []byte
		for _, id := range key.signed() {
			if len(order) == 0 || id != order[len(order)-1] {
				order = append(order, id)
			}
		}
		if want := []byte{0, 3, 4, 7, 2, 5, 1, 6}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
	})
}

// TestCounts: what metrics are made of.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newCard(t, time.Second).queue(t, 1, 0)
		for range 4 {
			go sign(q, schedule.OCSP)
		}
		synctest.Wait()
		if s := q.Stats(); s.Running != 1 || s.Waiting != [schedule.Classes]int{schedule.OCSP: 3} || s.Parallel != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		s := q.Stats()
		if s.Signed[schedule.OCSP] != 4 || s.WaitTotal != [schedule.Classes]time.Duration{schedule.OCSP: 6 * time.Second} ||
			s.Busy != 4*time.Second || s.Mean != time.Second || s.Failed != 0 || len(s.Tokens) != 1 || s.Tokens[0].URI != "file:card" {
			t.Errorf("%+v", s)
		}
		if r := q.Rate(); r < .999 || r > 1.001 {
			t.Errorf("rate %v", r)
		}
	})
}

// TestRateOfOneByOne: a token that takes many requests at once but works on
// them one after another is seen to make no more than it does.
func TestRateOfOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, QueueOptions{}, &Signer{Signer: &oneByOne{newCard(t, 100*time.Millisecond), make(chan struct{}, 1)}, Parallel: 8})
		for range 400 {
			go sign(q, schedule.Issuance)
		}
		time.Sleep(20*time.Second + 50*time.Millisecond)
		if r := q.Rate(); r < 8 || r > 12 { // by the time of a signature it would be 1.25, by that of an idle token 80
			t.Errorf("rate %v, it makes 10", r)
		}
		if w := q.Wait(Request{}); w < 17*time.Second || w > 24*time.Second {
			t.Errorf("Wait = %v; 200 are left, 20 s", w)
		}
		time.Sleep(time.Minute)
	})
}

type oneByOne struct {
	*card
	one chan struct{}
}

func (o *oneByOne) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	o.one <- struct{}{}
	defer func() { <-o.one }()
	return o.card.Sign(r, digest, opts)
}

package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

var errPulled = errors.New("the card was pulled out")

// pluggable is a key on a token that can be pulled out, put back and made to
// hang. Several may hold one key.
type pluggable struct {
	*ecdsa.PrivateKey
	takes time.Duration

	mu         sync.Mutex
	gone       error         // what Sign and Reopen answer
	refuses    error         // what Sign answers though all is well
	hang       chan struct{} // until it is closed no signature ends
	flaps      bool          // Reopen works, and then Sign doesn't
	open       bool          // logged in
	signing    int
	most       int
	signs      int
	opens      []time.Time
	overlap    bool // Reopen and Sign at once
	closes     int
	closedBusy bool // Close and Sign at once
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (k *pluggable) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	k.signs++
	k.signing++
	k.most = max(k.most, k.signing)
	hang := k.hang
	k.mu.Unlock()
	if hang != nil {
		<-hang
	}
	time.Sleep(k.takes)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.signing--
	switch {
	case k.refuses != nil:
		return nil, k.refuses
	case k.gone != nil:
		k.open = false
		return nil, k.gone
	case !k.open || k.flaps:
		return nil, errors.New("not logged in")
	}
	return []byte(fmt.Sprint("signature of ", digest[0])), nil
}

func (k *pluggable) Reopen(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opens = append(k.opens, time.Now())
	k.overlap = k.overlap || k.signing > 0
	k.open = k.gone == nil
	return k.gone
}

func (k *pluggable) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closes++
	k.closedBusy = k.closedBusy || k.signing > 0
	return nil
}

// pull makes the token fail from now on; nil puts it back.
func (k *pluggable) pull(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = why
}

func (k *pluggable) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// tokens makes n tokens that hold one key, with the queue of all.
func tokens(t testing.TB, o QueueOptions, n, parallel int, takes time.Duration) (*Queue, []*pluggable) {
	t.Helper()
	key := ecKey(t)
	var all []*pluggable
	var signers []*Signer
	for i := range n {
		k := &pluggable{PrivateKey: key, takes: takes, open: true}
		all = append(all, k)
		signers = append(signers, &Signer{Signer: k, URI: fmt.Sprintf("pkcs11:serial=%d", i), Parallel: parallel})
	}
	return newQueue(t, o, signers...), all
}

// ask starts a signature and returns where its error will be.
func ask(q *Queue, c schedule.Class) chan error {
	answer := make(chan error, 1)
	go func() {
		answer <- sign(q, c)
		close(answer) // who looks again sees no error
	}()
	return answer
}

// What a token can't sign, like a long list with Ed25519 in a card, takes no
// token out of turn and is tried on no other.
func TestBlamesInput(t *testing.T) {
	for _, why := range []error{pkcs11.ErrInput, yubikey.ErrInput} {
		q, k := tokens(t, QueueOptions{}, 2, 1, 0)
		for _, k := range k {
			k.refuses = fmt.Errorf("some token: %w: too long", why)
		}
		if err := sign(q, schedule.CRL); !errors.Is(err, why) || errors.Is(err, ErrAway) {
			t.Errorf("err = %v", err)
		}
		if s := q.Stats(); s.Failed != 1 || s.Parallel != 2 || s.Running != 0 || k[0].signs+k[1].signs != 1 {
			t.Errorf("%+v", s)
		}
		for _, k := range k {
			k.refuses = nil
		}
		if err := sign(q, schedule.Issuance); err != nil {
			t.Error(err)
		}
	}
}

// TestPulled: when the only token goes, everybody who waits is told at once,
// and so is who comes; when it is back it is found by itself.
func TestPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		q, k := tokens(t, QueueOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, 1, 1, 200*time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		var all []chan error
		for c := range schedule.Classes {
			for range 3 {
				all = append(all, ask(q, c))
			}
		}
		time.Sleep(100 * time.Millisecond)
		k[0].pull(errPulled)
		start := time.Now()
		for _, a := range all {
			if err := <-a; !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), errPulled.Error()) || !strings.Contains(err.Error(), "serial=0") && !errors.Is(err, errPulled) {
				t.Errorf("err = %v", err)
			}
		}
		if err := sign(q, schedule.OCSP); !errors.Is(err, ErrAway) {
			t.Errorf("err = %v, want ErrAway", err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("they waited %v", took)
		}
		s := q.Stats()
		if q.Usable() || !strings.Contains(s.Away, "pulled out") || s.Tokens[0].Away == "" || !s.Tokens[0].Since.Equal(time.Now()) ||
			s.Waiting != [schedule.Classes]int{} || s.Running != 0 || s.Parallel != 0 || s.Failed != 1 || q.Rate() != 0 {
			t.Errorf("%+v", s)
		}
		if w := q.Wait(Request{}); w != awayWait {
			t.Errorf("Wait = %v", w)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := sign(q, schedule.OCSP); !errors.Is(err, ErrAway) || k[0].signs != 1 {
			t.Errorf("err = %v after %d signatures", err, k[0].signs)
		}
		k[0].pull(nil)
		time.Sleep(30 * time.Second)
		if err := sign(q, schedule.OCSP); err != nil {
			t.Errorf("it is back, and: %v", err)
		}
		if s := q.Stats(); s.Away != "" || s.Tokens[0].Away != "" || s.Parallel != 1 {
			t.Errorf("%+v", s)
		}
		if n, back := strings.Count(log.String(), "taken out of turn"), strings.Count(log.String(), "is back"); n != 1 || back != 1 || !strings.Contains(log.String(), "pkcs11:serial=0") {
			t.Errorf("the log:\n%s", log.String())
		}
		stop()
	})
}

// telling is a token that can say whether it is there.
type telling struct {
	*pluggable
	asked []time.Time
}

func (k *telling) Probe() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, time.Now())
	if k.gone != nil {
		k.open = false
	}
	return k.gone
}

// TestPulledWhileIdle: a token that was pulled while nobody signs is out of
// turn within seconds, and one at work isn't disturbed by questions.
func TestPulledWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &telling{pluggable: &pluggable{PrivateKey: ecKey(t), takes: 30 * time.Second, open: true}}
		q := newQueue(t, QueueOptions{Stuck: time.Hour}, &Signer{Signer: k, URI: "pkcs11:serial=0", Parallel: 1})
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		begun := time.Now()
		if err := sign(q, schedule.Issuance); err != nil {
			t.Fatal(err)
		}
		k.mu.Lock()
		asked := slices.Clone(k.asked)
		k.mu.Unlock()
		for _, at := range asked {
			if at.Before(begun.Add(30 * time.Second)) {
				t.Errorf("asked %v into a signature of 30 s", at.Sub(begun))
			}
		}
		k.pull(errPulled)
		time.Sleep(probeEvery + time.Second)
		if q.Usable() || !strings.Contains(q.Stats().Away, errPulled.Error()) {
			t.Errorf("not noticed: %+v", q.Stats())
		}
		k.pull(nil)
		time.Sleep(reopenMost + time.Second)
		if !q.Usable() {
			t.Errorf("not back: %+v", q.Stats())
		}
		stop()
		synctest.Wait()
	})
}

// TestOthersTakeOver: pulling one token of two loses no signature, and nobody
// waits longer than the one token needs.
func TestOthersTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 2, 1, time.Second)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		var all []chan error
		for range 20 {
			all = append(all, ask(q, schedule.Issuance))
			synctest.Wait()
		}
		start := time.Now()
		time.Sleep(3500 * time.Millisecond) // six are signed, two under way
		k[1].pull(errPulled)
		for _, a := range all[6:8] { // one of them failed, and is done again next
			if err := <-a; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 6*time.Second { // at 4 s the other took its next
			t.Errorf("the failed one is done again after %v, not next", took)
		}
		for _, a := range all[:19] {
			if err := <-a; err != nil {
				t.Error(err)
			}
		}
		if err := <-all[19]; err != nil || time.Since(start) != 17*time.Second {
			t.Errorf("the last took %v: %v", time.Since(start), err)
		}
		if s := q.Stats(); s.Signed[schedule.Issuance] != 20 || s.Failed != 1 || s.Away != "" || s.Parallel != 1 || s.Tokens[1].Away == "" {
			t.Errorf("%+v", s)
		}
		k[1].pull(nil)
		time.Sleep(time.Minute)
		start = time.Now()
		for i := range all {
			all[i] = ask(q, schedule.Issuance)
		}
		for _, a := range all {
			if err := <-a; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("both tokens again: 20 signatures took %v", took)
		}
		stop()
	})
}

// TestBackWhileOthersWait: a token that comes back takes its part of those who
// wait, at once.
func TestBackWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 2, 1, time.Second)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		k[1].pull(errPulled)
		start := time.Now()
		var all []chan error
		for range 21 {
			all = append(all, ask(q, schedule.Issuance))
		}
		time.Sleep(1500 * time.Millisecond)
		k[1].pull(nil) // opened again at 2 s
		for _, a := range all {
			if err := <-a; err != nil {
				t.Error(err)
			}
		}
		// One alone makes 2 by then, both the other 19 in 10 s.
		if took := time.Since(start); took != 12*time.Second {
			t.Errorf("21 signatures took %v", took)
		}
		stop()
	})
}

// TestReopenPauses: tries come after 1, 2, 4, 5, 5 … s, and again from 1 s once
// the token has worked.
func TestReopenPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 1, 1, 0)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		pauses := func(since time.Time) (p []time.Duration) {
			k[0].set(func() {
				for _, at := range k[0].opens {
					p = append(p, at.Sub(since)/time.Second)
					since = at
				}
				k[0].opens = nil
			})
			return p
		}
		k[0].pull(errPulled)
		start := time.Now()
		sign(q, schedule.CRL)
		time.Sleep(23 * time.Second)
		if got := pauses(start); !slices.Equal(got, []time.Duration{1, 2, 4, 5, 5, 5}) {
			t.Errorf("pauses of %d s", got)
		}
		k[0].pull(nil)
		time.Sleep(30 * time.Second)
		if err := sign(q, schedule.CRL); err != nil {
			t.Error(err)
		}
		pauses(start)
		k[0].pull(errPulled)
		start = time.Now()
		sign(q, schedule.CRL)
		time.Sleep(4 * time.Second)
		if got := pauses(start); !slices.Equal(got, []time.Duration{1, 2}) {
			t.Errorf("pauses of %d s", got)
		}
		k[0].pull(nil)
		time.Sleep(30 * time.Second)

		// One that opens and then fails is tried ever less often, and each
		// time costs one caller.
		if err := sign(q, schedule.CRL); err != nil {
			t.Error(err)
		}
		k[0].set(func() { k[0].flaps = true })
		sign(q, schedule.CRL)
		pauses(start)
		for range 100 {
			time.Sleep(time.Second)
			sign(q, schedule.CRL)
		}
		if n := len(pauses(start)); n < 5 || n > 8 {
			t.Errorf("a token that fails at once was opened %d times in 100 s", n)
		}
		stop()
	})
}

// TestHangs: a signature that doesn't end is given up, its token gets no more
// until the driver answers, and another signs.
func TestHangs(t *testing.T) {
	for _, n := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			q, k := tokens(t, QueueOptions{Stuck: 10 * time.Second}, n, 1, time.Millisecond)
			ctx, stop := context.WithCancel(t.Context())
			go q.Watch(ctx)
			sign(q, schedule.OCSP)
			hang := make(chan struct{})
			k[0].set(func() { k[0].hang = hang })
			start := time.Now()
			first, second := ask(q, schedule.Issuance), ask(q, schedule.Issuance)
			for _, a := range []chan error{first, second} {
				err := <-a
				if n == 1 && (!errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "serial=0")) || n == 2 && err != nil {
					t.Errorf("%d tokens: %v", n, err)
				}
			}
			if took := time.Since(start).Truncate(10 * time.Millisecond); took != 10*time.Second {
				t.Errorf("%d tokens: took %v", n, took)
			}
			s := q.Stats()
			if s.Tokens[0].Away == "" || (s.Away == "") != (n == 2) || s.Failed != 1 {
				t.Errorf("%d tokens: %+v", n, s)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(k[0].opens) > 0 {
				t.Error("it was opened again while it was at a signature")
			}
			k[0].set(func() { k[0].hang = nil })
			close(hang)
			time.Sleep(time.Second)
			if s := q.Stats(); s.Tokens[0].Away != "" || s.Running != 0 || s.Failed != 1 || s.Mean > time.Second {
				t.Errorf("after it answered: %+v", s)
			}
			// The late answer counts for nobody.
			if s := q.Stats(); s.Signed[schedule.Issuance] != uint64(2*(n-1)) {
				t.Errorf("%d tokens: %d signed", n, s.Signed[schedule.Issuance])
			}
			if err := sign(q, schedule.OCSP); err != nil {
				t.Error(err)
			}
			stop()
		})
	}
}

// TestHangsThenFails: a late error makes the token one to be opened again.
func TestHangsThenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 1, 4, time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		hang := make(chan struct{})
		k[0].set(func() { k[0].hang = hang })
		var all []chan error
		for range 6 {
			all = append(all, ask(q, schedule.Issuance))
		}
		for _, a := range all {
			if err := <-a; !errors.Is(err, ErrAway) {
				t.Errorf("err = %v", err)
			}
		}
		k[0].pull(errPulled)
		close(hang)
		time.Sleep(500 * time.Millisecond)
		if s := q.Stats(); s.Running != 0 || !strings.Contains(s.Away, "pulled out") {
			t.Errorf("%+v", s)
		}
		k[0].set(func() { k[0].gone, k[0].hang = nil, nil })
		time.Sleep(time.Second)
		if err := sign(q, schedule.OCSP); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// TestParallelToken: of a token's many signatures at once the first that fails
// takes it out of turn; it is opened again when the last is done.
func TestParallelToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 1, 8, 3*time.Second)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		var all []chan error
		for range 20 {
			all = append(all, ask(q, schedule.Issuance))
			time.Sleep(300 * time.Millisecond)
		}
		k[0].pull(errPulled)
		var failed int
		for _, a := range all {
			if err := <-a; errors.Is(err, ErrAway) {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		}
		k[0].pull(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if k[0].overlap || len(k[0].opens) == 0 || k[0].most != 8 || failed == 0 || failed == 20 {
			t.Errorf("opened at %v, %d at once, %d failed; while it signed: %v", k[0].opens, k[0].most, failed, k[0].overlap)
		}
		if err := sign(q, schedule.OCSP); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// TestTokensTryOnce: a request that every token refuses is tried once on each.
func TestTokensTryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 3, 1, time.Millisecond)
		refused := errors.New("CKR_MECHANISM_INVALID")
		for _, one := range k {
			one.pull(refused)
		}
		if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || !errors.Is(err, refused) {
			t.Errorf("err = %v", err)
		}
		synctest.Wait()
		for i, one := range k {
			if one.signs != 1 {
				t.Errorf("token %d was asked %d times", i, one.signs)
			}
		}
	})
}

// TestDigestLength: what no token could sign never reaches one, and takes none
// out of turn.
func TestDigestLength(t *testing.T) {
	q, k := tokens(t, QueueOptions{}, 1, 1, 0)
	if _, err := q.Sign(t.Context(), Request{}, make([]byte, 31), crypto.SHA256); err == nil || k[0].signs > 0 || !q.Usable() {
		t.Errorf("err = %v after %d signatures", err, k[0].signs)
	}
	if _, err := q.Sign(t.Context(), Request{}, []byte("Ed25519 signs the message"), crypto.Hash(0)); err != nil {
		t.Error(err)
	}
}

// TestKeysInMemoryStay: an error of a key in memory is the caller's to know.
func TestKeysInMemoryStay(t *testing.T) {
	key := newCard(t, 0)
	q := key.queue(t, 1, 0)
	key.fail = errPulled
	if err := sign(q, schedule.CRL); !errors.Is(err, errPulled) || errors.Is(err, ErrAway) || !q.Usable() {
		t.Errorf("err = %v, usable: %v", err, q.Usable())
	}
}

func TestNewQueueRefuses(t *testing.T) {
	a, b := &Signer{Signer: ecKey(t), URI: "file:a.key"}, &Signer{Signer: ecKey(t), URI: "file:b.key"}
	for name, c := range map[string]struct {
		o       QueueOptions
		signers []*Signer
		want    string
	}{
		"no signer":  {QueueOptions{}, nil, "needs a signer"},
		"two keys":   {QueueOptions{}, []*Signer{a, b}, "file:b.key holds another key than file:a.key"},
		"bad shares": {QueueOptions{Shares: schedule.Shares{1, 1, 1, 1}}, []*Signer{a}, "add up"},
	} {
		if _, err := NewQueue(c.o, c.signers...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDriverPanics: a panic on a token is that token's failure.
func TestDriverPanics(t *testing.T) {
	_, k := tokens(t, QueueOptions{}, 1, 1, 0)
	q := newQueue(t, QueueOptions{}, &Signer{Signer: panickyKey{k[0]}, URI: "pkcs11:"})
	if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "driver fault") {
		t.Errorf("err = %v", err)
	}
	if s := q.Stats(); s.Running != 0 || s.Away == "" {
		t.Errorf("%+v", s)
	}
}

type panickyKey struct{ *pluggable }

func (panickyKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("driver fault") }

// swapped is a token in whose place another may be put.
type swapped struct {
	*pluggable
	other *ecdsa.PrivateKey
}

func (s *swapped) Public() crypto.PublicKey {
	if s.other != nil {
		return s.other.Public()
	}
	return s.pluggable.Public()
}

// TestAnotherKeyCameBack: a token that returns with another key stays out.
func TestAnotherKeyCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := tokens(t, QueueOptions{}, 1, 1, 0)
		s := &swapped{pluggable: k[0]}
		q := newQueue(t, QueueOptions{}, &Signer{Signer: s, URI: "pkcs11:"})
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		k[0].pull(errPulled)
		sign(q, schedule.CRL)
		k[0].set(func() { k[0].gone, s.other = nil, ecKey(t) })
		time.Sleep(time.Minute)
		if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "another key") {
			t.Errorf("err = %v", err)
		}
		stop()
	})
}

// slowOpen is a token whose driver hangs when it is opened.
type slowOpen struct {
	*pluggable
	until chan struct{}
}

func (s *slowOpen) Reopen(context.Context) error { <-s.until; return nil }

// TestWatchEnds: even while a driver hangs.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := tokens(t, QueueOptions{}, 1, 1, 0)
		hang := make(chan struct{})
		q := newQueue(t, QueueOptions{}, &Signer{Signer: &slowOpen{k[0], hang}, URI: "pkcs11:"})
		k[0].pull(errPulled)
		sign(q, schedule.CRL)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		start := time.Now()
		q.Watch(ctx)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("Watch ended after %v", took)
		}
		close(hang)
	})
}

// TestComesLater: a token that isn't there yet at the start is used once it
// comes, and before that nobody tries it.
func TestComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k := tokens(t, QueueOptions{}, 1, 1, time.Millisecond)
		k[0].set(func() { k[0].open, k[0].gone = false, errPulled })
		q := newQueue(t, QueueOptions{}, &Signer{Signer: k[0], URI: "pkcs11:", Away: errors.New("no such token yet")})
		if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "no such token yet") || k[0].signs > 0 {
			t.Errorf("err = %v after %d signatures", err, k[0].signs)
		}
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		time.Sleep(10 * time.Second)
		if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "pulled out") {
			t.Errorf("err = %v", err)
		}
		k[0].pull(nil)
		time.Sleep(30 * time.Second)
		if err := sign(q, schedule.CRL); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// TestClose: tokens are given back, each when its signature is done.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 3, 1, time.Second)
		var all []chan error
		for range 2 {
			all = append(all, ask(q, schedule.CRL))
		}
		time.Sleep(500 * time.Millisecond)
		for range 3 { // one starts, two wait
			all = append(all, ask(q, schedule.CRL))
		}
		synctest.Wait()
		q.Close()
		q.Close()
		closed := 0
		for i, a := range all {
			if err := <-a; errors.Is(err, ErrAway) {
				closed++
			} else if err != nil {
				t.Errorf("signature %d: %v", i, err)
			}
		}
		time.Sleep(time.Second)
		if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) || closed != 2 {
			t.Errorf("closed, and: %v; %d were told", err, closed)
		}
		synctest.Wait()
		for i, one := range k {
			if one.closes != 1 || one.closedBusy {
				t.Errorf("token %d was closed %d times, at work: %v", i, one.closes, one.closedBusy)
			}
		}
	})
	q := newCard(t, 0).queue(t, 1, 0)
	q.Close()
	if err := sign(q, schedule.CRL); !errors.Is(err, ErrAway) {
		t.Errorf("a closed key in memory: %v", err)
	}
}

// TestRough: tokens come and go while many ask and some lose patience; nobody
// is forgotten, nothing is signed twice at once, and all is quiet at the end.
func TestRough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{Depth: 50, Stuck: 5 * time.Second}, 3, 2, 10*time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		go q.Watch(ctx)
		random := mathrand.New(mathrand.NewPCG(1, 2))
		var all sync.WaitGroup
		var mu sync.Mutex
		outcomes := map[string]int{}
		for i := range 3000 {
			time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
			if i%100 == 0 {
				one := k[random.IntN(3)]
				why := errPulled
				if random.IntN(2) == 0 {
					why = nil
				}
				one.pull(why)
			}
			patience := time.Duration(random.IntN(200)) * time.Millisecond
			r := Request{Class: schedule.Class(i % 4), Client: fmt.Sprint(i % 7), Ends: time.Now().Add(time.Hour)}
			r.Reservation = q.Reserve(r)
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				sig, err := q.Sign(ctx, r, digestOf(byte(i)), crypto.SHA256)
				outcome := "signed"
				switch {
				case err == nil && string(sig) != fmt.Sprint("signature of ", byte(i)):
					outcome = "another's signature"
				case errors.Is(err, ErrAway):
					outcome = "away"
				case errors.Is(err, ErrFull):
					outcome = "full"
				case errors.Is(err, context.DeadlineExceeded):
					outcome = "impatient"
				case err != nil:
					outcome = err.Error()
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			})
		}
		all.Wait()
		for _, one := range k {
			one.pull(nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if outcomes["signed"] < 500 || outcomes["impatient"] == 0 || outcomes["signed"]+outcomes["away"]+outcomes["full"]+outcomes["impatient"] != 3000 {
			t.Errorf("%v", outcomes)
		}
		for _, one := range k {
			if one.most > 2 || one.overlap {
				t.Errorf("%d at once, opened while it signed: %v", one.most, one.overlap)
			}
		}
		s := q.Stats()
		if s.Running != 0 || s.Waiting != [schedule.Classes]int{} || s.Away != "" || s.Parallel != 6 || q.promised() != 0 || q.waiting != 0 {
			t.Errorf("%+v", s)
		}
		if err := sign(q, schedule.CRL); err != nil {
			t.Error(err)
		}
		stop()
	})
}

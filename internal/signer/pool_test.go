package signer

import (
	"context"
	"crypto"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// chosen signs with the key that the pool chooses.
func chosen(ctx context.Context, p *Pool, queues []*Queue) error {
	place, res := p.Choose(Request{}, nil)
	if place < 0 {
		return ErrAway
	}
	_, err := queues[place].Sign(ctx, Request{Reservation: res}, digestOf(0), crypto.SHA256)
	return err
}

// TestPoolTriesNewKeys: a key that was never measured is tried once, and not
// flooded while it is at its first signature.
func TestPoolTriesNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, slow := newCard(t, time.Millisecond).queue(t, 1, 0), newCard(t, time.Second).queue(t, 1, 0)
		sign(fast, schedule.Issuance)
		queues := []*Queue{fast, slow}
		p := NewPool(fast, slow)
		for range 100 {
			go chosen(t.Context(), p, queues)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		if s := slow.Stats(); s.Signed[schedule.Issuance] != 1 || s.Mean != time.Second {
			t.Errorf("the slow key signed %d times", s.Signed[schedule.Issuance])
		}
	})
}

// cards makes n measured queues of a card each.
func cards(t testing.TB, n int, takes time.Duration) (*Pool, []*Queue) {
	var queues []*Queue
	var keys []Candidate
	for range n {
		q := newCard(t, takes).queue(t, 1, 0)
		if err := sign(q, schedule.CRL); err != nil {
			t.Fatal(err)
		}
		queues, keys = append(queues, q), append(keys, q)
	}
	return NewPool(keys...), queues
}

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, queues := cards(t, 3, 200*time.Millisecond)
		count := [3]int{}
		for range 30 { // nothing is signed meanwhile: equals take turns
			place, res := p.Choose(Request{}, nil)
			count[place]++
			res.Cancel()
		}
		if count != [3]int{10, 10, 10} {
			t.Errorf("equal keys were chosen %v times", count)
		}
		for range 2 {
			go sign(queues[0], schedule.Issuance)
		}
		go sign(queues[1], schedule.Issuance)
		synctest.Wait()
		choose := func(usable func(int) bool) int {
			place, res := p.Choose(Request{}, usable)
			res.Cancel()
			return place
		}
		for range 6 {
			if got := choose(nil); got != 2 {
				t.Errorf("chose %d, not the idle key", got)
			}
			if got := choose(func(i int) bool { return i != 2 }); got != 1 {
				t.Errorf("chose %d, not the shorter queue", got)
			}
		}
		if w := p.Wait(Request{}); w != 200*time.Millisecond {
			t.Errorf("the pool's wait is %v", w)
		}
		if r := p.Rate(); r < 14.99 || r > 15.01 {
			t.Errorf("the pool's rate is %v", r)
		}
		if got := choose(func(int) bool { return false }); got != -1 {
			t.Errorf("chose %d of none", got)
		}
		time.Sleep(time.Second)
	})
	if got, res := NewPool().Choose(Request{}, nil); got != -1 || res != nil || NewPool().Wait(Request{}) != 0 {
		t.Errorf("an empty pool chose %d", got)
	}
}

// TestBurstSpreads: many who choose before the first of them signs are spread
// by the keys' speeds, and leave nothing behind.
func TestBurstSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, slow := newCard(t, 100*time.Millisecond).queue(t, 1, 0), newCard(t, 400*time.Millisecond).queue(t, 1, 0)
		sign(fast, schedule.Issuance)
		sign(slow, schedule.Issuance)
		queues := []*Queue{fast, slow}
		p := NewPool(fast, slow)
		var count [2]int
		var reserved []*Reservation
		for range 100 {
			place, res := p.Choose(Request{}, nil)
			count[place]++
			reserved = append(reserved, res)
		}
		if count[0] < 78 || count[0] > 82 {
			t.Errorf("a key four times as fast got %v of 100", count)
		}
		if w := p.Wait(Request{}); w < 7*time.Second || w > 9*time.Second {
			t.Errorf("Wait = %v", w)
		}
		start := time.Now()
		done := make(chan error, 100)
		for _, res := range reserved {
			if w := res.Wait(); w < 7*time.Second || w > 9*time.Second { // it would be the last
				t.Fatalf("a reservation's Wait = %v", w)
			}
			q := queues[0]
			if res.at == holder(slow) {
				q = slow
			}
			go func() {
				_, err := q.Sign(t.Context(), Request{Reservation: res}, digestOf(0), crypto.SHA256)
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 8500*time.Millisecond {
			t.Errorf("100 signatures took %v, both together need 8 s", took)
		}
		for _, res := range reserved {
			res.Cancel() // used up: nothing happens
			if res.Wait() != 0 {
				t.Error("a used reservation waits")
			}
		}
		if fast.promised() != 0 || slow.promised() != 0 {
			t.Errorf("%d and %d places are promised still", fast.promised(), slow.promised())
		}
	})
}

// TestReservationEnds: every way out of Sign uses it up, and one for another
// key is given back there.
func TestReservationEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, queues := cards(t, 2, time.Second)
		a, b := queues[0], queues[1]
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, f := range map[string]func(res *Reservation){
			"signed": func(res *Reservation) { a.Sign(t.Context(), Request{Reservation: res}, digestOf(0), crypto.SHA256) },
			"twice": func(res *Reservation) {
				a.Sign(t.Context(), Request{Reservation: res}, digestOf(0), crypto.SHA256)
				res.Cancel()
			},
			"context": func(res *Reservation) { a.Sign(ended, Request{Reservation: res}, digestOf(0), crypto.SHA256) },
			"bad class": func(res *Reservation) {
				a.Sign(t.Context(), Request{Class: 9, Reservation: res}, digestOf(0), crypto.SHA256)
			},
			"bad digest":  func(res *Reservation) { a.Sign(t.Context(), Request{Reservation: res}, nil, crypto.SHA256) },
			"another key": func(res *Reservation) { b.Sign(t.Context(), Request{Reservation: res}, digestOf(0), crypto.SHA256) },
			"cancel":      func(res *Reservation) { res.Cancel(); res.Cancel() },
			"another name": func(res *Reservation) {
				a.Sign(t.Context(), Request{Class: schedule.CRL, Reservation: res}, digestOf(0), crypto.SHA256)
			},
		} {
			res := a.Reserve(Request{Class: schedule.Renewal})
			if a.promised() != 1 {
				t.Errorf("%s: %d promised", name, a.promised())
			}
			f(res)
			if a.promised() != 0 || b.promised() != 0 || a.reserved != [schedule.Classes]int{} {
				t.Errorf("%s: %d and %d promised after it", name, a.promised(), b.promised())
			}
		}
		var none *Reservation
		none.Cancel()
		if none.Wait() != 0 {
			t.Error("no reservation waits")
		}
	})
}

// TestReservationWait: while its turn is to come it tells how long, truly.
func TestReservationWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, queues := cards(t, 1, 200*time.Millisecond)
		for range 50 {
			go sign(queues[0], schedule.Issuance)
		}
		synctest.Wait()
		_, res := p.Choose(Request{}, nil)
		go queues[0].Sign(t.Context(), Request{Reservation: res}, digestOf(0), crypto.SHA256)
		synctest.Wait()
		for left := 10200 * time.Millisecond; left > 200*time.Millisecond; left -= 300 * time.Millisecond {
			if w := res.Wait(); (w - left).Abs() > time.Millisecond {
				t.Errorf("%v are left, Wait = %v", left, w)
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(time.Second)
	})
}

// TestPoolPassesAway: keys that are away aren't chosen, and come back; a full
// one is the last resort.
func TestPoolPassesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 1, 1, time.Second)
		other := newCard(t, time.Hour).queue(t, 1, 1)
		p := NewPool(q, other)
		k[0].pull(errPulled)
		sign(q, schedule.CRL)
		if place, res := p.Choose(Request{}, nil); place != 1 {
			t.Errorf("chose %d", place)
		} else {
			res.Cancel()
		}
		if place, _ := p.Choose(Request{}, func(i int) bool { return i == 0 }); place != -1 {
			t.Errorf("chose %d, which is away", place)
		}
		if w := NewPool(q).Wait(Request{}); w != awayWait || NewPool(q).Rate() != 0 {
			t.Errorf("Wait = %v", w)
		}
		go sign(other, schedule.Issuance)
		go sign(other, schedule.Issuance)
		synctest.Wait()
		third := newCard(t, 10*time.Hour).queue(t, 1, 0)
		go sign(third, schedule.Issuance)
		time.Sleep(time.Hour - time.Second)
		p = NewPool(q, other, third)
		if place, _ := p.Choose(Request{}, nil); place != 2 {
			t.Errorf("chose %d, the one with room is 2", place)
		}
		if place, _ := p.Choose(Request{}, func(i int) bool { return i != 2 }); place != 1 {
			t.Errorf("chose %d, the full one is better than none", place)
		}
		time.Sleep(24 * time.Hour)
	})
}

// TestRemote: a key elsewhere is chosen by what its replica reports, as long as
// it does.
func TestRemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRemote(ecKey(t).Public())
		if r.Usable() || r.Wait(Request{}) != awayWait {
			t.Error("usable before anything was heard")
		}
		state := State{At: time.Now(), Mean: 200 * time.Millisecond, Parallel: 1}
		r.Report(state)
		if !r.Usable() || r.Wait(Request{}) != 200*time.Millisecond {
			t.Errorf("idle: Wait = %v", r.Wait(Request{}))
		}
		time.Sleep(9 * time.Second)
		r.Report(state) // the same again, as it stands in the database
		if !r.Usable() {
			t.Error("not usable after 9 s")
		}
		time.Sleep(time.Second)
		if r.Usable() {
			t.Error("usable after 10 s")
		}
		state = State{At: time.Now(), Mean: 200 * time.Millisecond, Parallel: 2, Running: 2, Waiting: [schedule.Classes]int{60, 35, 100, 100}}
		r.Report(state)
		// Ahead: 60 of its class, 35 renewals, 4 OCSP, 1 CRL: 100 at 10 a second.
		if w := r.Wait(Request{}); w < 9500*time.Millisecond || w > 11*time.Second {
			t.Errorf("Wait = %v", w)
		}
		state.At, state.Away = time.Now().Add(time.Millisecond), "pulled out"
		r.Report(state)
		if r.Usable() {
			t.Error("usable though it is away")
		}
		state.At, state.Away, state.Parallel = time.Now().Add(2*time.Millisecond), "", 1<<40
		r.Report(state)
		if w := r.Wait(Request{}); w > time.Second {
			t.Errorf("Wait = %v", w)
		}
	})
}

// TestRemoteClocks: an old state in the database isn't believed, a replica
// whose clock is wrong is, from its second report on.
func TestRemoteClocks(t *testing.T) {
	for _, wrong := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := NewRemote(ecKey(t).Public())
			state := State{At: time.Now().Add(wrong), Mean: time.Second, Parallel: 1}
			r.Report(state)
			if r.Usable() {
				t.Errorf("a state of %v ago is believed", -wrong)
			}
			time.Sleep(2 * time.Second)
			state.At = state.At.Add(2 * time.Second)
			r.Report(state)
			if !r.Usable() {
				t.Error("a second report isn't believed")
			}
			state.At = state.At.Add(-time.Second) // out of order
			state.Away = "old news"
			r.Report(state)
			if !r.Usable() {
				t.Error("an older state took the place of a newer")
			}
		})
	}
}

// TestRemoteReservations: what was handed over counts until the holder has
// surely reported it.
func TestRemoteReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRemote(ecKey(t).Public())
		report := func(waiting int) {
			time.Sleep(time.Second)
			r.Report(State{At: time.Now(), Mean: time.Second, Parallel: 1, Waiting: [schedule.Classes]int{waiting}})
		}
		want := func(when string, w time.Duration) {
			t.Helper()
			if got := r.Wait(Request{}); got != w {
				t.Errorf("%s: Wait = %v, want %v", when, got, w)
			}
		}
		report(0)
		p := NewPool(r)
		_, a := p.Choose(Request{}, nil)
		_, b := p.Choose(Request{}, nil)
		want("two reserved", 3*time.Second)
		if a.Wait() != time.Second || b.Wait() != 2*time.Second {
			t.Errorf("the reservations' Wait = %v and %v; the later one waits for the first", a.Wait(), b.Wait())
		}
		b.Cancel()
		want("one cancelled", 2*time.Second)
		report(0) // the holder hasn't heard of it yet
		want("not heard of", 2*time.Second)
		report(1) // now it has: it isn't counted twice
		want("heard of", 2*time.Second)
		a.Cancel() // signed
		report(0)
		want("signed", time.Second)

		// What others wait for is served meanwhile, whether it was reported
		// or not.
		report(8)
		want("eight of others", 9*time.Second)
		time.Sleep(4 * time.Second)
		want("four of them served", 5*time.Second)
	})
}

// TestState: what a queue reports, its remote twin expects.
func TestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, k := tokens(t, QueueOptions{}, 2, 2, time.Second)
		for range 4 {
			go sign(q, schedule.Issuance)
		}
		time.Sleep(2 * time.Second)
		for range 44 {
			go sign(q, schedule.Issuance)
		}
		res := q.Reserve(Request{})
		synctest.Wait()
		s := q.State()
		if s.Parallel != 4 || s.Running != 4 || s.Waiting != [schedule.Classes]int{41} || s.Mean < time.Second || s.Mean > 1500*time.Millisecond || s.Away != "" {
			t.Errorf("%+v", s)
		}
		r := NewRemote(q.Public())
		r.Report(s)
		if here, there := q.Wait(Request{}), r.Wait(Request{}); (here - there).Abs() > time.Second {
			t.Errorf("here it takes %v, seen from there %v", here, there)
		}
		res.Cancel()
		for _, one := range k {
			one.pull(errPulled)
		}
		time.Sleep(time.Minute)
		if s := q.State(); s.Away == "" {
			t.Errorf("%+v", s)
		}
	})
}

package schedule

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// push lets n turns of one client wait.
func push(l *Line, n int, c Class, directory, client string) (turns []*Turn) {
	for range n {
		t := &Turn{Class: c, Directory: directory, Client: client}
		l.Push(t)
		turns = append(turns, t)
	}
	return turns
}

// drain pops all.
func drain(l *Line) (turns []*Turn) {
	for t := l.Pop(); t != nil; t = l.Pop() {
		turns = append(turns, t)
	}
	return turns
}

func TestOneClientInOrder(t *testing.T) {
	for c := range Classes {
		l := New(DefaultShares())
		want := push(l, 10, c, "web", "a")
		if got := drain(l); !slices.Equal(got, want) {
			t.Errorf("%v: not first come, first served", c)
		}
		if l.Pop() != nil || l.Len(c) != 0 {
			t.Errorf("%v: something is left", c)
		}
	}
}

// TestStorm: one client's thousands cost another one turn, and one directory's
// clients together cost another directory one turn.
func TestStorm(t *testing.T) {
	for c := range Classes {
		l := New(DefaultShares())
		push(l, 5000, c, "web", "storm")
		mine := push(l, 3, c, "web", "quiet")
		for i := range 50 {
			push(l, 10, c, "batch", fmt.Sprint("pod", i))
		}
		other := push(l, 1, c, "vpn", "laptop")[0]
		order := drain(l)
		if got := slices.Index(order, other); got > 2 {
			t.Errorf("%v: a directory of one waits for %d others", c, got)
		}
		for i, turn := range mine { // rounds of directory: 3, then 2
			if got := slices.Index(order, turn); got > 4*(i+1)+1 {
				t.Errorf("%v: the quiet client's turn %d is behind %d others", c, i, got)
			}
		}
	}
}

// TestRoundRobin: the whole order of a small line, by hand.
func TestRoundRobin(t *testing.T) {
	l := New(DefaultShares())
	for _, w := range []string{"A1a", "A1b", "A1c", "A2a", "A2b", "B3a", "B3b"} {
		l.Push(&Turn{Directory: w[:1], Client: w[1:2], Value: w})
	}
	var got []string
	for _, turn := range drain(l) {
		got = append(got, turn.Value.(string))
	}
	want := []string{"A1a", "B3a", "A2a", "B3b", "A1b", "A2b", "A1c"}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestNamesAreApart: the same client name in two directories is two clients.
func TestNamesAreApart(t *testing.T) {
	l := New(DefaultShares())
	push(l, 100, Issuance, "web", "10.0.0.1")
	other := push(l, 1, Issuance, "vpn", "10.0.0.1")[0]
	if at := slices.Index(drain(l), other); at > 1 {
		t.Errorf("served after %d", at)
	}
}

func TestUrgency(t *testing.T) {
	for _, c := range []struct {
		left, wait time.Duration
		want       int
	}{
		{-time.Hour, 0, 0}, // ended already
		{0, 0, 0},
		{10 * time.Minute, 0, 0},
		{10*time.Minute + 1, 0, 1},
		{30 * time.Minute, 20 * time.Minute, 0},
		{time.Hour, 0, 1},
		{time.Hour + 1, 0, 2},
		{2 * time.Hour, time.Hour, 1},
		{math.MaxInt64, time.Hour, 2},
		{math.MinInt64, time.Hour, 0},
	} {
		if got := Urgency(c.left, c.wait); got != c.want {
			t.Errorf("Urgency(%v, %v) = %d, want %d", c.left, c.wait, got, c.want)
		}
	}
}

// TestUrgentFirst: among renewals lower urgency is strictly first, whoever
// asks; other classes know none.
func TestUrgentFirst(t *testing.T) {
	for c := range Classes {
		l := New(DefaultShares())
		for i := range 300 {
			l.Push(&Turn{Class: c, Client: fmt.Sprint(i % 7), Urgency: 2 - i%5}) // -2 and 2 at the ends
		}
		order := drain(l)
		sorted := slices.IsSortedFunc(order, func(a, b *Turn) int { return max(a.Urgency, 0) - max(b.Urgency, 0) })
		if sorted != (c == Renewal) {
			t.Errorf("%v: sorted by urgency: %v", c, sorted)
		}
	}
}

// TestShares: while all want more than there is, each class gets its share to
// within 1 % of it; what one leaves the others get, the other certificates
// first.
func TestShares(t *testing.T) {
	odd := Shares{Issuance: .1, Renewal: .2, OCSP: .3, CRL: .4}
	for _, c := range []struct {
		shares Shares
		want   [Classes]float64 // 0: wants nothing
	}{
		{DefaultShares(), [Classes]float64{.60, .35, .04, .01}},
		{DefaultShares(), [Classes]float64{.95 / .99, 0, .04 / .99, 0}},
		{DefaultShares(), [Classes]float64{.95, 0, .04, .01}},
		{DefaultShares(), [Classes]float64{0, .95, .04, .01}},
		{DefaultShares(), [Classes]float64{.60 / .95, .35 / .95, 0, 0}},
		{DefaultShares(), [Classes]float64{0, 0, .8, .2}},
		{DefaultShares(), [Classes]float64{0, 0, 1, 0}},
		{odd, odd},
		{odd, [Classes]float64{1. / 6, 2. / 6, 3. / 6, 0}},
	} {
		l := New(c.shares)
		for class, want := range c.want {
			if want > 0 {
				push(l, 50, Class(class), "", "")
			}
		}
		const n = 100_000
		var got [Classes]float64
		for range n {
			turn := l.Pop()
			got[turn.Class] += 1. / n
			l.Push(turn)
		}
		for class, want := range c.want {
			if math.Abs(got[class]-want) > 0.01*want {
				t.Errorf("%v of %v: %v got %.5f of the key, want %.5f", c.want, c.shares, Class(class), got[class], want)
			}
		}
	}
}

// TestIdleEarnsNoCredit: a class that was quiet for long doesn't then shut the
// others out, and one that had the key to itself isn't punished.
func TestIdleEarnsNoCredit(t *testing.T) {
	l := New(DefaultShares())
	push(l, 2000, Issuance, "", "")
	for range 1000 {
		l.Pop()
	}
	push(l, 500, OCSP, "", "")
	count := 0
	for range 200 {
		if l.Pop().Class == OCSP {
			count++
		}
	}
	if count < 7 || count > 10 { // 4/99 of 200 is 8.1
		t.Errorf("OCSP got %d of 200 turns", count)
	}
	l = New(DefaultShares())
	push(l, 2000, OCSP, "", "")
	for range 1000 {
		l.Pop()
	}
	for range 20 { // one at a time: each waits for nobody that comes after it
		mine := push(l, 1, Issuance, "", "")[0]
		if l.Pop() != mine {
			t.Fatal("a certificate waits behind OCSP that had the key to itself")
		}
		l.Pop()
	}
}

func TestShareChecks(t *testing.T) {
	for _, c := range []struct {
		shares Shares
		ok     bool
	}{
		{DefaultShares(), true},
		{Shares{.25, .25, .25, .25}, true},
		{Shares{.6, .35, .04, .01 + 5e-7}, true},
		{Shares{.6, .35, .04, .02}, false},
		{Shares{.65, .35, 0, 0}, false},
		{Shares{1.1, -.1, 0, 0}, false},
		{Shares{math.NaN(), .35, .04, .01}, false},
		{Shares{math.Inf(1), .35, .04, .01}, false},
		{Shares{}, false},
	} {
		if err := c.shares.Check(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.shares, err)
		}
	}
	if got := fmt.Sprint(Issuance, Renewal, OCSP, CRL, Classes, Class(-1)); got != "issuance renewal ocsp crl Class(4) Class(-1)" {
		t.Error(got)
	}
}

// TestTwice: pushing one that waits, or removing one that doesn't, does nothing.
func TestTwice(t *testing.T) {
	l := New(Shares{}) // the defaults
	turn := push(l, 1, Renewal, "a", "b")[0]
	l.Push(turn)
	if l.Len(Renewal) != 1 || l.Pop() != turn || l.Pop() != nil {
		t.Error("pushed twice, it waits twice")
	}
	l.Remove(turn)
	l.Push(turn)
	l.Remove(turn)
	l.Remove(turn)
	if l.Len(Renewal) != 0 || l.Pop() != nil {
		t.Error("it waits still")
	}
}

// some draws a turn of a small world, so that they meet.
func some(t *rapid.T) *Turn {
	return &Turn{
		Class:     Class(rapid.IntRange(0, int(Classes)-1).Draw(t, "class")),
		Directory: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "directory"),
		Client:    rapid.SampledFrom([]string{"", "1", "2", "3", "4"}).Draw(t, "client"),
		Urgency:   rapid.IntRange(-1, 3).Draw(t, "urgency"),
	}
}

// TestEveryTurnOnce: whatever comes and goes, everybody who stays is served,
// once.
func TestEveryTurnOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New(DefaultShares())
		var waiting []*Turn
		gone := func(turn *Turn) {
			i := slices.Index(waiting, turn)
			if i < 0 {
				t.Fatal("served one that doesn't wait")
			}
			waiting = slices.Delete(waiting, i, i+1)
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				turn := some(t)
				l.Push(turn)
				waiting = append(waiting, turn)
			case 2:
				if turn := l.Pop(); turn != nil {
					gone(turn)
				} else if len(waiting) > 0 {
					t.Fatal("somebody waits and nobody is served")
				}
			case 3:
				if len(waiting) > 0 {
					turn := rapid.SampledFrom(waiting).Draw(t, "leaves")
					l.Remove(turn)
					gone(turn)
				}
			case 4:
				n := [Classes]int{}
				for _, turn := range waiting {
					n[turn.Class]++
				}
				for c := range Classes {
					if l.Len(c) != n[c] {
						t.Fatalf("%v: Len = %d, %d wait", c, l.Len(c), n[c])
					}
				}
			}
		}
		for _, turn := range drain(l) {
			gone(turn)
		}
		if len(waiting) > 0 {
			t.Fatalf("%d are never served", len(waiting))
		}
		for c := range l.waiting {
			for u := range l.waiting[c] {
				if root := &l.waiting[c][u]; len(root.byName) > 0 || root.turns != 0 || root.first != nil {
					t.Fatal("an empty line keeps something")
				}
			}
		}
	})
}

// TestRemovalLeavesNoTrace: of two lines in which the same happens, in one of
// which others come and leave before they are served, both serve alike.
func TestRemovalLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quiet, busy := New(DefaultShares()), New(DefaultShares())
		var fickle []*Turn
		pop := func() {
			for _, turn := range fickle { // they never get a turn
				busy.Remove(turn)
			}
			fickle = nil
			a, b := quiet.Pop(), busy.Pop()
			if (a == nil) != (b == nil) || a != nil && a.Value != b.Value {
				t.Fatalf("one line serves %v, the other %v", a, b)
			}
		}
		for i := range rapid.IntRange(0, 150).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				for _, turn := range fickle { // or they would come before it
					busy.Remove(turn)
				}
				fickle = nil
				turn := some(t)
				turn.Value = i
				twin := *turn
				quiet.Push(turn)
				busy.Push(&twin)
			case 2:
				turn := some(t)
				busy.Push(turn)
				fickle = append(fickle, turn)
			case 3:
				pop()
			}
		}
		for quiet.Len(Issuance)+quiet.Len(Renewal)+quiet.Len(OCSP)+quiet.Len(CRL) > 0 {
			pop()
		}
		pop()
	})
}

// TestAhead: if nobody comes or goes, as many are served before a turn as Ahead
// says, give or take one per other class; before it is pushed too.
func TestAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New(DefaultShares())
		for range rapid.IntRange(0, 100).Draw(t, "before") { // some history
			l.Push(some(t))
			if rapid.Bool().Draw(t, "pop") {
				l.Pop()
			}
		}
		mine := some(t)
		would := l.Ahead(mine)
		l.Push(mine)
		says := l.Ahead(mine)
		truth := slices.Index(drain(l), mine)
		if would != says {
			t.Fatalf("%d before it came, %d after", would, says)
		}
		if d := says - truth; d < -3 || d > 3 {
			t.Fatalf("%v waits behind %d, Ahead says %d", mine.Class, truth, says)
		}
	})
}

// TestNoStarvation: against a crowd that always wants more, in every class, a
// turn is served within the rounds that its place allows: as many as there are
// clients beside it in each directory, by the share of its class.
func TestNoStarvation(t *testing.T) {
	share := DefaultShares()
	for c := range Classes {
		l := New(share)
		const directories, clients = 4, 5
		for class := range Classes {
			for d := range directories {
				for k := range clients {
					push(l, 20, class, fmt.Sprint(d), fmt.Sprint(k))
				}
			}
		}
		for range 1000 {
			l.Push(l.Pop())
		}
		mine := &Turn{Class: c, Directory: "0", Client: "me", Urgency: 2}
		if c == Renewal {
			mine.Urgency = 0 // as the crowd is; urgency is strict
		}
		l.Push(mine)
		limit := int(float64(directories*(clients+1))/share[c]) + int(1/share[c]) + 4
		for i := 0; ; i++ {
			turn := l.Pop()
			if turn == mine {
				break
			}
			if i > limit {
				t.Errorf("%v: not served within %d turns", c, limit)
				break
			}
			l.Push(turn)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	for _, clients := range []int{1, 4096} {
		l := New(DefaultShares())
		for i := range 4096 {
			push(l, 1, Class(i%2), fmt.Sprint(i%3), fmt.Sprint(i%clients))
		}
		b.Run(fmt.Sprintf("push+pop/clients=%d", clients), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Push(l.Pop())
			}
		})
		b.Run(fmt.Sprintf("ahead/clients=%d", clients), func(b *testing.B) {
			b.ReportAllocs()
			mine := &Turn{Directory: "1", Client: "me"}
			for b.Loop() {
				l.Ahead(mine)
			}
		})
	}
}

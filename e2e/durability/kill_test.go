package durability

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// seeded returns a source of randomness, whose seed is printed and may be
// given as CHANCERY_SEED.
func seeded(t testing.TB) (*rand.Rand, uint64) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CHANCERY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CHANCERY_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1<<63)), seed
}

// requests are the kinds at which a moment is aimed.
var requests = []string{"newAccount", "newOrder", "challenge", "finalize", "finalize", "certificate"}

// moment waits for a random instant under load; every other one lies within
// milliseconds of a request of some kind, where the changes are.
func (l *load) moment(rng *rand.Rand) {
	time.Sleep(time.Duration(20+rng.IntN(200)) * time.Millisecond)
	if rng.IntN(2) == 0 {
		l.after(requests[rng.IntN(len(requests))])
		time.Sleep(time.Duration(rng.IntN(6000)) * time.Microsecond)
	}
}

func TestKillSQLite(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		killed(w, newServer(w, w.Path("ca"), ""), 30)
	})
}

func TestKillPostgres(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		killed(w, newServer(w, w.Path("ca"), pg.dsn()), 15)
	})
}

// killed kills the server under load, again and again, and looks each time
// whether what it had answered is still there.
func killed(w *harness.World, s *server, times int) {
	rng, seed := seeded(w)
	l := newLoad(w, s)
	l.start(6, seed)
	s.start()
	cut, starting := 0, time.Duration(0)
	for range times {
		l.resume()
		l.moment(rng)
		l.losing()
		s.kill()
		l.settle()
		for _, o := range l.orders {
			if o.told.Status == acme.StatusReady && len(o.asked) > 0 {
				cut++
			}
		}
		if rng.IntN(4) == 0 { // and once more, while it starts
			s.spawn()
			time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
			s.kill()
		}
		begun := time.Now()
		s.start()
		starting += time.Since(begun)
		l.verify(false)
		if w.Failed() {
			break
		}
	}
	l.finish()
	l.compare()
	w.Logf("%d accounts, %d orders; finalize requests cut off: %d; a start takes %v",
		len(l.accounts), len(l.orders), cut, starting/time.Duration(times))
}

package schedule

import "time"

// Slots adds up the places where one key makes signatures (a card has one, a
// key in memory one per processor, a key on several tokens those of all) to
// say when the turns come. The zero value has none.
type Slots struct {
	n, idle int
	rate    float64 // signatures a second, of all
	begun   float64 // signatures under way, by the part that is done
	least   time.Duration
}

// Add counts one place: it makes a signature every mean (more than 0), and is
// done with the one under way in rest; 0: it is idle.
func (s *Slots) Add(mean, rest time.Duration) {
	mean = max(mean, 1)
	if s.n == 0 || rest < s.least {
		s.least = rest
	}
	if rest <= 0 {
		s.idle++
	}
	s.n++
	s.rate += 1 / mean.Seconds()
	s.begun += 1 - min(1, rest.Seconds()/mean.Seconds()) // one that hangs doesn't hold up the others
}

// Rate returns how many signatures a second all make.
func (s *Slots) Rate() float64 { return s.rate }

// Mean returns the time of one signature, a place counted by how much it does.
func (s *Slots) Mean() time.Duration {
	if s.n == 0 {
		return 0
	}
	return time.Duration(float64(s.n) / s.rate * float64(time.Second))
}

// Start returns how long it takes until the turn starts that has ahead others
// before it; 0 if there is no place at all.
func (s *Slots) Start(ahead int) time.Duration {
	switch {
	case s.n == 0 || ahead < s.idle:
		return 0
	case s.n == 1:
		return s.least + time.Duration(float64(ahead)/s.rate*float64(time.Second))
	}
	// The turns that n places have begun by the time t are about
	// rate × t + begun; whole ones come half a turn later for each place but
	// one.
	turns := float64(ahead+1) + float64(s.n-1)/2 - s.begun
	return max(s.least, time.Duration(turns/s.rate*float64(time.Second)))
}

// Wait returns how long it takes until the signature is there of the turn that
// has ahead others before it.
func (s *Slots) Wait(ahead int) time.Duration {
	if s.n == 0 {
		return 0
	}
	return s.Start(ahead) + s.Mean()
}

// Estimate is what one of several keys says of a turn asked for now.
type Estimate struct {
	Wait time.Duration // until its signature is there
	Mean time.Duration // of one signature
	Rate float64       // signatures a second
	Away bool          // the key can't be used now
	Full bool          // its line has no room
}

// Choose returns the place of the key, of n, with the least expected wait, -1
// if all are away. A key without room is the last resort. Keys whose waits
// differ by less than half a signature count as equal, so that noise in the
// measured rates doesn't send everybody to one; of those the one at or after
// first wins, and callers that raise first each time let them take turns.
func Choose(n, first int, estimate func(place int) Estimate) int {
	best, least := -1, Estimate{}
	for i := range n {
		place := (first + i) % n
		e := estimate(place)
		if e.Away {
			continue
		}
		better := e.Wait+e.Mean/2 < least.Wait
		if e.Full != least.Full {
			better = least.Full
		}
		if best < 0 || better {
			best, least = place, e
		}
	}
	return best
}

package plan

import (
	"math/bits"
	"time"
)

// moment is a time in a simulation; the drain is at 0.
type moment = time.Duration

// kind is what happens at a moment.
type kind uint8

const (
	renewalDue   kind = iota // of the certificate in a slot
	ocspAsked                // about the certificate in a slot
	workloadAsks             // a drained workload is there and asks; the slot is its number
	workloadEnds             // somewhere, and another takes its place
	listDue                  // the slot is the key
)

// event is one thing that will happen.
type event struct {
	at   moment
	slot uint32 // whom it concerns
	next uint32 // the event after it in its bucket
	gen  uint8  // the certificate's generation: an event of one that is gone is nothing
	kind kind
}

// calendar holds the events to come. They are millions, and most lie far
// ahead: each falls into a bucket of its time, and only the present bucket is
// ordered (a heap), so that adding and taking cost the same however many there
// are.
type calendar struct {
	begin, end moment // later events are dropped: nobody will see them
	width      moment // of a bucket
	events     []event
	free       uint32   // the first of the unused events; 0: none
	buckets    []uint32 // the first event of each; 0: none
	present    int      // the bucket that the heap was filled from
	heap       []event
}

// newCalendar makes one for about expect events at a time.
func newCalendar(begin, end moment, expect int) *calendar {
	n := 1 << min(max(bits.Len(uint(expect/16)), 6), 18)
	return &calendar{
		begin: begin, end: end, width: max((end-begin)/moment(n), 1),
		events: make([]event, 1, max(expect, 1)+1), buckets: make([]uint32, n+2), present: -1,
	}
}

func (c *calendar) bucket(at moment) int { return min(int((at-c.begin)/c.width), len(c.buckets)-1) }

// add puts an event in; one in the past happens next.
func (c *calendar) add(e event) {
	if e.at >= c.end {
		return
	}
	b := c.bucket(max(e.at, c.begin))
	if b <= c.present {
		c.push(e)
		return
	}
	e.next = c.buckets[b]
	i := c.free
	if i == 0 {
		i = uint32(len(c.events))
		c.events = append(c.events, e)
	} else {
		c.free = c.events[i].next
		c.events[i] = e
	}
	c.buckets[b] = i
}

// first is the time of the next event; false: there is none.
func (c *calendar) first() (moment, bool) {
	for len(c.heap) == 0 {
		if c.present+1 >= len(c.buckets) {
			return 0, false
		}
		c.present++
		for i := c.buckets[c.present]; i != 0; {
			e := c.events[i]
			c.push(e)
			c.events[i].next, c.free = c.free, i
			i = e.next
		}
		c.buckets[c.present] = 0
	}
	return c.heap[0].at, true
}

// take removes the next event; first must have said that there is one.
func (c *calendar) take() event {
	e, last := c.heap[0], len(c.heap)-1
	c.heap[0] = c.heap[last]
	c.heap = c.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return e
		}
		if child+1 < last && c.heap[child+1].before(c.heap[child]) {
			child++
		}
		if !c.heap[child].before(c.heap[i]) {
			return e
		}
		c.heap[i], c.heap[child] = c.heap[child], c.heap[i]
		i = child
	}
}

func (c *calendar) push(e event) {
	c.heap = append(c.heap, e)
	for i := len(c.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !c.heap[i].before(c.heap[parent]) {
			return
		}
		c.heap[i], c.heap[parent] = c.heap[parent], c.heap[i]
		i = parent
	}
}

// before orders events; those of one moment by whom they concern, so that a
// run can be repeated.
func (e event) before(o event) bool {
	if e.at != o.at {
		return e.at < o.at
	}
	if e.slot != o.slot {
		return e.slot < o.slot
	}
	return e.kind < o.kind
}

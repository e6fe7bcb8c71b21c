package status

import (
	lru "container/list" // list is a CRL here
	"time"
)

// key names what an entry is about; see keyOf.
type key [32]byte

// finding is what was found out: an *answer about one certificate, or a *list
// about many.
type finding interface {
	// of says what it knows of a certificate by the magnitude of its serial;
	// if that was revoked, also since when and who says so.
	of(serial []byte) (Status, string)
	window() (thisUpdate, nextUpdate time.Time)
	// follows says why it can't take the place of an older finding of its kind.
	follows(known finding) error
}

// entry is one finding and the way it is kept new. All of it is guarded by the
// Checker's lock; a finding itself never changes.
type entry struct {
	key       key
	source    Source
	url       string        // the first one asked, for people
	found     finding       // nil: nothing yet
	refreshAt time.Time     // when a newer one is fetched, if somebody asks
	retryAt   time.Time     // no fetch before this, since the last one failed
	err       error         // of the last fetch, nil if it succeeded
	flight    chan struct{} // closed when the fetch under way has ended; nil: none is
	cost      int           // see cache
}

// finding returns what was found, nil without an entry.
func (e *entry) finding() finding {
	if e == nil {
		return nil
	}
	return e.found
}

// status says what is at hand about a certificate. That it was revoked stays
// true when the finding has ended; anything else doesn't.
func (e *entry) status(serial []byte, now time.Time) (s Status, detail string, ok bool) {
	if e == nil || e.found == nil {
		return 0, "", false
	}
	s, detail = e.found.of(serial)
	this, next := e.found.window()
	return s, detail, s == Revoked || current(this, next, now) == nil
}

// cache keeps the entries used last, up to a limit of cost.
type cache struct {
	limit, cost int
	entries     map[key]*lru.Element // of *entry
	used        lru.List             // the last one used first
}

func newCache(limit int) *cache {
	return &cache{limit: limit, entries: make(map[key]*lru.Element)}
}

// peek returns the entry, nil if there is none.
func (c *cache) peek(k key) *entry {
	if el := c.entries[k]; el != nil {
		c.used.MoveToFront(el)
		return el.Value.(*entry)
	}
	return nil
}

// get returns the entry, a new one of cost 1 if there is none.
func (c *cache) get(k key) *entry {
	if e := c.peek(k); e != nil {
		return e
	}
	e := &entry{key: k, cost: 1}
	c.entries[k] = c.used.PushFront(e)
	c.cost++
	c.trim()
	return e
}

// weigh sets what an entry costs.
func (c *cache) weigh(e *entry, cost int) {
	if el := c.entries[e.key]; el == nil || el.Value != any(e) {
		return // it was dropped meanwhile
	}
	c.cost += cost - e.cost
	e.cost = cost
	c.trim()
}

// trim drops what was used longest ago, but never the one used last.
func (c *cache) trim() {
	for c.cost > c.limit && c.used.Len() > 1 {
		e := c.used.Remove(c.used.Back()).(*entry)
		delete(c.entries, e.key)
		c.cost -= e.cost
	}
}

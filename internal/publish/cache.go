package publish

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// cache holds OCSP answers that are ready to be sent. It is parted, so that
// requests on several processors don't wait for one another.
type cache struct {
	trusted atomic.Bool // revocations are heard of, so that it may be used
	parts   [256]cachePart
	room    int // of one part, in bytes
}

type cachePart struct {
	mu      sync.RWMutex // guards what follows
	answers map[key]*ready
	size    int
	// drops counts revocations. An answer that was asked for before one of
	// them may be older than it, and isn't taken.
	drops uint64
}

// key is what an answer answers.
type key struct {
	issuer string // its key ID
	hash   crypto.Hash
	length uint8 // of the serial
	serial [20]byte
}

func newCache(size int) *cache {
	c := &cache{}
	c.room = size / len(c.parts)
	for i := range c.parts {
		c.parts[i].answers = make(map[key]*ready)
	}
	return c
}

// keyOf is the key of a request, which [revocation.ParseOCSPRequest] took.
func keyOf(issuerKeyID string, q *revocation.OCSPRequest) key {
	k := key{issuer: issuerKeyID, hash: q.Hash, length: uint8(len(q.Serial))}
	copy(k.serial[:], q.Serial)
	return k
}

// part is where a key's answer is. Serials are random.
func (c *cache) part(k *key) *cachePart { return &c.parts[k.serial[max(k.length, 1)-1]] }

// get returns the answer, nil if there is none or it may not be used.
func (c *cache) get(k *key) *ready {
	if !c.trusted.Load() {
		return nil
	}
	p := c.part(k)
	p.mu.RLock()
	a := p.answers[*k]
	p.mu.RUnlock()
	return a
}

// ask says when an answer was asked for, for put. False: the cache isn't to be
// used.
func (c *cache) ask(k *key) (drops uint64, ok bool) {
	p := c.part(k)
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.drops, c.trusted.Load()
}

// put takes an answer that was asked for at that time. False: something was
// revoked meanwhile, perhaps this certificate.
func (c *cache) put(k *key, drops uint64, a *ready) bool {
	p := c.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drops != drops || !c.trusted.Load() {
		return false
	}
	p.remove(*k)
	if a.size() > c.room {
		return true // nothing of ours is so large; it is served all the same
	}
	for p.size+a.size() > c.room {
		p.evict()
	}
	p.answers[*k] = a
	p.size += a.size()
	return true
}

// evictAmong is of how many answers, picked at random, the one that ends first
// goes.
const evictAmong = 8

func (p *cachePart) evict() {
	var first key
	n, end := 0, time.Time{}
	for k, a := range p.answers { // in random order
		if n == 0 || a.nextUpdate.Before(end) {
			first, end = k, a.nextUpdate
		}
		if n++; n == evictAmong {
			break
		}
	}
	p.remove(first)
}

func (p *cachePart) remove(k key) {
	if a := p.answers[k]; a != nil {
		p.size -= a.size()
		delete(p.answers, k)
	}
}

// drop forgets what was said of a certificate, since it was revoked.
func (c *cache) drop(issuerKeyID string, serial cert.Serial) {
	k := key{issuer: issuerKeyID}
	n, err := hex.Decode(k.serial[:], []byte(serial[:min(len(serial), 2*len(k.serial))]))
	if err != nil || 2*n != len(serial) { // not a serial: then nothing is sure
		c.clear()
		return
	}
	k.length = uint8(n)
	p := c.part(&k)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops++
	for _, k.hash = range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		p.remove(k)
	}
}

// trust begins or ends the use of the cache. What is in it when revocations may
// go unheard is worth nothing.
func (c *cache) trust(intact bool) {
	c.trusted.Store(intact)
	if !intact {
		c.clear()
	}
}

func (c *cache) clear() {
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		p.drops++
		clear(p.answers)
		p.size = 0
		p.mu.Unlock()
	}
}

// askAgain is how often the source is asked for a newer answer in the last
// quarter of one's life.
const askAgain = 30 * time.Second

// ready is an OCSP answer with its headers, as net/http wants them. Nothing in
// it changes, but for the atomic values.
type ready struct {
	der        []byte
	nextUpdate time.Time
	refreshAt  time.Time

	etag, length, modified, expires [1]string

	control atomic.Pointer[control]
	asked   atomic.Int64 // when the source was last asked for a newer one, in unix nanoseconds
}

// control is a Cache-Control header, which is used for a while.
type control struct {
	until time.Time
	value [1]string
}

// controlTime is how long one is used: it then promises too little.
const controlTime = 10 * time.Second

// entrySize is what an answer takes beside its bytes: the values here, strings
// of headers, and its place in the map.
const entrySize = 700

func (a *ready) size() int { return len(a.der) + entrySize }

func newReady(a *responder.Answer, now time.Time) *ready {
	hash := sha256.Sum256(a.DER)
	made := &ready{der: a.DER, nextUpdate: a.NextUpdate, refreshAt: a.RefreshAt()}
	made.etag[0] = `"` + hex.EncodeToString(hash[:16]) + `"`
	made.length[0] = strconv.Itoa(len(a.DER))
	made.modified[0] = a.ThisUpdate.UTC().Format(http.TimeFormat)
	made.expires[0] = a.NextUpdate.UTC().Format(http.TimeFormat)
	made.asked.Store(now.UnixNano())
	if !a.Cacheable {
		made.control.Store(&control{now.Add(time.Hour), [1]string{"no-store"}})
	}
	return made
}

// stale reports, to one of many who serve it, that the source should be asked
// for a newer one.
func (a *ready) stale(now time.Time) bool {
	if now.Before(a.refreshAt) {
		return false
	}
	last := a.asked.Load()
	return now.UnixNano()-last > int64(askAgain) && a.asked.CompareAndSwap(last, now.UnixNano())
}

// cacheControl lets caches keep the answer until the last quarter of its life,
// in which there will be a newer one, and then for half of what is left: so
// that nobody is given one that is about to end (RFC 5019 section 6.2).
func (a *ready) cacheControl(now time.Time) []string {
	c := a.control.Load()
	if c == nil || now.After(c.until) {
		fresh := a.refreshAt.Sub(now)
		if fresh <= controlTime {
			fresh = a.nextUpdate.Sub(now) / 2
		}
		c = &control{until: now.Add(controlTime)}
		c.value[0] = maxAge(max(fresh-controlTime, 0))
		a.control.Store(c)
	}
	return c.value[:]
}

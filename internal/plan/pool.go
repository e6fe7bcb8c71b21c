package plan

import (
	"math/rand/v2"
	"sort"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// maxWaiting is how many of a class may wait for one key, as in the server:
// those that no key has room for wait outside, in the order they came.
const maxWaiting = 4096

// pool is the keys and who waits for them: the server's lines, and the
// server's way to choose.
type pool struct {
	keys   []*key
	byRate []float64 // the sum of the rates up to each key, for any
	done   []running // a heap: the signatures under way, the first to end on top
	first  int       // where the next choice begins
	unused []*job
	names  []string // of clients
	vary   float64  // how far a signature's time may be from the mean
	random *rand.Rand
}

// key is one signing key.
type key struct {
	line    *schedule.Line
	mean    time.Duration
	under   []moment // when the signatures under way end; as many as there are places
	version int      // of what waits: counts what changed it
	ahead   [2]reckonings
}

// reckonings are what a line said of how many are ahead of a certificate's
// turn, by client: for one class.
type reckonings struct {
	known    []reckoned // by client, where there are few
	many     map[uint32]reckoned
	stranger reckoned // of any client that has nothing waiting there
}

// reckoned is what a line said, and of which version of it.
type reckoned struct {
	version, turns int
	waiting        int // of the client; true whatever the version
}

// fewClients are so few that each key has a place for what it said to each.
const fewClients = 1024

// job is one thing to be signed.
type job struct {
	turn    schedule.Turn // whose Value is the job
	slot    uint32
	client  uint32
	key     int32
	gen     uint8
	second  bool // another signature follows
	drained bool
	during  bool   // asked for while the drain ran
	asked   moment // for
	begun   moment // the signature
	left    moment // until the certificate ends that it renews
}

// running is a signature under way.
type running struct {
	until moment
	job   *job
}

func newPool(in Input) *pool {
	p := &pool{vary: in.Vary, random: rand.New(rand.NewPCG(in.Seed, 0xbf58476d1ce4e5b9))}
	var rate float64
	for _, k := range in.Keys {
		rate += k.rate()
		p.byRate = append(p.byRate, rate)
		key := &key{line: schedule.New(in.Shares), mean: k.Signature, under: make([]moment, 0, k.Parallel)}
		for c := range key.ahead {
			if n := in.Fleet.Clients; n > 0 && n <= fewClients {
				key.ahead[c].known = make([]reckoned, n)
			} else {
				key.ahead[c].many = map[uint32]reckoned{}
			}
		}
		p.keys = append(p.keys, key)
	}
	for i := range in.Fleet.Clients {
		p.names = append(p.names, clientName(uint32(i)))
	}
	return p
}

// any picks a key in proportion to the rates: what the choice comes to in the
// long run.
func (p *pool) any(random *rand.Rand) uint16 {
	at := random.Float64() * p.byRate[len(p.byRate)-1]
	return uint16(min(sort.SearchFloat64s(p.byRate, at), len(p.keys)-1))
}

// job makes a job; forget takes it back.
func (p *pool) job(c schedule.Class, slot int, now moment) *job {
	var j *job
	if n := len(p.unused); n > 0 {
		j = p.unused[n-1]
		p.unused = p.unused[:n-1]
		*j = job{}
	} else {
		j = new(job)
	}
	j.turn = schedule.Turn{Class: c, Value: j, Urgency: relaxed}
	j.slot, j.asked = uint32(slot), now
	return j
}

func (p *pool) forget(j *job) { p.unused = append(p.unused, j) }

// relaxed is the urgency of a renewal until its wait is known.
const relaxed = 2

// place gives a certificate's job to the key with the least expected wait;
// false when none has room.
func (p *pool) place(j *job, now moment) bool {
	j.turn.Client = p.name(j.client)
	p.first++
	k := schedule.Choose(len(p.keys), p.first%len(p.keys), func(place int) schedule.Estimate { return p.estimate(place, j, now) })
	e := p.estimate(k, j, now)
	if e.Full {
		return false
	}
	if j.turn.Class == schedule.Renewal {
		j.turn.Urgency = schedule.Urgency(j.left, e.Wait)
	}
	p.enter(j, k, now)
	return true
}

func (p *pool) name(client uint32) string {
	if int(client) < len(p.names) {
		return p.names[client]
	}
	return clientName(client)
}

// estimate is what a key says of a job.
func (p *pool) estimate(place int, j *job, now moment) schedule.Estimate {
	k := p.keys[place]
	e := schedule.Estimate{Mean: k.mean, Wait: k.mean}
	if len(k.under) < cap(k.under) { // then nobody waits
		return e
	}
	var s schedule.Slots
	for _, until := range k.under {
		s.Add(k.mean, until-now)
	}
	e.Wait = s.Wait(k.turnsAhead(j))
	e.Full = k.line.Len(j.turn.Class) >= maxWaiting
	return e
}

// turnsAhead asks the line, which takes its time when there are many clients,
// only when what waits has changed.
func (k *key) turnsAhead(j *job) int {
	said := &k.ahead[j.turn.Class]
	own := said.of(j.client)
	r := own
	if r.waiting == 0 {
		r = said.stranger
	}
	if r.version == k.version+1 {
		return r.turns
	}
	r.turns, r.version = k.line.Ahead(&j.turn), k.version+1
	if own.waiting == 0 {
		said.stranger = r
	} else {
		said.put(j.client, r)
	}
	return r.turns
}

// changed notes that a job came (1) or went (-1).
func (k *key) changed(j *job, by int) {
	k.version++
	if j.turn.Class > schedule.Renewal {
		return
	}
	said := &k.ahead[j.turn.Class]
	r := said.of(j.client)
	r.waiting += by
	said.put(j.client, r)
}

func (r *reckonings) of(client uint32) reckoned {
	if r.known != nil {
		return r.known[client]
	}
	return r.many[client]
}

func (r *reckonings) put(client uint32, what reckoned) {
	switch {
	case r.known != nil:
		r.known[client] = what
	case what.waiting == 0:
		delete(r.many, client)
	default:
		r.many[client] = what
	}
}

// enter gives a job to a key: it signs at once if it is idle, else the job
// waits.
func (p *pool) enter(j *job, place int, now moment) {
	j.key = int32(place)
	k := p.keys[place]
	if len(k.under) < cap(k.under) {
		p.sign(j, now)
		return
	}
	k.line.Push(&j.turn)
	k.changed(j, 1)
}

func (p *pool) sign(j *job, now moment) {
	k := p.keys[j.key]
	j.begun = now
	until := now + k.mean + moment((2*p.random.Float64()-1)*p.vary*float64(k.mean))
	k.under = append(k.under, until)
	p.done = append(p.done, running{until, j})
	for i := len(p.done) - 1; i > 0; {
		parent := (i - 1) / 2
		if p.done[parent].until <= p.done[i].until {
			break
		}
		p.done[i], p.done[parent] = p.done[parent], p.done[i]
		i = parent
	}
}

// firstDone is when the next signature ends; false: none is under way.
func (p *pool) firstDone() (moment, bool) {
	if len(p.done) == 0 {
		return 0, false
	}
	return p.done[0].until, true
}

// finish takes the signature that ends first, and gives its place to the next
// in the key's line.
func (p *pool) finish(now moment) *job {
	j := p.done[0].job
	p.dropFirst()
	k := p.keys[j.key]
	for i, until := range k.under {
		if until == now {
			k.under[i] = k.under[len(k.under)-1]
			k.under = k.under[:len(k.under)-1]
			break
		}
	}
	if t := k.line.Pop(); t != nil {
		waited := t.Value.(*job)
		k.changed(waited, -1)
		p.sign(waited, now)
	}
	return j
}

func (p *pool) dropFirst() {
	last := len(p.done) - 1
	p.done[0] = p.done[last]
	p.done[last] = running{}
	p.done = p.done[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if child+1 < last && p.done[child+1].until < p.done[child].until {
			child++
		}
		if p.done[i].until <= p.done[child].until {
			return
		}
		p.done[i], p.done[child] = p.done[child], p.done[i]
		i = child
	}
}

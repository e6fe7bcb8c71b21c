package plan

import (
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Input is what is planned for. Fleet and Keys are required; what is left out
// of the rest doesn't happen, or is as the fields say.
type Input struct {
	Fleet   Fleet
	Drain   Drain
	OCSP    OCSP
	CRL     CRL
	Keys    []Key
	Shares  schedule.Shares // of a key while all classes want more; zero: the default ones
	Bound   time.Duration   // the wait at p99 that a drain may cause; 0: DefaultBound
	Horizon time.Duration   // how long after the drain is simulated; 0: until its certificates have been renewed, at most two days
	Vary    float64         // how far a signature's time may be from its mean, as a part of it; negative: not at all, 0: DefaultVary
	Seed    uint64          // another seed, another draw of the same dice
}

// Fleet is who holds certificates while nothing happens.
type Fleet struct {
	Workloads       int           // that run
	PerWorkload     float64       // certificates each holds, as 2.5; 0: 1
	Clients         int           // among whom the keys divide their turns: EAB keys, namespaces or addresses; 0: each workload is one
	Lifetime        time.Duration // of a certificate
	RenewAt         float64       // part of the lifetime after which it is renewed; 0: DefaultRenewAt
	Spread          float64       // width of the renewal window, as part of the lifetime; negative: none, 0: DefaultSpread
	Churn           float64       // workloads started anew per hour, one here, one there
	Precertificates bool          // a second signature per certificate, for transparency logs (RFC 6962 section 3.1)
}

// Drain is many workloads started anew at once: a node pool is emptied, a
// deployment rolls, an autoscaler wakes up.
type Drain struct {
	Workloads int           // how many; more than the fleet has are new ones
	Over      time.Duration // the time within which they ask; 0: all in one moment
}

// OCSP is what relying parties ask. An answer is signed when it is first asked
// for, and again when it is asked for in the last quarter of its validity.
type OCSP struct {
	Validity time.Duration // of an answer; 0: no OCSP
	Asked    float64       // part of the certificates that anybody asks about: the share of the relying parties that ask
	Every    time.Duration // mean time between two questions about one certificate; 0: DefaultEvery
	Storm    float64       // part of the certificates that all at once, as the drain begins, need an answer that nobody has
}

// CRL is what lists are made.
type CRL struct {
	Lists int           // per key: the full one and the shards; 0: none
	Every time.Duration // between two makings of one list; 0: DefaultListEvery
}

// Key is one signing key.
type Key struct {
	Name      string        // for the report; may be empty
	Signature time.Duration // the time of one
	Parallel  int           // how many at once; 0: 1
}

// What stands for what an Input leaves out.
const (
	DefaultRenewAt   = 2. / 3           // as the authority suggests to ACME clients (RFC 9773)
	DefaultSpread    = 1. / 12          // likewise
	DefaultVary      = .05              // else keys that begin at one moment march in step for ever, as no real ones do
	DefaultBound     = time.Minute      // a pod that isn't ready after a minute has somebody look
	DefaultEvery     = 10 * time.Minute // a certificate in service meets new peers all the time
	DefaultListEvery = 8 * time.Hour    // a third of a day's validity
)

// Bounds of what can be planned: they keep a simulation within a few hundred
// megabytes and a minute.
const (
	MaxCertificates = 10_000_000
	MaxKeys         = 1000
	maxLifetime     = 10 * 365 * 24 * time.Hour
	maxHorizon      = 90 * 24 * time.Hour
)

// withDefaults fills in what was left out.
func (in Input) withDefaults() Input {
	or := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	if in.Fleet.PerWorkload == 0 {
		in.Fleet.PerWorkload = 1
	}
	if in.Fleet.RenewAt == 0 {
		in.Fleet.RenewAt = DefaultRenewAt
	}
	if in.Fleet.Spread == 0 {
		in.Fleet.Spread = DefaultSpread
	}
	in.Fleet.Spread = max(in.Fleet.Spread, 0)
	if in.Vary == 0 {
		in.Vary = DefaultVary
	}
	in.Vary = max(in.Vary, 0)
	or(&in.OCSP.Every, DefaultEvery)
	or(&in.CRL.Every, DefaultListEvery)
	or(&in.Bound, DefaultBound)
	if in.Shares == (schedule.Shares{}) {
		in.Shares = schedule.DefaultShares()
	}
	keys := make([]Key, len(in.Keys))
	for i, k := range in.Keys {
		k.Parallel = max(k.Parallel, 1)
		keys[i] = k
	}
	in.Keys = keys
	return in
}

// Check says what can't be planned for, all of it at once. Run calls it.
func (in Input) Check() error {
	in = in.withDefaults()
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	f := in.Fleet
	bad(f.Workloads < 0, "the number of workloads is negative")
	bad(in.Drain.Workloads < 0, "the size of the drain is negative")
	bad(max(f.Workloads, in.Drain.Workloads) == 0, "there are no workloads: say how many certificates are alive, or how many workloads start")
	bad(!(f.PerWorkload >= 1 && f.PerWorkload <= 100), "certificates per workload: %v is not between 1 and 100", f.PerWorkload)
	bad(float64(max(f.Workloads, in.Drain.Workloads, 0))*f.PerWorkload > MaxCertificates, "more than %s certificates can't be simulated", count(MaxCertificates))
	bad(f.Clients < 0, "the number of clients is negative")
	bad(f.Lifetime < time.Minute || f.Lifetime > maxLifetime, "the lifetime of certificates: %v is not between a minute and ten years", f.Lifetime)
	bad(!(f.RenewAt > 0 && f.RenewAt < 1), "the renewal point: %v is not a part of the lifetime, between 0 and 1", f.RenewAt)
	bad(!(f.RenewAt-f.Spread/2 > 0 && f.RenewAt+f.Spread/2 <= 1), "the renewal window, %v of the lifetime around %.3g, does not lie within the lifetime", f.Spread, f.RenewAt)
	bad(!(f.Churn >= 0 && f.Churn <= 1e7), "workloads started per hour: %v is not between 0 and ten million", f.Churn)
	bad(in.Drain.Over < 0 || in.Drain.Over > 24*time.Hour, "the time within which drained workloads ask: %v is not between 0 and a day", in.Drain.Over)
	bad(!(in.Vary <= 1), "the variation of a signature's time: %v is more than 1", in.Vary)
	bad(in.Bound < 0, "the bound on the wait is negative")
	bad(in.Horizon < 0 || in.Horizon > maxHorizon, "the time to simulate: %v is not between 0 and 90 days", in.Horizon)
	errs = append(errs, in.checkRevocation(), in.checkKeys())
	return errors.Join(errs...)
}

func (in Input) checkRevocation() error {
	o, c := in.OCSP, in.CRL
	switch {
	case o.Validity < 0 || o.Validity > 0 && o.Validity < time.Minute || o.Validity > maxLifetime:
		return fmt.Errorf("the validity of OCSP answers: %v is not between a minute and ten years", o.Validity)
	case !(o.Asked >= 0 && o.Asked <= 1):
		return fmt.Errorf("the share of relying parties that ask: %v is not between 0 and 1", o.Asked)
	case !(o.Storm >= 0 && o.Storm <= 1):
		return fmt.Errorf("the share of certificates in the OCSP storm: %v is not between 0 and 1", o.Storm)
	case o.Validity == 0 && (o.Asked > 0 || o.Storm > 0):
		return errors.New("relying parties ask, but there is no OCSP: give the validity of its answers")
	case o.Every < time.Second:
		return fmt.Errorf("the time between two questions about a certificate: %v is less than a second", o.Every)
	case c.Lists < 0 || c.Lists > 257:
		return fmt.Errorf("revocation lists per key: %d is not between 0 and 257 (the full one and 256 shards)", c.Lists)
	case c.Every < time.Second:
		return fmt.Errorf("the time between two makings of a revocation list: %v is less than a second", c.Every)
	}
	return nil
}

func (in Input) checkKeys() error {
	if len(in.Keys) == 0 {
		return errors.New("there are no keys: say how many there are and how fast each signs")
	}
	if len(in.Keys) > MaxKeys {
		return fmt.Errorf("%d keys: more than %d can't be simulated", len(in.Keys), MaxKeys)
	}
	for i, k := range in.Keys {
		if k.Signature < time.Microsecond || k.Signature > time.Hour {
			return fmt.Errorf("key %d: %v for a signature is not between a microsecond and an hour", i+1, k.Signature)
		}
		if k.Parallel > 1000 {
			return fmt.Errorf("key %d: %d signatures at once are more than 1000", i+1, k.Parallel)
		}
	}
	return in.Shares.Check()
}

// inUse is the number of certificates that the workloads use.
func (f Fleet) inUse() int { return f.slot(f.Workloads) }

// slot is the number of the first certificate of a workload: 2.5 per workload
// are 2, then 3, then 2 …
func (f Fleet) slot(workload int) int { return int(float64(workload) * f.PerWorkload) }

// Use is the part of its lifetime that a certificate is used for.
func (f Fleet) use() time.Duration { return time.Duration(float64(f.Lifetime) * f.RenewAt) }

// Alive is the number of unexpired certificates: those in use, and those that
// were replaced and have not ended yet.
func (f Fleet) Alive() int {
	if f.RenewAt == 0 {
		f.RenewAt = DefaultRenewAt
	}
	return int(float64(f.inUse())/f.RenewAt + .5)
}

// WorkloadsOf is the number of workloads that have so many certificates alive:
// what Alive says the other way round.
func (f Fleet) WorkloadsOf(alive int) int {
	if f.RenewAt == 0 {
		f.RenewAt = DefaultRenewAt
	}
	return int(float64(alive)*f.RenewAt/max(f.PerWorkload, 1) + .5)
}

// signatures is what one certificate costs.
func (f Fleet) signatures() float64 {
	if f.Precertificates {
		return 2
	}
	return 1
}

// Budget is the number of signatures per second that all keys make.
func (in Input) Budget() float64 {
	var sum float64
	for _, k := range in.Keys {
		sum += k.rate()
	}
	return sum
}

func (k Key) rate() float64 {
	if k.Signature <= 0 {
		return 0
	}
	return float64(max(k.Parallel, 1)) / k.Signature.Seconds()
}

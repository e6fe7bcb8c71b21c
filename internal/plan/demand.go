package plan

import (
	"math"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Demand is what each class wants in steady state, in signatures per second,
// by formula. The drain and the storm are not in it.
//
// Workloads end at a rate c each (Churn), and a certificate is renewed when it
// has been used for a time U. So a certificate is used for the lesser of U and
// an exponential time of rate c, and Little's law gives how many come to be
// per second while N are in use: N·c/(1-e^(-cU)), N/U where nothing ends.
func (in Input) Demand() [schedule.Classes]float64 {
	in = in.withDefaults()
	var d [schedule.Classes]float64
	f := in.Fleet
	n, c, u := float64(f.inUse()), f.ending(), f.use().Seconds()
	births := n / u
	if c > 0 {
		births = n * c / -math.Expm1(-c*u)
	}
	d[schedule.Issuance] = n * c * f.signatures()
	d[schedule.Renewal] = (births - n*c) * f.signatures()
	if in.OCSP.Asked > 0 {
		d[schedule.OCSP] = births * in.OCSP.Asked * in.OCSP.answers(u, c)
	}
	if in.CRL.Lists > 0 {
		d[schedule.CRL] = float64(in.CRL.Lists*len(in.Keys)) / in.CRL.Every.Seconds()
	}
	return d
}

// ending is the rate per second at which one workload ends.
func (f Fleet) ending() float64 {
	if f.Workloads == 0 {
		return 0
	}
	return f.Churn / 3600 / float64(f.Workloads)
}

// refresh is the age from which on an answer is signed anew when asked for.
func (o OCSP) refresh() time.Duration { return o.Validity / 4 * 3 }

// answers is the mean number of answers signed for one certificate that is
// asked about and used for u seconds or until it ends, at rate c.
//
// Questions come at exponential times of mean τ, so the first answer is signed
// after one such time, and each further one after three quarters of the
// validity and one more: the n-th falls before u with the probability of an
// Erlang time of n stages to end in what is left of u; that nothing has ended
// until then discounts it by e^(-ct).
func (o OCSP) answers(u, c float64) float64 {
	tau, fresh := o.Every.Seconds(), o.refresh().Seconds()
	if u/fresh > 2000 { // beyond, the first and the last hardly count
		return u / (fresh + tau)
	}
	var sum float64
	for n := 0; float64(n)*fresh < u; n++ {
		left := u - float64(n)*fresh
		sum += math.Exp(-c*float64(n)*fresh) * math.Pow(1/(1+c*tau), float64(n+1)) * erlang(n+1, left*(1/tau+c))
	}
	return sum
}

// erlang is the probability that k exponential times of mean 1 add up to at
// most x: that a Poisson variable of mean x is at least k.
func erlang(k int, x float64) float64 {
	below := 0.0
	for i := range k {
		lg, _ := math.Lgamma(float64(i + 1))
		below += math.Exp(float64(i)*math.Log(x) - x - lg)
	}
	return max(1-below, 0)
}

// exhausted is how many times as large the fleet may grow before steady state
// takes the whole budget; +Inf where the fleet asks for nothing.
func (in Input) exhausted() float64 {
	d := in.Demand()
	grows := d[schedule.Issuance] + d[schedule.Renewal] + d[schedule.OCSP]
	if grows == 0 {
		return math.Inf(1)
	}
	return max(in.Budget()-d[schedule.CRL], 0) / grows
}

// Package mtlsprom makes Prometheus metrics of package mtls:
//
//	metrics := mtlsprom.New()
//	id, err := mtls.New(ctx, mtls.Config{Hooks: metrics.Hooks()})
//	if err != nil { … }
//	metrics.Watch(id)
//	prometheus.MustRegister(metrics)
//
// One metric is worth an alarm: when it gets dark if no CA answers any more.
//
//	mtls_dark_timestamp_seconds - time() < 4 * 3600
//
// The others say why:
//
//	mtls_healthy                                     1: every certificate is there, valid and not overdue
//	mtls_certificate_expiry_timestamp_seconds        by usage and name (the first of its names)
//	mtls_certificate_renewal_timestamp_seconds       by usage and name
//	mtls_ca_score                                    by directory; 1: answers well, 0: failed again and again
//	mtls_ca_latency_seconds                          by directory
//	mtls_attempts_total                              by directory, usage and result ("ok", "failed")
//	mtls_attempt_duration_seconds                    by directory; a histogram
//	mtls_handshakes_total                            by role, result ("ok", an mtls.Refusal, "failed") and resumed
//
// It is a module of its own, so that package mtls needs no metrics library.
package mtlsprom

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-pki/chancery/mtls"
)

// Watched is what metrics are made of; an *mtls.Identity is.
type Watched interface{ Health() mtls.Health }

// Metrics is a prometheus.Collector over any number of identities. All of its
// methods may be called at any time, from any goroutine.
type Metrics struct {
	attempts, handshakes *prometheus.CounterVec
	durations            *prometheus.HistogramVec

	mu      sync.Mutex
	watched []Watched // guarded by mu
}

// New returns metrics without an identity.
func New() *Metrics {
	return &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_attempts_total", Help: "Attempts to get a certificate from a CA."}, []string{"directory", "usage", "result"}),
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_handshakes_total", Help: "TLS handshakes that came as far as the peer's certificate."}, []string{"role", "result", "resumed"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mtls_attempt_duration_seconds", Help: "How long attempts to get a certificate took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"directory"}),
	}
}

// Hooks is for the Config of each identity that is counted.
func (m *Metrics) Hooks() mtls.Hooks { return mtls.Hooks{Attempted: m.attempted, Shaken: m.shaken} }

// Watch adds an identity to the metrics about certificates and CAs.
func (m *Metrics) Watch(w Watched) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched = append(m.watched, w)
}

// Forget takes an identity out again.
func (m *Metrics) Forget(w Watched) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched = slices.DeleteFunc(m.watched, func(other Watched) bool { return other == w })
}

func (m *Metrics) attempted(a mtls.Attempt) {
	usage := map[mtls.Usage]string{mtls.UsageServer: "server", mtls.UsageClient: "client", mtls.UsageBoth: "both"}[a.Usage]
	result := "ok"
	if a.Err != nil {
		result = "failed"
	}
	m.attempts.WithLabelValues(a.Directory, usage, result).Inc()
	m.durations.WithLabelValues(a.Directory).Observe(a.Took.Seconds())
}

func (m *Metrics) shaken(h mtls.Handshake) {
	role, result := "client", "ok"
	if h.Server {
		role = "server"
	}
	if h.Err != nil {
		result = "failed"
		if e, ok := errors.AsType[*mtls.PeerError](h.Err); ok {
			result = string(e.Reason)
		}
	}
	m.handshakes.WithLabelValues(role, result, strconv.FormatBool(h.Resumed)).Inc()
}

var (
	darkDesc    = prometheus.NewDesc("mtls_dark_timestamp_seconds", "When the first certificate ends if no CA answers from now on.", nil, nil)
	healthyDesc = prometheus.NewDesc("mtls_healthy", "Whether every certificate is there, valid and not overdue.", nil, nil)
	expiryDesc  = prometheus.NewDesc("mtls_certificate_expiry_timestamp_seconds", "When the certificate ends.", []string{"usage", "name"}, nil)
	renewalDesc = prometheus.NewDesc("mtls_certificate_renewal_timestamp_seconds", "When the certificate is renewed, or that is tried again.", []string{"usage", "name"}, nil)
	scoreDesc   = prometheus.NewDesc("mtls_ca_score", "How well the CA answers, from 0 to 1.", []string{"directory"}, nil)
	latencyDesc = prometheus.NewDesc("mtls_ca_latency_seconds", "How long the CA takes to answer.", []string{"directory"}, nil)
)

// Describe sends the descriptions of all metrics.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{darkDesc, healthyDesc, expiryDesc, renewalDesc, scoreDesc, latencyDesc} {
		ch <- d
	}
	m.attempts.Describe(ch)
	m.handshakes.Describe(ch)
	m.durations.Describe(ch)
}

// Collect sends the metrics as they are now.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.attempts.Collect(ch)
	m.handshakes.Collect(ch)
	m.durations.Collect(ch)
	m.mu.Lock()
	watched := slices.Clone(m.watched)
	m.mu.Unlock()
	if len(watched) == 0 {
		return
	}
	var dark time.Time
	healthy := 1.0
	w := worst{}
	for _, id := range watched {
		h := id.Health()
		if !h.DarkAt.IsZero() && (dark.IsZero() || h.DarkAt.Before(dark)) {
			dark = h.DarkAt
		}
		if !h.OK {
			healthy = 0
		}
		w.certificates(h.Certificates)
		w.cas(h.CAs)
	}
	if !dark.IsZero() {
		ch <- prometheus.MustNewConstMetric(darkDesc, prometheus.GaugeValue, seconds(dark))
	}
	ch <- prometheus.MustNewConstMetric(healthyDesc, prometheus.GaugeValue, healthy)
	for s, v := range w {
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, v, s.labels()...)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// series is one line of a metric.
type series struct {
	desc          *prometheus.Desc
	first, second string // labels; second is "" where there is one only
}

func (s series) labels() []string {
	if s.desc == scoreDesc || s.desc == latencyDesc {
		return []string{s.first}
	}
	return []string{s.first, s.second}
}

// worst keeps the worst value of each series: Prometheus wants one of each,
// and two identities may have the same names and CAs.
type worst map[series]float64

func (w worst) least(s series, v float64) {
	if old, ok := w[s]; !ok || v < old {
		w[s] = v
	}
}

func (w worst) certificates(all []mtls.CertificateHealth) {
	for _, c := range all {
		name := ""
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		if !c.NotAfter.IsZero() {
			w.least(series{expiryDesc, c.Usage, name}, seconds(c.NotAfter))
		}
		if !c.RenewAt.IsZero() {
			w.least(series{renewalDesc, c.Usage, name}, seconds(c.RenewAt))
		}
	}
}

func (w worst) cas(all []mtls.CAHealth) {
	for _, c := range all {
		w.least(series{scoreDesc, c.Directory, ""}, c.Score)
		s := series{latencyDesc, c.Directory, ""}
		w[s] = max(w[s], c.Latency.Seconds())
	}
}

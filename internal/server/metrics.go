package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/publish"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/responder/krl"
	"github.com/chancery-pki/chancery/internal/store"
)

// metrics are what the server counts. Every label has few values, whatever
// clients send.
type metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	validations *prometheus.CounterVec
	validating  *prometheus.HistogramVec
	issued      *prometheus.CounterVec
	issuing     *prometheus.HistogramVec
	swept       *prometheus.CounterVec
	crls        *prometheus.CounterVec
	crlEnds     *prometheus.GaugeVec
	issuerEnds  *prometheus.GaugeVec
	fetched     *prometheus.CounterVec
	answers     *prometheus.CounterVec
	answering   *prometheus.HistogramVec
	wanted      *prometheus.CounterVec
	sightings   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "chancery", Name: name, Help: help}, labels)
	}
	seconds := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chancery", Name: name, Help: help,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, labels)
	}
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		requests:    counter("acme_requests_total", "ACME requests by directory, resource, status and problem type.", "directory", "resource", "status", "problem"),
		latency:     seconds("acme_request_seconds", "Time to answer an ACME request.", "resource"),
		validations: counter("validations_total", "Validation tries by directory, challenge type and result.", "directory", "type", "result"),
		validating:  seconds("validation_seconds", "Time of one validation try.", "type"),
		issued:      counter("certificates_total", "Issuances by directory, profile and result.", "directory", "profile", "result"),
		issuing:     seconds("issuance_seconds", "Time from the plan to the record of a certificate.", "profile"),
		swept:       counter("swept_rows_total", "Rows deleted because they had ended.", "what"),
	}
	m.crls = counter("crls_total", "CRLs made, by issuing key and result; issuer krl is the KRL of SSH.", "issuer", "result")
	m.fetched = counter("publish_requests_total", "Requests for OCSP answers, CRLs and issuer certificates.", "resource", "status")
	m.answers = counter("ocsp_signed_total", "OCSP answers signed, by issuing key and result.", "issuer", "result")
	m.answering = seconds("ocsp_signing_seconds", "Time to sign an OCSP answer, with the wait for its turn.", "issuer")
	m.wanted = counter("ocsp_wanted_total", "OCSP answers that had to be signed, by issuing key.", "issuer")
	m.sightings = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "chancery", Name: "ssh_sightings_total", Help: "Reports that a watched SSH key was used: each is an alarm.",
	})
	ends := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "chancery", Name: name, Help: help}, labels)
	}
	m.crlEnds = ends("crl_next_update_seconds", "nextUpdate of the newest CRL made here, unix time.", "issuer", "shard")
	m.issuerEnds = ends("issuer_not_after_seconds", "End of an issuing certificate, unix time.", "issuer", "subject")
	m.registry.MustRegister(m.crls, m.fetched, m.crlEnds, m.issuerEnds, m.answers, m.answering, m.wanted, m.sightings, m.requests, m.latency, m.validations, m.validating, m.issued, m.issuing, m.swept,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is read at scrape time.
func (m *metrics) watch(db *store.DB, authority *ca.Authority, own *ownCertificate) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "chancery", Name: name, Help: help}, value))
	}
	count := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "chancery", Name: name, Help: help}, value))
	}
	count("store_commits_total", "Durable commits.", func() float64 { return float64(db.Stats().Commits) })
	count("store_updates_total", "Changes that shared the commits.", func() float64 { return float64(db.Stats().Callers) })
	gauge("store_waiting_updates", "Changes that wait for a commit.", func() float64 { return float64(db.Stats().Waiting) })
	gauge("validations_running", "Validations under way.", func() float64 { n, _ := authority.Running(); return float64(n) })
	gauge("issuances_running", "Certificates being signed.", func() float64 { _, n := authority.Running(); return float64(n) })
	gauge("own_certificate_expiry_seconds", "End of the server's own certificate, unix time.", func() float64 {
		if c := own.current.Load(); c != nil && c.Leaf != nil {
			return float64(c.Leaf.NotAfter.Unix())
		}
		return 0
	})
}

func result(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

// request is acmeserver's observer.
func (m *metrics) request(o acmeserver.Observation) {
	m.requests.WithLabelValues(o.Directory, o.Resource, strconv.Itoa(o.Status), string(o.Problem)).Inc()
	m.latency.WithLabelValues(o.Resource).Observe(o.Took.Seconds())
}

// Validated, Issued and Swept implement ca.Observer.
func (m *metrics) Validated(directory string, t protocol.ChallengeType, took time.Duration, err error) {
	m.validations.WithLabelValues(directory, string(t), result(err)).Inc()
	m.validating.WithLabelValues(string(t)).Observe(took.Seconds())
}

// Issued counts one issuance.
func (m *metrics) Issued(directory, profile string, took time.Duration, err error) {
	m.issued.WithLabelValues(directory, profile, result(err)).Inc()
	m.issuing.WithLabelValues(profile).Observe(took.Seconds())
}

// Swept counts deleted rows.
func (m *metrics) Swept(what string, rows int) { m.swept.WithLabelValues(what).Add(float64(rows)) }

// responder are the responder's observers.
func (m *metrics) responder() responder.Observe {
	return responder.Observe{
		Signed: func(issuer string, took time.Duration, err error) {
			m.answers.WithLabelValues(issuer, result(err)).Inc()
			m.answering.WithLabelValues(issuer).Observe(took.Seconds())
		},
		Wanted: func(issuer string) { m.wanted.WithLabelValues(issuer).Inc() },
		Made: func(made responder.Making) {
			m.crls.WithLabelValues(made.IssuerKeyID, result(made.Err)).Inc()
			if made.Err == nil {
				m.crlEnds.WithLabelValues(made.IssuerKeyID, strconv.Itoa(made.Shard)).Set(float64(made.NextUpdate.Unix()))
			}
		},
	}
}

// krlMade counts tries to make the KRL among those of CRLs.
func (m *metrics) krlMade(made krl.Making) {
	m.crls.WithLabelValues("krl", result(made.Err)).Inc()
	if made.Err == nil {
		m.crlEnds.WithLabelValues("krl", "0").Set(float64(made.NextUpdate.Unix()))
	}
}

func (m *metrics) published(r publish.Request) {
	m.fetched.WithLabelValues(r.Resource, strconv.Itoa(r.Status)).Inc()
}

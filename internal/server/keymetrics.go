package server

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// keyMetrics reads the state of every key at scrape time. It implements
// prometheus.Collector.
type keyMetrics struct {
	keys *keyring

	waiting, signed, waited, expected *prometheus.Desc // by key and class
	busy, failed, rate                *prometheus.Desc // by key
	away                              *prometheus.Desc // by key and token
}

func newKeyMetrics(keys *keyring) *keyMetrics {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("chancery_signing_"+name, help, append([]string{"key"}, labels...), nil)
	}
	return &keyMetrics{
		keys:     keys,
		waiting:  describe("waiting", "Requests that wait for the key, by class.", "class"),
		signed:   describe("signatures_total", "Signatures made, by class.", "class"),
		waited:   describe("waited_seconds_total", "Time that requests waited for their turn, by class.", "class"),
		expected: describe("expected_wait_seconds", "Expected time to a signature asked for now, by class.", "class"),
		busy:     describe("busy_seconds_total", "Time the key spent on signatures; with several at once, their sum."),
		failed:   describe("failures_total", "Errors of the key."),
		rate:     describe("rate", "Signatures a second that the key makes, as lately measured."),
		away:     describe("token_away", "1 while the token can't be used: pulled out, locked or stuck.", "token"),
	}
}

// Describe implements prometheus.Collector.
func (m *keyMetrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

// Collect implements prometheus.Collector.
func (m *keyMetrics) Collect(to chan<- prometheus.Metric) {
	for _, r := range m.keys.all() {
		m.collect(to, r)
	}
}

func (m *keyMetrics) collect(to chan<- prometheus.Metric, r *ring) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{r.keyID}, labels...)...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, append([]string{r.keyID}, labels...)...)
	}
	s := r.queue.Stats()
	for c := range schedule.Classes {
		gauge(m.waiting, float64(s.Waiting[c]), c.String())
		count(m.signed, float64(s.Signed[c]), c.String())
		count(m.waited, s.WaitTotal[c].Seconds(), c.String())
		gauge(m.expected, r.queue.Wait(signer.Request{Class: c}).Seconds(), c.String())
	}
	count(m.busy, s.Busy.Seconds())
	count(m.failed, float64(s.Failed))
	gauge(m.rate, r.queue.Rate())
	for _, t := range s.Tokens {
		away := 0.0
		if t.Away != "" {
			away = 1
		}
		gauge(m.away, away, strings.ToValidUTF8(t.URI, "?"))
	}
}

package mtlsprom_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/mtlsprom"
)

// fixed is an identity whose health doesn't change.
type fixed mtls.Health

func (f *fixed) Health() mtls.Health { return mtls.Health(*f) }

// gathered is every series with its value, histograms by their count.
func gathered(t *testing.T, m *mtlsprom.Metrics) map[string]string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			var labels []string
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := one.GetGauge().GetValue() + one.GetCounter().GetValue() + float64(one.GetHistogram().GetSampleCount())
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = fmt.Sprint(value)
		}
	}
	return all
}

func check(t *testing.T, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		for _, k := range slices.Sorted(maps.Keys(got)) {
			if want[k] != got[k] {
				t.Errorf("got  %s %s", k, got[k])
			}
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if want[k] != got[k] {
				t.Errorf("want %s %s", k, want[k])
			}
		}
	}
}

func TestHealth(t *testing.T) {
	m := mtlsprom.New()
	check(t, gathered(t, m), map[string]string{}) // no identity, no alarm
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	web := &fixed{
		DarkAt: at(3000), OK: true,
		Certificates: []mtls.CertificateHealth{
			{Usage: "server", Names: []string{"web", "www"}, NotAfter: at(3000), RenewAt: at(2000)},
			{Usage: "client", Names: []string{"web"}}, // not there yet
			{Usage: "client", NotAfter: at(4000)},
		},
		CAs: []mtls.CAHealth{{Directory: "https://a/d", Score: 1, Latency: time.Second}},
	}
	m.Watch(web)
	one := map[string]string{
		"mtls_dark_timestamp_seconds{}": "3000", "mtls_healthy{}": "1",
		"mtls_certificate_expiry_timestamp_seconds{name=web,usage=server}":  "3000",
		"mtls_certificate_renewal_timestamp_seconds{name=web,usage=server}": "2000",
		"mtls_certificate_expiry_timestamp_seconds{name=,usage=client}":     "4000",
		"mtls_ca_score{directory=https://a/d}":                              "1",
		"mtls_ca_latency_seconds{directory=https://a/d}":                    "1",
	}
	check(t, gathered(t, m), one)

	// Two identities with the same names and CAs: what is worse counts.
	worse := &fixed{
		DarkAt:       at(1000),
		Certificates: []mtls.CertificateHealth{{Usage: "server", Names: []string{"web"}, NotAfter: at(1000), RenewAt: at(2500)}},
		CAs:          []mtls.CAHealth{{Directory: "https://a/d", Score: 0.25, Latency: 2 * time.Second}, {Directory: "https://b/d"}},
	}
	m.Watch(worse)
	check(t, gathered(t, m), map[string]string{
		"mtls_dark_timestamp_seconds{}": "1000", "mtls_healthy{}": "0",
		"mtls_certificate_expiry_timestamp_seconds{name=web,usage=server}":  "1000",
		"mtls_certificate_renewal_timestamp_seconds{name=web,usage=server}": "2000",
		"mtls_certificate_expiry_timestamp_seconds{name=,usage=client}":     "4000",
		"mtls_ca_score{directory=https://a/d}":                              "0.25",
		"mtls_ca_latency_seconds{directory=https://a/d}":                    "2",
		"mtls_ca_score{directory=https://b/d}":                              "0",
		"mtls_ca_latency_seconds{directory=https://b/d}":                    "0",
	})
	m.Forget(worse)
	check(t, gathered(t, m), one)
}

func TestHooks(t *testing.T) {
	m := mtlsprom.New()
	h := m.Hooks()
	var all sync.WaitGroup
	for range 10 { // hooks run on many goroutines
		all.Go(func() {
			h.Attempted(mtls.Attempt{Directory: "https://a/d", Usage: mtls.UsageServer, Took: time.Second})
			h.Attempted(mtls.Attempt{Directory: "https://a/d", Usage: mtls.UsageClient, Err: errors.New("no")})
			h.Shaken(mtls.Handshake{Server: true, Peer: "a"})
			h.Shaken(mtls.Handshake{Server: true, Resumed: true, Err: fmt.Errorf("so: %w", &mtls.PeerError{Reason: mtls.RefusedPolicy})})
			h.Shaken(mtls.Handshake{Err: errors.New("no")})
		})
	}
	all.Wait()
	check(t, gathered(t, m), map[string]string{
		"mtls_attempts_total{directory=https://a/d,result=ok,usage=server}":     "10",
		"mtls_attempts_total{directory=https://a/d,result=failed,usage=client}": "10",
		"mtls_attempt_duration_seconds{directory=https://a/d}":                  "20",
		"mtls_handshakes_total{result=ok,resumed=false,role=server}":            "10",
		"mtls_handshakes_total{result=policy,resumed=true,role=server}":         "10",
		"mtls_handshakes_total{result=failed,resumed=false,role=client}":        "10",
	})
}

// An identity is what can be watched.
var _ mtlsprom.Watched = (*mtls.Identity)(nil)

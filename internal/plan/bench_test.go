package plan

import (
	"testing"
	"time"
)

// A million workloads, two and a half million certificates, a hundred keys,
// and a drain of a tenth of it.
func BenchmarkMillion(b *testing.B) {
	in := usual(1_000_000, 100_000, 100)
	in.Vary = 0
	for b.Loop() {
		begun := time.Now()
		r := mustRun(b, in)
		b.ReportMetric(float64(r.Signed)/time.Since(begun).Seconds(), "signatures/s")
		b.ReportMetric(r.Drain.Over.Seconds(), "drain-s")
	}
}

package plan

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func scratch(n, m, k, cl int) Input {
	in := Input{Fleet: Fleet{Workloads: n, PerWorkload: 2.5, Clients: cl, Lifetime: 24 * time.Hour}, Drain: Drain{Workloads: m}, OCSP: OCSP{Validity: 8 * time.Hour, Asked: .5}, CRL: CRL{Lists: 1}}
	for range k {
		in.Keys = append(in.Keys, Key{Signature: 200 * time.Millisecond})
	}
	return in
}
func TestScratch(t *testing.T) {
	over := scratch(40000, 0, 1, 20)
	over.OCSP.Asked = 1
	for i, in := range []Input{scratch(16000, 500, 4, 20), scratch(100000, 10000, 10, 20), scratch(16000, 0, 2, 20), over} {
		b := time.Now()
		r, err := Run(in)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("took %v signed %d\n%s\n", time.Since(b), r.Signed, r.Text())
		os.WriteFile(fmt.Sprintf("/tmp/plan%d.svg", i), r.SVG(), 0o644)
	}
}

package server

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chancery-pki/chancery/internal/config"
)

// What validation must not be turned against: our listeners, the database and
// the Kubernetes API.
func TestOwnAddresses(t *testing.T) {
	dir := t.TempDir()
	kube := "clusters: [{name: a, cluster: {server: \"https://10.0.0.1:6443\"}}, {name: b, cluster: {server: \"https://api.internal\"}}]\n"
	if err := os.WriteFile(filepath.Join(dir, "kube"), []byte(kube), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(filepath.Join(dir, "chancery.yaml"), []byte(`external_url: https://ca.internal
metrics: {listen: "127.0.0.1:9402"}
database: {dsn: "postgres://u@10.0.0.2/d"}
clusters: {prod: {kubeconfig: kube}}
`))
	if err != nil {
		t.Fatal(err)
	}
	own := ownAddresses(c)
	for _, want := range []string{"[::]:443", "127.0.0.1:9402", "10.0.0.2:5432", "10.0.0.1:6443"} {
		if !slices.Contains(own, netip.MustParseAddrPort(want)) {
			t.Errorf("%s is not among %v", want, own)
		}
	}
	if len(own) != 4 {
		t.Errorf("%v", own)
	}
}

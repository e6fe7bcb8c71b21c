package server

import (
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
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

// Yubico is believed, or whom the file names, and nobody where it can't be read.
func TestDeviceIssuers(t *testing.T) {
	dir := t.TempDir()
	maker, err := softcard.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Root().Raw})
	if err := os.WriteFile(filepath.Join(dir, "maker.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]struct {
		issuer, err string
		count       int
	}{
		"":                              {"Yubico PIV Root CA Serial 263751", "", 4},
		"devices: {issuers: maker.pem}": {"Test PIV Root CA", "", 1},
		"devices: {issuers: lost.pem}":  {"", ":2:20: devices.issuers: ", 0},
	} {
		c, err := config.Parse(filepath.Join(dir, "chancery.yaml"), []byte("external_url: https://ca.internal\n"+in+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := deviceProofs(c, device.Registry{})
		switch {
		case want.err != "":
			if err == nil || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%q: %v", in, err)
			}
		case err != nil || len(d.Issuers) != want.count || d.Issuers[0].Subject.CommonName != want.issuer:
			t.Errorf("%q: %v, %v", in, d.Issuers, err)
		}
	}
}

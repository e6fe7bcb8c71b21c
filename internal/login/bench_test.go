//go:build linux && pcsc && cgo

package login_test

import (
	"context"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// BenchmarkLogin is a login for two certificates at a CA of this machine, as
// `chanceryd init --ssh` makes it, with a card as slow as a YubiKey; ratio is the
// time it takes by that which the card's two signatures take by themselves.
func BenchmarkLogin(b *testing.B) {
	d := newDesk(b, protocol.YubiKey01)
	d.CAs = []settings.CA{realCA(b)}
	d.Certificates[0].Profile = ""
	const delay = 500 * time.Millisecond
	card.SetDelay(delay)
	defer card.SetDelay(0)
	before, start := card.Signatures(), time.Now()
	for b.Loop() {
		if _, err := d.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	took, signatures := time.Since(start), card.Signatures()-before
	alone := twoSignatures(b)
	each := took / time.Duration(b.N)
	b.ReportMetric(float64(signatures)/float64(b.N), "signatures/op")
	b.ReportMetric(float64(each)/float64(alone), "ratio")
	if signatures > 2*b.N || each > alone*3/2 {
		b.Errorf("%d signatures in %d logins; %v each, the card alone %v: want 2 and 1.5 times that at most", signatures, b.N, each, alone)
	}
}

// twoSignatures is how long the card takes for two.
func twoSignatures(b *testing.B) time.Duration {
	b.Helper()
	key, err := new(yubikey.Cards).Open(b.Context(), "yubikey:slot=9a", source(softcard.DefaultPIN))
	check(b, err)
	defer key.Close()
	start := time.Now()
	for range 2 {
		_, err := yubikey.SignMessage(key, []byte("what is signed"))
		check(b, err)
	}
	return time.Since(start)
}

// realCA runs one that believes in the card's maker, and enrolls the card.
func realCA(b *testing.B) settings.CA {
	b.Helper()
	dir, err := os.MkdirTemp("", "chancery-") // b.TempDir is too long for a socket
	check(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	free, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	address := free.Addr().String()
	free.Close()
	made, err := setup.Init{
		Dir: filepath.Join(dir, "ca"), Name: "Test", DNS: "127.0.0.1", RootPassword: []byte("secret"), SSH: true,
		Overrides: func(x *config.Example) {
			x.ExternalURL, x.Listen, x.Publish, x.Metrics, x.AdminSocket = "https://"+address, address, "127.0.0.1:0", "", "admin.sock"
			x.Allow = []string{"127.0.0.1", "*.people.internal"}
			x.Publish = "127.0.0.1:0" // tests run side by side
		},
	}.Run(b.Context())
	check(b, err)
	var issuers []byte
	for _, c := range maker.Issuers() {
		issuers = append(issuers, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	text, err := os.ReadFile(made.Config)
	check(b, err)
	check(b, os.WriteFile(filepath.Join(dir, "ca", "maker.pem"), issuers, 0o600))
	check(b, os.WriteFile(made.Config, append(text, "\ndevices:\n  issuers: maker.pem\n"...), 0o600))
	c, err := config.Load(made.Config)
	check(b, err)
	ctx, stop := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan server.Running, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{Config: c, Version: "test", Logger: slog.New(slog.DiscardHandler), Ready: func(r server.Running) { ready <- r }})
	}()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		b.Fatal(err)
	}
	enroll(b, filepath.Join(dir, "ca", "admin.sock"))
	return settings.CA{Name: "real", Directory: "https://" + address + "/acme/people/directory", Roots: made.Bundle}
}

// enroll makes the card's key alice's.
func enroll(b *testing.B, socket string) {
	b.Helper()
	cards := new(yubikey.Cards)
	a, _, err := cards.Attest(b.Context(), "yubikey:slot=9a")
	check(b, err)
	key, err := cards.Open(b.Context(), "yubikey:slot=9a", source(softcard.DefaultPIN))
	check(b, err)
	defer key.Close()
	at := time.Now().UTC().Truncate(time.Second)
	possession, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, "alice", at))
	check(b, err)
	admin, err := client.New(client.Options{Address: "unix:" + socket})
	check(b, err)
	defer admin.Close()
	_, err = admin.Enroll(b.Context(), api.NewDevice{
		Owner: "alice", Identities: api.Identities{Names: []string{"alice.people.internal"}, Principals: []string{"alice"}},
		Attestation: string(a.PEM()), Possession: possession, MadeAt: at,
	})
	check(b, err)
}

package mtls

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// identityOf is an identity that has its certificate already, for both
// usages, and gets no other: nothing of it runs.
func (h *house) identityOf(c *tls.Certificate) *Identity {
	h.t.Helper()
	dir := h.t.TempDir()
	servers, clients := filepath.Join(dir, "servers"), filepath.Join(dir, "clients")
	writeRoots(h.t, servers, h.root)
	writeRoots(h.t, clients, h.root)
	trust, err := NewTrust(TrustConfig{
		Servers: []Roots{RootsFile(servers)}, Clients: []Roots{RootsFile(clients)}, Logger: slog.New(slog.DiscardHandler), FilesEvery: -1,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	rootFiles.Store(trust, map[Usage]string{UsageServer: servers, UsageClient: clients})
	id := &Identity{trust: trust, log: slog.New(slog.DiscardHandler), clock: systemClock{}}
	certs := make([]*x509.Certificate, len(c.Certificate))
	for i, der := range c.Certificate {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			h.t.Fatal(err)
		}
	}
	credential := &issued.Credential{Key: c.PrivateKey.(crypto.Signer)}
	credential.Add(certs)
	id.server, id.client = &slot.Slot{Names: c.Leaf.DNSNames}, &slot.Slot{Client: true, Names: c.Leaf.DNSNames}
	id.server.Current.Store(credential)
	id.client.Current.Store(credential)
	id.life.ctx, id.life.end = context.WithCancel(context.Background())
	id.life.close = sync.OnceFunc(func() {
		id.life.end()
		id.net.close()
		rootFiles.Delete(trust)
		trust.Close()
	})
	h.t.Cleanup(func() { id.Close() })
	return id
}

// rootFiles are where each Trust has its roots from.
var rootFiles sync.Map

func writeRoots(t testing.TB, file string, roots ...*x509.Certificate) {
	t.Helper()
	var text []byte
	for _, r := range roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})...)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// setRoots changes whom an identity trusts.
func setRoots(t testing.TB, id *Identity, peers Usage, roots ...*x509.Certificate) {
	t.Helper()
	files, _ := rootFiles.Load(id.trust)
	writeRoots(t, files.(map[Usage]string)[peers], roots...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := id.trust.Reload(ctx); err != nil {
		t.Fatal(err)
	}
}

// pending makes a tls-alpn-01 challenge pending for a name.
func (id *Identity) pending(t *testing.T, name string) {
	t.Helper()
	proof := acme.Proof{Authorization: acme.Authorization{Identifier: acme.Identifiers(name)[0]}, KeyAuthorization: keyAuthorization}
	if _, err := id.alpn.Present(t.Context(), proof); err != nil {
		t.Fatal(err)
	}
}

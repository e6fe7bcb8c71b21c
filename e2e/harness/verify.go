package harness

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// systemCerts is where OpenSSL and GnuTLS of Debian look for roots.
const systemCerts = "/etc/ssl/certs"

// TrustSystemWide puts the root of the CA's HTTPS certificate into the
// system's trust store, which is empty otherwise, for clients that know no
// other.
func (ca *CA) TrustSystemWide() {
	ca.w.Helper()
	root := ca.w.Read(ca.TLSRoot)
	hash := strings.TrimSpace(ca.w.Run("openssl", "x509", "-noout", "-hash", "-in", ca.TLSRoot))
	for _, name := range []string{"ca-certificates.crt", hash + ".0"} {
		if err := os.WriteFile(filepath.Join(systemCerts, name), []byte(root), 0o644); err != nil {
			ca.w.Fatal(err)
		}
	}
}

// HTTPClient is an HTTP client that trusts the directory's HTTPS root only.
func (ca *CA) HTTPClient() *http.Client {
	ca.w.Helper()
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}},
	}
}

// Pool holds the root of the directory's HTTPS certificate.
func (ca *CA) Pool() *x509.CertPool {
	ca.w.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca.w.Read(ca.TLSRoot))) {
		ca.w.Fatalf("no certificate in %s", ca.TLSRoot)
	}
	return pool
}

// Verify has OpenSSL verify a certificate chain that a client stored (a PEM
// file, or several to be joined) for every name, a DNS name or an IP address,
// and checks what all clients want of a chain: the leaf first, each
// certificate signed by the next, the root left out. It returns the leaf.
func (w *World) Verify(ca *CA, names []string, files ...string) *x509.Certificate {
	w.Helper()
	var text strings.Builder
	for _, f := range files {
		text.WriteString(w.Read(f))
	}
	chain := w.Chain(text.String())
	leaf := chain[0]
	args := []string{"verify", "-CAfile", ca.Root, "-purpose", "sslserver", "-x509_strict"}
	if len(chain) > 1 {
		args = append(args, "-untrusted", w.writePEM(chain[1:]))
	}
	for _, name := range names {
		kind := "-verify_hostname"
		if net.ParseIP(name) != nil {
			kind = "-verify_ip"
		}
		w.Run("openssl", append(slices.Clone(args), kind, strings.Replace(name, "*", "any", 1), w.writePEM(chain[:1]))...)
	}
	got := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		got = append(got, ip.String())
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(names)); !slices.Equal(got, want) {
		w.Errorf("the certificate is for %q, want %q", got, want)
	}
	for i, c := range chain[:len(chain)-1] {
		if err := c.CheckSignatureFrom(chain[i+1]); err != nil {
			w.Errorf("certificate %d of the chain is not signed by the next: %v", i, err)
		}
	}
	if last := chain[len(chain)-1]; string(last.RawIssuer) == string(last.RawSubject) {
		w.Error("the chain ends with a root, which nobody needs")
	}
	return leaf
}

// Chain parses a PEM text of certificates, at least one.
func (w *World) Chain(text string) []*x509.Certificate {
	w.Helper()
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" { // HAProxy and others keep the key in the same file
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			w.Fatal(err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		w.Fatalf("no certificate in %q", text)
	}
	return chain
}

func (w *World) writePEM(certs []*x509.Certificate) string {
	w.Helper()
	f, err := os.CreateTemp(w.Dir, "*.pem")
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	for _, c := range certs {
		if err := pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			w.Fatal(err)
		}
	}
	return f.Name()
}

// SavePEM writes a chain to a file and returns its path.
func (w *World) SavePEM(name string, der ...[]byte) string {
	var text strings.Builder
	for _, d := range der {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d}))
	}
	return w.Write(name, text.String())
}

// KeyIs checks the kind of a certificate's key: "P-256", "P-384", "P-521",
// "Ed25519", or "RSA-2048" and the like.
func (w *World) KeyIs(cert *x509.Certificate, want string) {
	w.Helper()
	got := fmt.Sprintf("%T", cert.PublicKey)
	switch k := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		got = k.Curve.Params().Name
	case *rsa.PublicKey:
		got = "RSA-" + strconv.Itoa(k.N.BitLen())
	case ed25519.PublicKey:
		got = "Ed25519"
	}
	if got != want {
		w.Errorf("the certificate's key is %s, want %s", got, want)
	}
}

// Renewed checks that two certificates for the same names are not one.
func (w *World) Renewed(was, is *x509.Certificate) {
	w.Helper()
	if was.SerialNumber.Cmp(is.SerialNumber) == 0 {
		w.Errorf("serial %x again: nothing was renewed", is.SerialNumber)
	}
	if is.NotBefore.Before(was.NotBefore) {
		w.Errorf("the new certificate begins at %v, before the old one at %v", is.NotBefore, was.NotBefore)
	}
}

// Revoked checks that a certificate is revoked: a second revocation, signed
// with the certificate's own key, must be refused with alreadyRevoked (RFC
// 8555, 7.6).
func (w *World) Revoked(ca *CA, cert *x509.Certificate, keyFile string) {
	w.Helper()
	w.RevokedKey(ca, cert, w.Key(keyFile))
}

// RevokedKey is Revoked with the certificate's key in memory.
func (w *World) RevokedKey(ca *CA, cert *x509.Certificate, key crypto.Signer) {
	w.Helper()
	c := acme.Client{Directory: ca.Directory, HTTPClient: ca.HTTPClient()}
	err := c.RevokeCertificate(context.Background(), acme.Account{}, cert, key, acme.ReasonUnspecified)
	p, ok := errors.AsType[acme.Problem](err)
	if !ok || p.Type != acme.ProblemTypeAlreadyRevoked || p.Status != http.StatusBadRequest {
		w.Errorf("a second revocation is answered by %v, want alreadyRevoked (400)", err)
	}
}

// Key reads a private key from the first PEM block that is one.
func (w *World) Key(file string) crypto.Signer {
	w.Helper()
	for rest := []byte(w.Read(file)); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			w.Fatalf("no private key in %s", file)
		}
		if k, err := x509.ParsePKCS8PrivateKey(b.Bytes); err == nil {
			return k.(crypto.Signer)
		}
		if k, err := x509.ParseECPrivateKey(b.Bytes); err == nil {
			return k
		}
		if k, err := x509.ParsePKCS1PrivateKey(b.Bytes); err == nil {
			return k
		}
	}
}

// WriteKey writes a private key to a file and returns its path.
func (w *World) WriteKey(name string, key crypto.Signer) string {
	w.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.Fatal(err)
	}
	return w.Write(name, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// NewKey makes a P-256 key.
func (w *World) NewKey() *ecdsa.PrivateKey {
	w.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	return k
}

// httpsCert makes a root and a certificate for 127.0.0.1 under it, for a
// stand-in that has none of its own.
func (w *World) httpsCert() (root, cert, key string) {
	w.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e https root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, leafKey := w.NewKey(), w.NewKey()
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		w.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		w.Fatal(err)
	}
	return w.SavePEM("https-root.pem", caDER), w.SavePEM("https.pem", leafDER), w.WriteKey("https.key", leafKey)
}

// httpGet fetches a URL, trusting one root.
func (w *World) httpGet(root, url string) string {
	w.Helper()
	ca := &CA{w: w, TLSRoot: root}
	res, err := ca.HTTPClient().Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return string(b)
}

// user looks a system user up.
func (w *World) user(name string) (uid, gid int) {
	w.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		w.Fatal(err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		w.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		w.Fatal(err)
	}
	return uid, gid
}

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// startPebble starts Pebble as fast as it goes: no pause before validations,
// no nonce refused for practice, no authorization reused. It makes three
// validations of every challenge and keeps all in memory.
func (l *lab) startPebble(ctx context.Context) (*server, error) {
	dir, err := l.mkdir("pebble")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	leaf, err := l.authority.leaf()
	if err != nil {
		return nil, err
	}
	if err := leaf.write(cert, key); err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	config := filepath.Join(dir, "pebble.json")
	err = writeJSON(config, map[string]any{"pebble": map[string]any{
		"listenAddress": addr, "certificate": cert, "privateKey": key,
		"httpPort": l.answers.httpPort, "tlsPort": 1, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles":   map[string]any{"default": map[string]any{"description": "24 hours", "validityPeriod": 86400}},
	}})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(l.peers, "pebble"), "-config", config, "-dnsserver", l.answers.dns)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	p, err := start(cmd, filepath.Join(l.dir, "pebble.log"))
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, listening(addr)); err != nil {
		_ = p.stop(syscall.SIGTERM)
		return nil, err
	}
	// Pebble takes locks in two orders and stops for good when 32 clients
	// drive it; eight were seen to do it no harm.
	return &server{directory: "https://" + addr + "/dir", roots: l.authority.roots(), processes: []*process{p}, maxClients: 8}, nil
}

// startStep starts step-ca as `step ca init --acme` would set it up: badger
// as its database, text logs, P-256 throughout. Its resolver and port for
// http-01 are what chanceryd's are.
func (l *lab) startStep(ctx context.Context) (*server, error) {
	dir, err := l.mkdir("step-ca")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	root, cert, key := filepath.Join(dir, "root.pem"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	issuing, err := l.authority.issuing()
	if err != nil {
		return nil, err
	}
	if err := issuing.write(cert, key); err != nil {
		return nil, err
	}
	if err := os.WriteFile(root, pemCertificate(l.authority.cert), 0o600); err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	config := filepath.Join(dir, "ca.json")
	err = writeJSON(config, map[string]any{
		"root": root, "crt": cert, "key": key, "address": addr, "dnsNames": []string{"127.0.0.1"},
		"logger": map[string]string{"format": "text"},
		"db":     map[string]string{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{
			map[string]any{"type": "ACME", "name": "acme"},
		}},
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(l.peers, "step-ca"), config, "--insecure",
		"--acme-http-port", strconv.Itoa(l.answers.httpPort), "--resolver", l.answers.dns)
	cmd.Env = append(os.Environ(), "STEPPATH="+dir)
	p, err := start(cmd, filepath.Join(l.dir, "step-ca.log"))
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, listening(addr)); err != nil {
		_ = p.stop(syscall.SIGTERM)
		return nil, err
	}
	return &server{directory: "https://" + addr + "/acme/acme/directory", roots: l.authority.roots(), processes: []*process{p},
		dataBytes: func() int64 { return fileBytes(filepath.Join(dir, "db")) }}, nil
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// authority is a root for the servers that don't make their own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// pair is a certificate with its key.
type pair struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	issuer *x509.Certificate
}

func newAuthority() (*authority, error) {
	a := new(authority)
	p, err := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "Benchmark root"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	if err != nil {
		return nil, err
	}
	a.cert, a.key = p.cert, p.key
	return a, nil
}

// sign makes a key and its certificate; the first is the root itself.
func (a *authority) sign(t *x509.Certificate) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t.SerialNumber, t.NotBefore, t.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
	issuer, by := a.cert, a.key
	if issuer == nil {
		issuer, by = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &pair{cert, key, issuer}, err
}

// leaf makes a certificate for a server on 127.0.0.1.
func (a *authority) leaf() (*pair, error) {
	return a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

// issuing makes a CA below the root.
func (a *authority) issuing() (*pair, error) {
	return a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "Benchmark issuing CA"}, IsCA: true, MaxPathLenZero: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (p *pair) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

func (p *pair) write(certFile, keyFile string) error {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pemCertificate(p.cert), 0o600)
}

func pemCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

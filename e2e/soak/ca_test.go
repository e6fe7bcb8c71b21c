package soak_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// cheapCA speaks as much ACME (RFC 8555) as the library asks of it, believes
// everything, and keeps nothing but a certificate until it is fetched. It is
// called without a network, as an http.RoundTripper.
type cheapCA struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey

	mu    sync.Mutex
	last  int64
	ready map[string][]byte // PEM chains by path
	names map[string]int    // certificates by name
}

func newCA(t *testing.T) *cheapCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "soak"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &cheapCA{root: root, key: key, last: 1, ready: map[string][]byte{}, names: map[string]int{}}
}

func (ca *cheapCA) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

func (ca *cheapCA) client() *http.Client { return &http.Client{Transport: ca} }

// counts are the certificates of each name.
func (ca *cheapCA) counts() map[string]int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return maps.Clone(ca.names)
}

func (ca *cheapCA) issued() (sum int) {
	for _, n := range ca.counts() {
		sum += n
	}
	return sum
}

const base = "https://ca.test"

// RoundTrip answers a request.
func (ca *cheapCA) RoundTrip(r *http.Request) (*http.Response, error) {
	var payload []byte
	if r.Body != nil {
		var jws struct{ Payload string }
		err := json.NewDecoder(r.Body).Decode(&jws)
		r.Body.Close()
		if err != nil {
			return nil, err
		}
		if payload, err = base64.RawURLEncoding.DecodeString(jws.Payload); err != nil {
			return nil, err
		}
	}
	w := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: r, ProtoMajor: 1, ProtoMinor: 1}
	w.Header.Set("Replay-Nonce", rand.Text())
	w.Header.Set("Content-Type", "application/json")
	body, err := ca.answer(w, r, payload)
	if err != nil {
		return nil, err
	}
	w.ContentLength, w.Body = int64(len(body)), io.NopCloser(bytes.NewReader(body))
	return w, nil
}

func (ca *cheapCA) answer(w *http.Response, r *http.Request, payload []byte) ([]byte, error) {
	what, _, _ := strings.Cut(r.URL.Path[1:], "/")
	switch what {
	case "directory":
		return json.Marshal(map[string]string{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order"})
	case "nonce":
		return nil, nil
	case "account":
		w.StatusCode = http.StatusCreated
		w.Header.Set("Location", base+"/account/"+rand.Text())
		return []byte(`{"status":"valid"}`), nil
	case "order":
		w.StatusCode = http.StatusCreated
		w.Header.Set("Location", base+"/order/1")
		return ca.order(payload, "ready", "")
	case "finalize":
		return ca.finalize(w, payload)
	case "certificate":
		w.Header.Set("Content-Type", "application/pem-certificate-chain")
		ca.mu.Lock()
		defer ca.mu.Unlock()
		chain := ca.ready[r.URL.Path]
		delete(ca.ready, r.URL.Path)
		return chain, nil
	}
	return nil, fmt.Errorf("nobody asked for %s", r.URL)
}

// order is one that says of itself what the client asked for.
func (ca *cheapCA) order(asked []byte, status, certificate string) ([]byte, error) {
	order := map[string]any{}
	if err := json.Unmarshal(asked, &order); err != nil {
		return nil, err
	}
	order["status"], order["finalize"], order["authorizations"] = status, base+"/finalize", []string{base + "/authz"}
	if certificate != "" {
		order["certificate"] = base + certificate
	}
	return json.Marshal(order)
}

// finalize signs what the CSR asks for, for a day and both usages.
func (ca *cheapCA) finalize(w *http.Response, payload []byte) ([]byte, error) {
	var body struct{ CSR string }
	if err := json.Unmarshal(payload, &body); err != nil {
		return nil, err
	}
	der, err := base64.RawURLEncoding.DecodeString(body.CSR)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	path, serial := ca.take(csr.DNSNames[0])
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: csr.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, ca.root, csr.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	ca.ready[path] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	ca.mu.Unlock()
	w.Header.Set("Location", base+"/order/1")
	asked, err := json.Marshal(map[string]any{"identifiers": []map[string]string{{"type": "dns", "value": csr.DNSNames[0]}}})
	if err != nil {
		return nil, err
	}
	return ca.order(asked, "valid", path)
}

// take counts a certificate and gives it a place and a serial number.
func (ca *cheapCA) take(name string) (path string, serial int64) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.last++
	ca.names[name]++
	return fmt.Sprintf("/certificate/%d", ca.last), ca.last
}

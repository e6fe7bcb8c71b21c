//go:build pcsc && cgo

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// readers are those of a pcscd of the tests' own, also where a test runs several
// times.
var readers *reader.Reader

func TestMain(m *testing.M) { reader.Main(m, 1, &readers) }

// An operator's key in a YubiKey (a soft card behind the real pcscd): the PIN
// once for all CAs, one touch for each, and the card given back.
func TestOperatorOnACard(t *testing.T) {
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	t.Setenv(name, value)
	card, err := softcard.New(softcard.Options{Serial: 4711})
	if err != nil {
		t.Fatal(err)
	}
	if err := readers.Insert(0, card); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { readers.Remove(0) })
	asked, touches := 0, 0
	pin := func(context.Context) ([]byte, error) { asked++; return []byte(softcard.DefaultPIN), nil }
	cards := new(yubikey.Cards)
	const uri = "yubikey:serial=4711;slot=9a"
	key, _, err := cards.Generate(t.Context(), uri, yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin, TouchPolicy: yubikey.TouchAlways})
	if err != nil {
		t.Fatal(err)
	}
	certificate := cardCertificate(t, key)
	if err := key.Close(); err != nil {
		t.Fatal(err)
	}
	asked = 0
	before := card.Signatures()

	// A wrong PIN is shown once, however many CAs there are.
	tries, wrong := card.Verifies(), 0
	clumsy := &Operator{Certificate: certificate, Key: uri, Cards: new(yubikey.Cards), PIN: func(context.Context) ([]byte, error) {
		wrong++
		return []byte{'6', '5', '4', '3', '2', byte('0' + wrong)}, nil
	}}
	for range 2 {
		url, roots := remote(t, http.NotFoundHandler(), certificate)
		if err := status(t, Options{Address: url, Roots: roots, Operator: clumsy}); err == nil || !strings.Contains(err.Error(), "2 tries left") {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	if wrong != 1 || card.Verifies()-tries != 1 {
		t.Errorf("%d wrong PINs were asked for, %d shown", wrong, card.Verifies()-tries)
	}
	if err := clumsy.Close(); err != nil {
		t.Error(err)
	}

	o := &Operator{Certificate: certificate, Key: uri, Cards: cards, PIN: pin, Touch: func() { touches++ }}
	for range 2 {
		url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") }), certificate)
		c, err := New(Options{Address: url, Roots: roots, Operator: o})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 3 {
			if err := c.Do(t.Context(), "GET", "/v1/status", nil, nil, &struct{}{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Another CA takes another certificate of the same key.
	theirs := cardCertificate(t, o.cards.keys[uri])
	url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") }), theirs)
	if err := status(t, Options{Address: url, Roots: roots, Operator: o}); err == nil || !strings.Contains(err.Error(), "doesn't take the operator's certificate "+certificate) {
		t.Errorf("the first CA's certificate: %v", err)
	}
	if err := status(t, Options{Address: url, Roots: roots, Operator: o.At(theirs, uri)}); err != nil {
		t.Errorf("its own: %v", err)
	}
	if asked != 1 || touches != 4 || card.Signatures()-before != 4 {
		t.Errorf("the PIN was asked %d times, a touch %d times, for %d signatures", asked, touches, card.Signatures()-before)
	}
	card.SetTouched(false)
	url, roots = remote(t, http.NotFoundHandler(), certificate)
	if err := status(t, Options{Address: url, Roots: roots, Operator: o}); err == nil || !strings.Contains(err.Error(), "nobody touched it") {
		t.Errorf("without a touch: %v", err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if _, err := new(yubikey.Cards).List(t.Context()); err != nil {
		t.Errorf("the card wasn't given back: %v", err)
	}
	if err := readers.Remove(0); err != nil {
		t.Fatal(err)
	}
	if err := status(t, Options{Address: url, Roots: roots, Operator: o}); err == nil || !strings.Contains(err.Error(), "no such card") {
		t.Errorf("without the card: %v", err)
	}
}

// cardCertificate writes a certificate of the card's key, by a CA of its own,
// and that after it.
func cardCertificate(t *testing.T, key *yubikey.Key) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, RawSubject: []byte{0x30, 0}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "operator.pem")
	var text []byte
	for _, b := range [][]byte{der, caDER} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

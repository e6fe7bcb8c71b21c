package client

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
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// pair makes a certificate, self-signed, and its files.
func pair(t *testing.T, end time.Time) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "operator.pem"), filepath.Join(dir, "operator.key")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// remote is an admin API over TLS that wants a certificate of a file, and the
// roots to trust it.
func remote(t *testing.T, handler http.Handler, wants string) (string, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	data, err := os.ReadFile(wants)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(data)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server.URL, roots
}

func status(t *testing.T, o Options) error {
	t.Helper()
	c, err := New(o)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(t.Context(), "GET", "/v1/status", nil, nil, &struct{}{})
}

// What keeps an operator from a server is one line that says what to do.
func TestErrors(t *testing.T) {
	certificate, key := pair(t, time.Now().Add(time.Hour))
	another, anotherKey := pair(t, time.Now().Add(time.Hour))
	ended, endedKey := pair(t, time.Now().Add(-time.Minute))
	loose := filepath.Join(t.TempDir(), "loose.key")
	data, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(loose, data, 0o644); err != nil {
		t.Fatal(err)
	}
	url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		fmt.Fprint(w, `{"type":"x","detail":"this certificate is not an operator's","status":403}`)
	}), certificate)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := &Operator{Certificate: certificate, Key: key}
	for _, c := range []struct {
		name    string
		options Options
		says    string
	}{
		{"no socket", Options{Address: "unix:" + file + ".none"}, "no admin socket at " + file + ".none: is chanceryd running"},
		{"no socket, path alone", Options{Address: file + ".none"}, "no admin socket at " + file + ".none: is chanceryd running"},
		{"a dead socket", Options{Address: file}, "nobody answers at " + file},
		{"no address", Options{}, `"" is not an admin API's address`},
		{"no host", Options{Address: "https://"}, "is not an admin API's address: want https://HOST:PORT or unix:PATH"},
		{"a path", Options{Address: "https://ca.internal/v1"}, "is not an admin API's address"},
		{"in clear", Options{Address: "http://ca.internal"}, "is not an admin API's address"},
		{"nobody", Options{Address: url, Roots: roots}, "over TLS an operator's certificate is needed"},
		{"no files", Options{Address: url, Roots: roots, Operator: &Operator{}}, "over TLS an operator's certificate is needed"},
		{"missing file", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: file + ".none", Key: key}}, "no such file"},
		{"no certificate", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: file, Key: key}}, "the file has no PEM certificate"},
		{"no key", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: certificate}}, "has no private key in PEM"},
		{"a key for all to read", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: loose}}, "run: chmod 0600 " + loose},
		{"another key", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: anotherKey}}, "its key is not " + anotherKey},
		{"ended", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: ended, Key: endedKey}}, "chancery login gets a new one"},
		{"a bad URI", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: "yubikey:slot=zz", Cards: new(yubikey.Cards)}}, "the operator's certificate"},
		{"another CA's", Options{Address: url, Roots: roots, Operator: &Operator{Certificate: another, Key: anotherKey}}, "doesn't take the operator's certificate " + another},
		{"an unknown server", Options{Address: url, Roots: x509.NewCertPool(), Operator: good}, "name a file with the CA's root as roots"},
		{"another name", Options{Address: strings.Replace(url, "127.0.0.1", "localhost", 1), Roots: roots, Operator: good}, "shows a certificate for another name"},
		{"nobody there", Options{Address: "https://127.93.7.5:1", Roots: roots, Operator: good}, "is chanceryd running there, with admin.listen?"},
		{"refused", Options{Address: url, Roots: roots, Operator: good}, "this certificate is not an operator's"},
	} {
		err := status(t, c.options)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant: %s", c.name, err, c.says)
		}
		if _, refused := errors.AsType[*api.Problem](err); refused != (c.name == "refused") {
			t.Errorf("%s: a problem of the server's: %v", c.name, refused)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := New(Options{Address: url, Roots: roots, Operator: good})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(ctx, "GET", "/", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// answers that aren't what they should be.
func TestAnswers(t *testing.T) {
	certificate, key := pair(t, time.Now().Add(time.Hour))
	for body, says := range map[string]string{
		"200 [":      "is not what this version understands",
		"500 oops":   "the server answered 500",
		"302 {}":     "the server answered 302",
		"403 [1, 2]": "the server answered 403",
	} {
		url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var status int
			fmt.Sscan(body, &status)
			w.Header().Set("Location", "/v1/elsewhere")
			w.WriteHeader(status)
			io.WriteString(w, body[4:])
		}), certificate)
		err := status(t, Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: key}})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Every call of devices and watched keys goes where the server's is.
func TestCalls(t *testing.T) {
	certificate, key := pair(t, time.Now().Add(time.Hour))
	var seen []string
	connections := map[string]bool{}
	url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		connections[r.RemoteAddr] = true
		seen = append(seen, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		switch {
		case r.URL.Path == "/v1/devices" && r.Method == "GET" && r.URL.Query().Get("after") == "":
			json.NewEncoder(w).Encode(api.List[api.Device]{Next: "d2", Items: []api.Device{
				{ID: "d0", Serial: 4711, Slot: "9c", State: "active"}, {ID: "d1", Serial: 4711, Slot: "9a", State: "retired"}, {ID: "d2", Serial: 4711, Slot: "9a", State: "active"},
			}})
		case strings.HasSuffix(r.URL.Path, "/endless") || r.URL.Query().Get("limit") != "" && strings.Contains(r.URL.Path, "advisories"):
			fmt.Fprint(w, `{"items":[],"next":"x"}`)
		default:
			fmt.Fprint(w, `{}`)
		}
	}), certificate)
	c, err := New(Options{Address: url, Roots: roots, Operator: &Operator{Certificate: certificate, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	for _, call := range []struct {
		do   func() error
		want string
	}{
		{func() error { _, err := c.Enroll(ctx, api.NewDevice{Owner: "alice"}); return err }, `POST /v1/devices {"owner":"alice","attestation":"","possession":null,"made_at":"0001-01-01T00:00:00Z"}`},
		{func() error { _, err := c.Devices(ctx, DeviceFilter{Owner: "a@b", Name: "x"}); return err }, "GET /v1/devices?limit=1000&name=x&owner=a%40b\nGET /v1/devices?after=d2&limit=1000&name=x&owner=a%40b"},
		{func() error { _, err := c.Device(ctx, "4711"); return err }, "GET /v1/devices/4711"},
		{func() error { _, err := c.Device(ctx, "../x"); return err }, "GET /v1/devices/..%2Fx"},
		{func() error { _, err := c.Device(ctx, "4711-9a"); return err }, "GET /v1/devices?limit=1000\nGET /v1/devices?after=d2&limit=1000\nGET /v1/devices/d2"},
		{func() error { _, err := c.SetIdentities(ctx, "d1", api.Identities{Names: []string{"n"}}); return err }, `POST /v1/devices/d1/identities {"names":["n"]}`},
		{func() error { _, err := c.Retire(ctx, "d1", false); return err }, "POST /v1/devices/d1/retire"},
		{func() error { _, err := c.Retire(ctx, "d1", true); return err }, "POST /v1/devices/d1/retire?revoke=true"},
		{func() error { _, err := c.Lost(ctx, "d1"); return err }, "POST /v1/devices/d1/lost"},
		{func() error { _, err := c.RevokePerson(ctx, "a/b", api.Revocation{Reason: 1}); return err }, `POST /v1/people/a%2Fb/revoke {"reason":1}`},
		{func() error { _, err := c.AddAdvisory(ctx, api.Advisory{ID: "Y"}); return err }, `POST /v1/advisories {"id":"Y","first":"","last":""}`},
		{func() error { return c.WithdrawAdvisory(ctx, "Y") }, "POST /v1/advisories/Y/withdraw"},
		{func() error { _, err := c.WatchedKeys(ctx); return err }, "GET /v1/watched-keys?limit=1000"},
		{func() error { _, err := c.Watch(ctx, api.WatchedKey{Fingerprint: "SHA256:x"}); return err }, `POST /v1/watched-keys {"fingerprint":"SHA256:x","label":""}`},
		{func() error { return c.Forget(ctx, "SHA256:+/") }, "POST /v1/watched-keys/U0hBMjU2Oisv/forget"},
		{func() error { return c.Report(ctx, "SHA256:+/", api.Sighting{Host: "h"}) }, `POST /v1/watched-keys/U0hBMjU2Oisv/sightings {"host":"h","user":"","at":"0001-01-01T00:00:00Z"}`},
	} {
		seen = nil
		if err := call.do(); err != nil || strings.Join(seen, "\n") != call.want {
			t.Errorf("%v\ngot  %s\nwant %s", err, strings.Join(seen, "\n"), call.want)
		}
	}
	if len(connections) != 1 { // each costs a YubiKey's owner a touch
		t.Errorf("%d connections", len(connections))
	}
	if _, err := c.Device(ctx, "4711-9d"); err == nil || err.Error() != "slot 9d of YubiKey 4711 isn't enrolled" {
		t.Errorf("another slot: %v", err)
	}
	seen = nil
	if _, err := c.Advisories(ctx); !errors.Is(err, errEndless) || len(seen) != maxPages {
		t.Errorf("an endless listing: %v after %d pages", err, len(seen))
	}
}

// A program that runs on takes renewed files at its next handshake.
func TestRenewedFiles(t *testing.T) {
	old, oldKey := pair(t, time.Now().Add(-time.Minute))
	certificate, key := pair(t, time.Now().Add(time.Hour))
	url, roots := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") }), certificate)
	o := &Operator{Certificate: old, Key: oldKey}
	c, err := New(Options{Address: url, Roots: roots, Operator: o})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(t.Context(), "GET", "/v1/status", nil, nil, &struct{}{}); err == nil || !strings.Contains(err.Error(), "chancery login gets a new one") {
		t.Errorf("an old certificate: %v", err)
	}
	for from, to := range map[string]string{certificate: old, key: oldKey} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Do(t.Context(), "GET", "/v1/status", nil, nil, &struct{}{}); err != nil {
		t.Errorf("a renewed certificate: %v", err)
	}
}

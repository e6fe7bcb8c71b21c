package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// operating is a server with an admin API over TLS.
type operating struct {
	*running
	socket *http.Client
	key    *ecdsa.PrivateKey // of every certificate here
}

// call posts (or gets, without a body) and returns status and answer.
func (o *operating) call(c *http.Client, url, body string) (int, string) {
	o.t.Helper()
	method := "GET"
	if body != "" {
		method = "POST"
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// obtain gets a client certificate for a name that an EAB key approves.
func (o *operating) obtain(name string) tls.Certificate {
	o.t.Helper()
	status, answer := o.call(o.socket, "http://admin/v1/eab-keys", fmt.Sprintf(`{"directory":"clients","names":[%q],"pre_approved":true}`, name))
	var eab api.EABKey
	if err := json.Unmarshal([]byte(answer), &eab); err != nil || status != 200 {
		o.t.Fatal(status, answer)
	}
	mac, err := base64.RawURLEncoding.DecodeString(eab.HMACKey)
	if err != nil {
		o.t.Fatal(err)
	}
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, o.Listen.String())
	}
	c := &acme.Client{
		DirectoryURL: "https://127.0.0.1/acme/clients/directory", Key: account,
		HTTPClient: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: o.roots}}},
	}
	o.t.Cleanup(c.HTTPClient.CloseIdleConnections)
	if _, err := c.Register(o.t.Context(), acme.Registration{EAB: &acme.ExternalAccount{KeyID: eab.ID, MACKey: mac}}); err != nil {
		o.t.Fatal(err)
	}
	chain, err := c.Obtain(o.t.Context(), acme.ObtainRequest{Order: acme.OrderRequest{Identifiers: acme.Identifiers(name)}, Key: o.key})
	if err != nil {
		o.t.Fatal(err)
	}
	return tls.Certificate{Certificate: chain.DER, PrivateKey: o.key}
}

// as is a client that shows the certificate and keeps its connection.
func (o *operating) as(c tls.Certificate) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: o.roots, Certificates: []tls.Certificate{c}}}
	o.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// The admin API over TLS, with certificates that the CA issued: who is an
// operator follows the configuration at SIGHUP and each revocation, on
// connections that are open too.
func TestAdminOverTLS(t *testing.T) {
	made := newCA(t)
	const operators = "\n  listen: \"127.0.0.1:0\"\n  operators:\n    - {issuer: clients, profile: client, name: host.example, role: reporter}"
	edit(t, made.Config, "\n  socket: \"admin.sock\"", "\n  socket: \"admin.sock\""+operators)
	o := &operating{running: start(t, made)}
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(filepath.Dir(made.Config), "admin.sock"))
	}
	o.socket = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}

	url := "https://" + o.Admin.String() + "/v1/status"
	shown := o.obtain("host.example")
	host, other := o.as(shown), o.as(o.obtain("other.example"))
	const known, stranger = `role \"reporter\" may not do status.show`, "this certificate is not an operator's"
	if status, said := o.call(host, url, ""); status != 403 || !strings.Contains(said, known) {
		t.Errorf("%d %s", status, said)
	}
	if status, said := o.call(other, url, ""); status != 403 || !strings.Contains(said, stranger) {
		t.Errorf("%d %s", status, said)
	}
	if status, said := o.call(o.http, url, ""); status != 0 || !strings.Contains(said, "certificate required") {
		t.Errorf("without a certificate: %d %s", status, said)
	}

	edit(t, made.Config, "name: host.example", "name: other.example")
	edit(t, made.Config, "listen: \"127.0.0.1:0\"\n  operators", "listen: \"127.0.0.2:0\"\n  operators")
	o.hangUp("configuration reloaded")
	if o.log.count("admin.listen: this change takes effect at the next start only") != 1 {
		t.Error("nobody was told that admin.listen waits for a restart")
	}
	if status, said := o.call(other, url, ""); status != 403 || !strings.Contains(said, known) {
		t.Errorf("after a reload: %d %s", status, said)
	}
	if status, said := o.call(host, url, ""); status != 403 || !strings.Contains(said, stranger) {
		t.Errorf("after a reload: %d %s", status, said)
	}

	edit(t, made.Config, "name: other.example", "name: host.example")
	o.hangUp("configuration reloaded")
	o.call(host, url, "") // opens a connection
	leaf, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if status, said := o.call(o.socket, "http://admin/v1/certificates/"+string(cert.SerialOf(leaf.SerialNumber))+"/revoke", `{"reason":0}`); status != 200 {
		t.Fatal(status, said)
	}
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := host.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !reused || !strings.Contains(string(body), stranger) {
		t.Errorf("a revoked certificate, on the same connection %v: %s, %v", reused, body, err)
	}
}

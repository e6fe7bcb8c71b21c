package admin

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// ask makes a call that must succeed.
func ask[T any](t *testing.T, c *http.Client, method, path string, in any) (out T) {
	t.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, "http://admin"+path, &body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p api.Problem
		t.Fatalf("%s %s: %d %+v, %v", method, path, resp.StatusCode, p, json.NewDecoder(resp.Body).Decode(&p))
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// attested is a key in slot 9a of YubiKey 4711, of the CA that is returned too.
func attested(t *testing.T) (key crypto.Signer, a *yubikey.Attestation, maker *x509.Certificate) {
	t.Helper()
	var keys [3]*ecdsa.PrivateKey // of the maker, the device, the slot
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	arc := func(n int, value ...byte) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}, Value: value}
	}
	parent, by := (*x509.Certificate)(nil), keys[0]
	var chain [3]*x509.Certificate
	for i, name := range []string{"maker", "device", "YubiKey PIV Attestation 9a"} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
		if i == 2 {
			template.ExtraExtensions = []pkix.Extension{arc(3, 5, 7, 4), arc(7, 2, 2, 0x12, 0x67), arc(8, 2, 2), arc(9, 3)}
		} else {
			template.BasicConstraintsValid, template.IsCA = true, true
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, keys[i].Public(), by)
		if err == nil {
			chain[i], err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		parent, by = chain[i], keys[i]
	}
	a, err := yubikey.ParseAttestation(chain[2], chain[1])
	if err != nil {
		t.Fatal(err)
	}
	return keys[2], a, chain[0]
}

// A device's life over the API: what is written is what is read.
func TestDevices(t *testing.T) {
	s, db := newServer(t)
	_, c := serve(t, s)
	key, a, maker := attested(t)
	s.Console.Enrolment = func() operator.Enrolment { return operator.Enrolment{Issuers: []*x509.Certificate{maker}} }
	at := time.Now().UTC().Truncate(time.Second)
	signature, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, "alice", at))
	if err != nil {
		t.Fatal(err)
	}
	who := api.Identities{Names: []string{"alice.example"}, OtherNames: []string{"ci.example"}, Principals: []string{"alice"}, MaxLifetime: 3600}
	d := ask[api.Device](t, c, "POST", "/v1/devices", api.NewDevice{Owner: "alice", Identities: who, Attestation: string(a.PEM()), Possession: signature, MadeAt: at})
	if d.Serial != 4711 || d.Slot != "9a" || d.Firmware != "5.7.4" || d.FormFactor != "USB-C Keychain" || d.PINPolicy != "once" || d.TouchPolicy != "always" ||
		d.KeyType != "P-256" || d.Owner != "alice" || d.State != "active" || d.MaxLifetime != 3600 || d.Names[0] != "alice.example" ||
		d.OtherNames[0] != "ci.example" || d.Principals[0] != "alice" || d.Attestation != string(a.PEM()) || !strings.HasPrefix(d.EnrolledBy, "uid:") {
		t.Errorf("%+v", d)
	}
	if got := ask[api.Device](t, c, "GET", "/v1/devices/4711", nil); got.ID != d.ID || got.Attestation != d.Attestation {
		t.Errorf("%+v", got)
	}
	for query, want := range map[string]int{"": 1, "owner=Alice": 1, "owner=bob": 0, "state=lost": 0, "name=alice": 1, "limit=1": 1, "after=" + d.ID: 0} {
		l := ask[api.List[api.Device]](t, c, "GET", "/v1/devices?"+query, nil)
		if len(l.Items) != want || want == 1 && l.Items[0].Attestation != "" || (l.Next == d.ID) != (query == "limit=1") {
			t.Errorf("%s: %+v", query, l)
		}
	}
	if got := ask[api.Device](t, c, "POST", "/v1/devices/"+d.ID+"/identities", api.Identities{Names: []string{"a.alice.example"}}); got.Names[0] != "a.alice.example" || got.MaxLifetime != 0 {
		t.Errorf("%+v", got)
	}
	if got := ask[api.Advisory](t, c, "POST", "/v1/advisories", api.Advisory{ID: "YSA-1", First: "5.7.0", Last: "5.7.9"}); len(got.Devices) != 1 || got.Devices[0].Advisory != "YSA-1" {
		t.Errorf("%+v", got)
	}
	if got := ask[api.List[api.Advisory]](t, c, "GET", "/v1/advisories", nil); len(got.Items) != 1 || got.Items[0].First != "5.7.0" || got.Items[0].Last != "5.7.9" {
		t.Errorf("%+v", got)
	}
	ask[struct{}](t, c, "POST", "/v1/advisories/YSA-1/withdraw", nil)

	// What it holds.
	name := sshName("ecdsa-sha2-nistp256-cert-v01@openssh.com")
	for serial, format := range map[cert.Serial]cert.Format{"00000000000000aa": cert.OpenSSH, cert.NewSerial(): cert.X509} {
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.InsertCertificate(cert.Certificate{
				Serial: serial, Format: format, State: cert.Issued, Subject: protocol.Device{ID: protocol.DeviceID(d.ID)}.Subject(),
				DER: name, KeyHash: d.Key, NotAfter: time.Now().Add(time.Hour),
			}, time.Time{})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]int{"owner=alice": 2, "device=" + d.ID: 2, "device=x": 0, "format=ssh": 1, "format=x509&owner=alice": 1} {
		l := ask[api.List[api.Certificate]](t, c, "GET", "/v1/certificates?full=true&"+query, nil)
		if len(l.Items) != want {
			t.Errorf("%s: %+v", query, l)
		}
		for _, got := range l.Items {
			line := strings.HasPrefix(got.Chain, "ecdsa-sha2-nistp256-cert-v01@openssh.com AAAA")
			if got.Owner != "alice" || got.Subject != "device:"+d.ID || line != (got.Format == "ssh") || !line && !strings.HasPrefix(got.Chain, "-----BEGIN CERTIFICATE") {
				t.Errorf("%s: %+v", query, got)
			}
		}
	}
	got := ask[api.Withdrawn](t, c, "POST", "/v1/people/alice/revoke", api.Revocation{Reason: 3})
	if len(got.Devices) != 0 || len(got.Revoked) != 1 || got.Revoked[0].Format != "ssh" || *got.Revoked[0].Reason != 3 || len(got.Irrevocable) != 1 {
		t.Errorf("%+v", got)
	}
	if got := ask[api.Device](t, c, "POST", "/v1/devices/4711/retire?revoke=true", nil); got.State != "retired" || got.EndedAt.IsZero() {
		t.Errorf("%+v", got)
	}
	if got := ask[api.Withdrawn](t, c, "POST", "/v1/devices/4711/lost", nil); len(got.Devices) != 1 || got.Devices[0].State != "lost" || len(got.Irrevocable) != 1 {
		t.Errorf("%+v", got)
	}
}

// sshName begins an SSH certificate.
func sshName(name string) []byte {
	return append([]byte{0, 0, 0, byte(len(name))}, name...)
}

// A watched key is one by its fingerprint, and the alarm is heard.
func TestWatchedKeys(t *testing.T) {
	s, _ := newServer(t)
	_, c := serve(t, s)
	var heard []operator.Sighting
	s.Console.Sighted = func(_ protocol.WatchedKey, s operator.Sighting) { heard = append(heard, s) }
	k := api.WatchedKey{Fingerprint: "SHA256:" + strings.Repeat("/", 42) + "8", Label: "break glass"}
	if got := ask[api.WatchedKey](t, c, "POST", "/v1/watched-keys", k); got.Label != k.Label || got.CreatedAt.IsZero() {
		t.Errorf("%+v", got)
	}
	if got := ask[api.List[api.WatchedKey]](t, c, "GET", "/v1/watched-keys", nil); len(got.Items) != 1 || got.Items[0].Fingerprint != k.Fingerprint {
		t.Errorf("%+v", got)
	}
	path := "/v1/watched-keys/" + base64.RawURLEncoding.EncodeToString([]byte(k.Fingerprint))
	at := time.Now().UTC().Truncate(time.Second)
	ask[struct{}](t, c, "POST", path+"/sightings", api.Sighting{Host: "web", User: "root", From: "192.0.2.1", At: at, Detail: "line"})
	if want := (operator.Sighting{Host: "web", User: "root", From: "192.0.2.1", At: at, Detail: "line"}); len(heard) != 1 || heard[0] != want {
		t.Errorf("%+v", heard)
	}
	ask[struct{}](t, c, "POST", path+"/forget", nil)
	if got := ask[api.List[api.WatchedKey]](t, c, "GET", "/v1/watched-keys", nil); len(got.Items) != 0 {
		t.Errorf("%+v", got)
	}
}

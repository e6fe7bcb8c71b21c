package ceremony

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
)

// world is a root with one issuer below it, and a configuration.
type world struct {
	dir    string
	root   Parent
	config *config.Config
}

func newWorld(t *testing.T) world {
	t.Helper()
	dir := t.TempDir()
	w := world{dir: dir, root: newRoot(t, dir, cert.P256)}
	newCA(t, NewCA{
		Name: "Example Server CA", Organization: "Example", Usages: []cert.Usage{cert.Server}, Constrain: []string{"internal"},
		CRLURL: "http://crl.internal:8080", AIAURL: "http://crl.internal:8080", Lifetime: 400 * 24 * time.Hour,
	}, w.root, dir, "servers")
	w.load(t, `external_url: https://ca.internal
tls: {profile: server}
issuers:
  servers:
    signers:
      - key: file:servers.key
        certificate: servers.pem
    chain: root.pem
profiles:
  server: {issuer: servers, usages: [server]}
directories:
  servers: {profiles: [server], names: {allow: ["*.internal"]}}
`)
	return w
}

func (w *world) load(t *testing.T, text string) {
	t.Helper()
	c, err := config.Parse(filepath.Join(w.dir, "chancery.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if found := config.Check(c); len(found) > 0 {
		t.Fatal(found)
	}
	w.config = c
}

func (w *world) read(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	c, err := ReadCertificate(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The next issuing certificate is like the one before in all but name, key
// and dates.
func TestRotate(t *testing.T) {
	w := newWorld(t)
	next := fileKey(w.dir, "servers-2.key")
	r := Rotation{Config: w.config, Issuer: "servers", Key: next, By: w.root, Out: filepath.Join(w.dir, "servers-2.pem")}
	made, err := r.Run(t.Context(), making(next, cert.P256))
	if err != nil {
		t.Fatal(err)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", w.root.Certificate, r.Out)
	before, after := w.read(t, "servers.pem"), made.Certificates[0]
	ext := func(c *x509.Certificate, oid string) string {
		for _, e := range c.Extensions {
			if e.Id.String() == oid {
				return hex.EncodeToString(e.Value)
			}
		}
		return ""
	}
	for _, oid := range []string{"2.5.29.15", "2.5.29.19", "2.5.29.37", "2.5.29.30", "2.5.29.31", "1.3.6.1.5.5.7.1.1", "2.5.29.35"} {
		if ext(before, oid) != ext(after, oid) || ext(after, oid) == "" {
			t.Errorf("extension %s differs", oid)
		}
	}
	if after.Subject.String() != "CN=Example Server CA 2,O=Example" || sameKey(before.PublicKey, after.PublicKey) ||
		after.NotAfter.Sub(after.NotBefore) != before.NotAfter.Sub(before.NotBefore) {
		t.Errorf("%v, %v to %v", after.Subject, after.NotBefore, after.NotAfter)
	}
	for _, want := range []string{`- key: "file:servers-2.key"`, `certificate: "servers-2.pem"`, "retired: true", "issuers.servers.signers[0], line 6"} {
		if !strings.Contains(made.Advice, want) {
			t.Errorf("no %q in\n%s", want, made.Advice)
		}
	}
	// Again: the file is there, the name must differ, the parent must be the
	// same, and the issuer must exist. No key is made for any of these.
	for name, c := range map[string]struct {
		r    Rotation
		want string
	}{
		"file in the way": {r, "there already"},
		"no such issuer":  {Rotation{Config: w.config, Issuer: "nope", By: w.root, Out: "x"}, `no issuer "nope"`},
		"name again":      {Rotation{Config: w.config, Issuer: "servers", Name: "Example Server CA", By: w.root, Out: "x"}, "another name"},
		"another root":    {Rotation{Config: w.config, Issuer: "servers", By: newRoot(t, t.TempDir(), cert.P256), Out: "x"}, "rotate --root"},
	} {
		if _, err := c.r.Run(t.Context(), never(t)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of several, the newest that signs is gone by.
func TestRotateCounts(t *testing.T) {
	for name, want := range map[string]string{
		"Example Server CA": "Example Server CA 2", "Example Server CA 2": "Example Server CA 3", "CA 99": "CA 100",
		"Root X1": "Root X1 2", "CA 2026": "CA 2026 2", "5": "5 2",
	} {
		if got := nextName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// Who trusts either root verifies what the issuing keys sign.
func TestRotateRoot(t *testing.T) {
	w := newWorld(t)
	key := fileKey(w.dir, "root-2.key")
	r := RootRotation{Config: w.config, Old: w.root, Out: filepath.Join(w.dir, "root-2.pem")}
	made, err := r.Run(t.Context(), making(key, cert.P384))
	if err != nil {
		t.Fatal(err)
	}
	root, issuing, before := w.read(t, "root-2.pem"), w.read(t, "servers-root-2.pem"), w.read(t, "servers.pem")
	if root.Subject.String() != "CN=Example Root CA 2,O=Example" || !sameKey(issuing.PublicKey, before.PublicKey) ||
		string(issuing.RawSubject) != string(before.RawSubject) || hex.EncodeToString(issuing.SubjectKeyId) != hex.EncodeToString(before.SubjectKeyId) {
		t.Errorf("%v %v", root.Subject, issuing.Subject)
	}
	if d := before.NotAfter.Sub(issuing.NotAfter); d < 0 || d > time.Minute {
		t.Errorf("ends %v before the old one", d)
	}
	cdp := "http://crl.internal:8080/crl/" + hex.EncodeToString(root.SubjectKeyId) + ".crl"
	if len(issuing.CRLDistributionPoints) != 1 || issuing.CRLDistributionPoints[0] != cdp || len(issuing.IssuingCertificateURL) != 1 {
		t.Errorf("%q", issuing.CRLDistributionPoints)
	}
	cross := w.read(t, "root-2-cross.pem")
	if len(cross.CRLDistributionPoints) != 1 || !strings.Contains(cross.CRLDistributionPoints[0], hex.EncodeToString(w.read(t, "root.pem").SubjectKeyId)) {
		t.Errorf("the old root's list: %q", cross.CRLDistributionPoints)
	}
	out := filepath.Join(w.dir, "servers-root-2.pem")
	openssl(t, "verify", "-x509_strict", "-CAfile", r.Out, out)
	openssl(t, "verify", "-x509_strict", "-CAfile", w.root.Certificate, "-untrusted", filepath.Join(w.dir, "root-2-cross.pem"), out)
	for _, want := range []string{
		`certificate: "servers-root-2.pem"`, `chain: "root-2-cross.pem"`, `alternate_chains: ["root-2.pem"]`, "line 6", "offline",
	} {
		if !strings.Contains(made.Advice, want) {
			t.Errorf("no %q in\n%s", want, made.Advice)
		}
	}
	if _, err := (RootRotation{Config: w.config, Old: w.root, Out: filepath.Join(w.dir, "root-2.pem")}).Run(t.Context(), never(t)); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Error(err)
	}
	if _, err := (RootRotation{Config: w.config, Old: w.root, Out: filepath.Join(w.dir, "root-3.pem")}).Run(t.Context(), opening(w.root.Key)); err == nil || !strings.Contains(err.Error(), "the old one's") {
		t.Error(err)
	}
	issuingCA := Parent{Certificate: filepath.Join(w.dir, "servers.pem"), Key: fileKey(w.dir, "servers.key")}
	if _, err := (RootRotation{Config: w.config, Old: issuingCA, Out: filepath.Join(w.dir, "root-3.pem")}).Run(t.Context(), never(t)); err == nil || !strings.Contains(err.Error(), "is not a root") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "root-3.pem")); err == nil {
		t.Error("something was written")
	}
}

// A certificate with limits that aren't made here isn't silently made without
// them.
func TestLikeRefuses(t *testing.T) {
	for name, c := range map[string]*x509.Certificate{
		"usage":       {IsCA: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}},
		"excluded":    {IsCA: true, ExcludedDNSDomains: []string{"secret.internal"}},
		"mail":        {IsCA: true, PermittedEmailAddresses: []string{"example.org"}},
		"dotted":      {IsCA: true, PermittedDNSDomains: []string{".internal"}},
		"not a CA":    {},
		"own EKU OID": {IsCA: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 2, 3}}},
	} {
		if n, err := like(c); err == nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	ca := Parent{Certificate: filepath.Join(w.dir, "servers.pem"), Key: fileKey(w.dir, "servers.key")}
	newCA(t, NewCA{Name: "OCSP", Responder: true}, ca, w.dir, "ocsp")
	newCA(t, NewCA{Name: "Example Server CA 2"}, w.root, w.dir, "two")
	w.load(t, `external_url: https://ca.internal
tls: {profile: server}
issuers:
  servers:
    ocsp_url: http://ocsp.internal
    signers:
      - {key: file:servers.key, certificate: servers.pem, retired: true, ocsp_responder: {key: file:ocsp.key, certificate: ocsp.pem}}
      - {certificate: two.pem}
    chain: root.pem
profiles:
  server: {issuer: servers, usages: [server], revocation: ocsp, max_lifetime: 90d}
directories:
  servers: {profiles: [server], names: {allow: ["*.internal"]}}
`)
	now := time.Now()
	all, err := List(w.config, nil, now)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if l := all[0]; l.State != "retired" || l.Ending != "" || l.DaysLeft < 398 || len(l.Keys) != 1 || l.KeyID != hex.EncodeToString(w.read(t, "servers.pem").SubjectKeyId) {
		t.Errorf("%+v", l)
	}
	if l := all[1]; !l.Responder || l.Ending != "" || l.Subject != "CN=OCSP" {
		t.Errorf("%+v", l)
	}
	if l := all[2]; l.State != "remote" || l.Ending != "" || len(l.Keys) != 0 {
		t.Errorf("%+v", l)
	}
	// A month before what it signs would be cut short there is a warning.
	end := all[2].NotAfter
	for days, want := range map[int]string{-121: "", -119: "ends soon", 1: "has ended"} {
		all, err := List(w.config, nil, end.AddDate(0, 0, days))
		if err != nil || !strings.Contains(all[2].Ending, want) || (want == "") != (all[2].Ending == "") || all[0].Ending != "" {
			t.Errorf("%d days: %q, %v", days, all[2].Ending, err)
		}
	}
	if all, _ = List(w.config, nil, now.AddDate(0, 0, 73)); !strings.Contains(all[1].Ending, "ca create --ocsp-responder") {
		t.Errorf("a responder in its last fifth: %+v", all[1])
	}
	live := &api.Signing{Issuers: []api.SigningIssuer{{Name: "servers", Keys: []api.SigningKey{
		{KeyID: all[0].KeyID, State: "retired", Live: 12, LastEnd: now.Add(time.Hour)},
		{KeyID: all[2].KeyID, State: "away", Reason: "pulled", Signature: 0.25, Parallel: 2},
	}}}}
	if all, err = List(w.config, live, now); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Print(&b, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12 certificates, the last of which ends", "away: pulled, 8 signatures/s", "no certificate that is still good", "OCSP responder: CN=OCSP", "days left"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	// A lost file is named with its place in the configuration.
	os.Remove(filepath.Join(w.dir, "two.pem"))
	if _, err := List(w.config, nil, now); err == nil || !strings.Contains(err.Error(), "chancery.yaml:8:23: issuers.servers.signers[1].certificate: ") {
		t.Error(err)
	}
}

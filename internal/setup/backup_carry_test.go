package setup_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/carry"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// account registers one; with it come certificates that it may revoke.
func (d *demo) account(t *testing.T) *acme.Client {
	t.Helper()
	c := &acme.Client{DirectoryURL: d.Directories["servers"], Key: newKey(t), HTTPClient: d.http}
	if _, err := c.Register(t.Context(), acme.Registration{TermsAgreed: true}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *demo) obtain(c *acme.Client, key *ecdsa.PrivateKey, name string) (*x509.Certificate, error) {
	chain, err := c.Obtain(context.Background(), acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers(name)}, Key: key, Solvers: []acme.Solver{d.solver},
	})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(chain.DER[0])
}

// operate asks the admin socket.
func (d *demo) operate(t *testing.T, method, path, body string, answer any) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Admin)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			t.Fatal(err)
		}
	}
}

func refused(t *testing.T, what string, err error, want string) {
	t.Helper()
	if p, ok := errors.AsType[*acme.Problem](err); !ok || p.Type != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Not in parallel, as TestBackupAndRestore.
//
// A restore makes nothing good again that was revoked after the backup, known
// to the backup or not, and tells how much there was of it.
func TestRestoreKeepsRevoked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	d := startDemo(t, func(d *setup.Demo) { d.Dir = dir })
	owner, leaver, stays := d.account(t), d.account(t), d.account(t)
	must := func(c *x509.Certificate, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	lost := newKey(t)
	known := must(d.obtain(owner, lost, "known.demo.internal"))
	good := must(d.obtain(owner, newKey(t), "good.demo.internal"))
	var key struct {
		ID string `json:"kid"`
	}
	d.operate(t, http.MethodPost, "/v1/eab-keys", `{"directory":"servers","label":"x"}`, &key)
	c := load(t, dir)
	if _, err := setup.Backup(t.Context(), c, file); err != nil {
		t.Fatal(err)
	}

	late := must(d.obtain(owner, newKey(t), "late.demo.internal"))
	for leaf, reason := range map[*x509.Certificate]int{known: acme.ReasonKeyCompromise, late: acme.ReasonSuperseded} {
		if err := owner.Revoke(t.Context(), leaf.Raw, reason, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := leaver.DeactivateAccount(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.operate(t, http.MethodPost, "/v1/eab-keys/"+key.ID+"/revoke", "", nil)
	d.stop()

	report, err := setup.Restore(t.Context(), c, file)
	if err != nil {
		t.Fatal(err)
	}
	if want := (carry.Withdrawals{Certificates: 2, BlockedKeys: 1, Accounts: 1, EABKeys: 1}); report.Carried != want {
		t.Errorf("carried %+v, want %+v", report.Carried, want)
	}
	var said bytes.Buffer
	report.Print(&said)
	for _, want := range []string{"2 certificates revoked\n", "1 compromised keys blocked\n", "1 accounts ended\n", "1 EAB keys revoked\n", "late.demo.internal  (revoked)\n"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it doesn't say %q:\n%s", want, said.String())
		}
	}
	if strings.Contains(said.String(), "authorizations") {
		t.Errorf("it tells of what there was none of:\n%s", said.String())
	}
	restoredLog(t, dir, report)

	d = startDemo(t, func(d *setup.Demo) { d.Dir = dir })
	again := func(c *acme.Client) error {
		*c = acme.Client{DirectoryURL: d.Directories["servers"], Key: c.Key, HTTPClient: d.http}
		_, err := c.Register(t.Context(), acme.Registration{TermsAgreed: true})
		return err
	}
	if err := errors.Join(again(owner), again(stays)); err != nil {
		t.Fatal(err)
	}
	refused(t, "the account that left", again(leaver), acme.ErrUnauthorized)
	for _, leaf := range []*x509.Certificate{known, late} {
		refused(t, leaf.DNSNames[0], owner.Revoke(t.Context(), leaf.Raw, acme.ReasonUnspecified, nil), acme.ErrAlreadyRevoked)
	}
	_, err = d.obtain(owner, lost, "known.demo.internal")
	refused(t, "a certificate for the compromised key", err, acme.ErrBadCSR)
	if _, err := d.obtain(stays, newKey(t), "stays.demo.internal"); err != nil {
		t.Error("an account that stayed:", err)
	}
	if err := owner.Revoke(t.Context(), good.Raw, acme.ReasonUnspecified, nil); err != nil {
		t.Error("a certificate that was good, and isn't now:", err)
	}
}

// restoredLog checks what the audit log tells of the restore.
func restoredLog(t *testing.T, dir string, report *setup.Restored) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{DSN: filepath.Join(dir, "chancery.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for action, want := range map[string]int{"database.restore": 1, "restore.carry": report.Carried.Total()} {
		log, err := db.AuditEntries(t.Context(), store.AuditFilter{Action: action})
		if err != nil || len(log) != want {
			t.Fatalf("%d entries %s, want %d: %v", len(log), action, want, err)
		}
		for _, r := range log {
			if !strings.HasPrefix(r.Entry.Actor, "operator:uid:") {
				t.Errorf("%s by %q", action, r.Entry.Actor)
			}
		}
		if action == "database.restore" && log[0].Entry.Detail["moved_aside"] != report.MovedAside {
			t.Errorf("%+v", log[0].Entry)
		}
	}
	if _, err := db.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}

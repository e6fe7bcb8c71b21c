package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/ca/sshorder"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

const orderURL = "https://ca.test/acme/ssh/order/1"

// sshKeys are the CA's: their issuer can be made anew, with the first retired.
type sshKeys struct {
	keys   []crypto.Signer
	queues []*signer.Queue
}

// sshWorld adds directory ssh, and an SSH issuer with one key.
func (w *world) sshWorld(t testing.TB) *sshKeys {
	t.Helper()
	k := &sshKeys{}
	k.add(t)
	profile := func(name string, usage cert.Usage, proofs ...protocol.ChallengeType) cert.Profile {
		return cert.Profile{
			Name: name, Usages: []cert.Usage{usage}, Challenges: proofs, Lifetime: 16 * time.Hour, MaxLifetime: 3 * day, Backdate: time.Minute,
			KeyTypes: []cert.KeyType{cert.P256, cert.Ed25519, sshca.SKEd25519}, Revocation: cert.RevocationKRL, Issuer: "ssh",
			SSH: cert.SSH{Extensions: []string{"permit-pty"}},
		}
	}
	host := profile("ssh-host", cert.SSHHost, protocol.HTTP01, protocol.DNS01)
	host.SSH = cert.SSH{}
	// The configuration refuses http-01 here; the authority does so too.
	user := profile("ssh-user", cert.SSHUser, protocol.YubiKey01, protocol.YubiKey02, protocol.HTTP01)
	main := w.options.Directories["main"]
	w.options.Directories["ssh"] = &Directory{
		Policy: policy.Directory{
			Name: "ssh", Profiles: []cert.Profile{host, user, main.Policy.Profiles[0]}, DefaultProfile: "ssh-host",
			Challenges: []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01}, Names: main.Policy.Names,
		},
		Validators: map[protocol.ChallengeType]Validator{
			protocol.HTTP01: w.looks, protocol.DNS01: w.looks, protocol.YubiKey01: w.looks, protocol.YubiKey02: w.looks,
		},
		AccountURL: main.AccountURL,
	}
	w.serveSSH(t, k.issuer(t, 0))
	return k
}

func (w *world) serveSSH(t testing.TB, by Issuer) {
	t.Helper()
	w.options.Issuers["ssh"] = by
	w.Reload(w.options.Directories, w.options.Issuers, nil)
}

func (k *sshKeys) add(t testing.TB) {
	t.Helper()
	key := newKey(t)
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: key, URI: "test", Parallel: 2})
	if err != nil {
		t.Fatal(err)
	}
	k.keys, k.queues = append(k.keys, key), append(k.queues, queue)
}

// issuer makes one whose first keys are retired, so many of them.
func (k *sshKeys) issuer(t testing.TB, retired int) *issuer.SSH {
	t.Helper()
	c := issuer.SSHConfig{Name: "ssh"}
	for i, key := range k.keys {
		in := issuer.SSHKey{Public: key.Public()}
		if i >= retired {
			in.Queue = k.queues[i]
		}
		c.Keys = append(c.Keys, in)
	}
	s, err := issuer.NewSSH(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sshKey is a client's key.
func sshKey(t testing.TB) (line string, s ssh.Signer) {
	t.Helper()
	s, err := ssh.NewSignerFromSigner(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(s.PublicKey())), s
}

// forSSH is a finalize's payload by that key.
func forSSH(t testing.TB, line string, s ssh.Signer) FinalizeRequest {
	t.Helper()
	possession, err := sshca.SignPossession(s, orderURL)
	if err != nil {
		t.Fatal(err)
	}
	return FinalizeRequest{SSH: sshorder.Request{Key: line, Possession: possession, OrderURL: orderURL}}
}

// enroll puts a device of anna's with that key into the registry.
func (w *world) enroll(t testing.TB, key crypto.PublicKey, change func(*protocol.Device)) protocol.Device {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	d := protocol.Device{
		ID: protocol.NewID[protocol.DeviceID](w.Now()), Owner: "anna@example.com", State: protocol.DeviceActive, Key: spki, KeyHash: hashOf(t, key),
		Serial: uint32(12345678), Slot: "9a", Firmware: "5.7.1", Identities: protocol.Identities{Principals: []string{"anna", "deploy"}},
		EnrolledAt: w.Now(), EnrolledBy: "test",
	}
	if change != nil {
		change(&d)
	}
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertDevice(d) }); err != nil {
		t.Fatal(err)
	}
	return d
}

// byDevice makes an order for a person that a device has proven, without the
// ceremony.
func (a *account) byDevice(person string, typ protocol.ChallengeType, subject string) OrderView {
	a.t.Helper()
	id, now := protocol.Identifier{Type: protocol.PermanentIdentifier, Value: person}, a.Now()
	z := protocol.Authorization{
		ID: protocol.NewID[protocol.AuthorizationID](now), Account: a.Account.ID, Directory: "ssh", Identifier: id,
		Status: protocol.AuthorizationValid, ExpiresAt: now.Add(10 * time.Minute), Token: protocol.NewToken(), Offered: []protocol.ChallengeType{typ},
		Subject: subject, Attempt: protocol.Attempt{Type: typ, ValidatedAt: now}, CreatedAt: now,
	}
	o := protocol.Order{
		ID: protocol.NewID[protocol.OrderID](now), Account: a.Account.ID, Directory: "ssh", Status: protocol.OrderPending,
		Identifiers: []protocol.Identifier{id}, Authorizations: []protocol.AuthorizationID{z.ID}, Profile: "ssh-user", CreatedAt: now, ExpiresAt: now.Add(day),
	}
	err := a.db.Update(a.t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.InsertAuthorization(z), tx.InsertOrder(o))
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return OrderView{Order: o}
}

// sshCertificate finalizes, waits and reads the certificate.
func (a *account) sshCertificate(o OrderView, r FinalizeRequest) *ssh.Certificate {
	a.t.Helper()
	o, err := a.Finalize(a.t.Context(), a.Requester, o.ID, r)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.fetchSSH(o)
}

func (a *account) fetchSSH(o OrderView) *ssh.Certificate {
	a.t.Helper()
	until(a.t, "the order is valid", func() bool { o = a.look(o); return o.Status != protocol.OrderProcessing })
	if o.Status != protocol.OrderValid {
		a.t.Fatalf("the order is %s: %v", o.Status, o.Error)
	}
	v, err := a.Certificate(a.t.Context(), a.Requester, cert.Serial(o.Certificate), 0)
	if err != nil {
		a.t.Fatal(err)
	}
	if v.Format != cert.OpenSSH || len(v.Certificates) != 1 || v.Alternates != 0 {
		a.t.Fatalf("%+v", v)
	}
	key, err := ssh.ParsePublicKey(v.Certificates[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}

// A person's certificate says what the registry says, and nothing of the client's
// but the key.
func TestSSHUserCertificate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := w.sshWorld(t)
		a := w.account(t, "ssh")
		d := w.enroll(t, newKey(t).Public(), nil)
		line, s := sshKey(t)
		c := a.sshCertificate(a.byDevice(d.Owner, protocol.YubiKey02, d.Subject()), forSSH(t, line, s))
		if c.CertType != ssh.UserCert || c.KeyId != "anna@example.com/12345678-9a" || !slices.Equal(c.ValidPrincipals, d.Principals) ||
			len(c.CriticalOptions) != 0 || len(c.Extensions) != 1 || string(c.Key.Marshal()) != string(s.PublicKey().Marshal()) ||
			!bytes.Equal(c.SignatureKey.Marshal(), must(ssh.NewPublicKey(k.keys[0].Public())).Marshal()) {
			t.Errorf("%+v", c)
		}
		if life := time.Duration(c.ValidBefore-c.ValidAfter) * time.Second; life > 16*time.Hour || life < 15*time.Hour {
			t.Errorf("it lives %v", life)
		}
		stored, err := w.db.Certificates(t.Context(), store.CertificateFilter{Directory: "ssh"})
		if err != nil || len(stored) != 1 || stored[0].Format != cert.OpenSSH || stored[0].Subject != d.Subject() || len(stored[0].Serial) != 16 {
			t.Fatalf("%+v, %v", stored, err)
		}
		if _, text := w.audited(t, "certificate.issue"); !strings.Contains(text, `"key_id":"anna@example.com/12345678-9a"`) ||
			!strings.Contains(text, `"principals":["anna","deploy"]`) || !strings.Contains(text, d.Subject()) {
			t.Errorf("the audit log: %s", text)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Under yubikey-01 the device's key is certified, and no other; its longest
// lifetime holds.
func TestSSHOwnKey(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.sshWorld(t)
		a := w.account(t, "ssh")
		own := newKey(t)
		d := w.enroll(t, own.Public(), func(d *protocol.Device) { d.MaxLifetime = 30 * time.Minute })
		key := must(ssh.NewPublicKey(own.Public()))
		for name, r := range map[string]FinalizeRequest{
			"nothing": {}, "the key": {SSH: sshorder.Request{Key: string(ssh.MarshalAuthorizedKey(key))}},
		} {
			c := a.sshCertificate(a.byDevice(d.Owner, protocol.YubiKey01, d.Subject()), r)
			if string(c.Key.Marshal()) != string(key.Marshal()) || c.ValidBefore-c.ValidAfter > 1800 {
				t.Errorf("%s: %+v", name, c)
			}
		}
		line, s := sshKey(t)
		_, err := a.Finalize(t.Context(), a.Requester, a.byDevice(d.Owner, protocol.YubiKey01, d.Subject()).ID, forSSH(t, line, s))
		wants(t, err, protocol.BadCSR, "this is another key")
	})
}

// What nobody gets.
func TestSSHRefusals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.sshWorld(t)
		a := w.account(t, "ssh")
		own := newKey(t)
		d := w.enroll(t, own.Public(), nil)
		bare := w.enroll(t, newKey(t).Public(), func(d *protocol.Device) { d.Principals, d.Slot = nil, "9c" })
		lost := w.enroll(t, newKey(t).Public(), func(d *protocol.Device) { d.State, d.Slot = protocol.DeviceLost, "9d" })
		line, s := sshKey(t)
		good := forSSH(t, line, s)
		deviceKey := must(ssh.NewSignerFromSigner(own))
		accountKey := must(ssh.NewSignerFromSigner(a.own))
		blockedLine, blocked := sshKey(t)
		hash := must(sshca.KeyHash(blocked.PublicKey()))
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.BlockKey(hash, "test") }); err != nil {
			t.Fatal(err)
		}
		elsewhere, notOurs := good, good
		elsewhere.SSH.OrderURL = "https://evil.test/acme/ssh/order/1"
		notOurs.SSH.Possession = forSSH(t, blockedLine, blocked).SSH.Possession
		two := good
		two.CSR = csr(t, newKey(t), "a.example")
		keyOf := func(s ssh.Signer) FinalizeRequest {
			return forSSH(t, string(ssh.MarshalAuthorizedKey(s.PublicKey())), s)
		}
		for name, c := range map[string]struct {
			person  string
			typ     protocol.ChallengeType
			subject string
			r       FinalizeRequest
			problem protocol.ProblemType
			says    string
		}{
			"no key":               {d.Owner, protocol.YubiKey02, d.Subject(), FinalizeRequest{}, protocol.Malformed, "no sshPublicKey"},
			"a CSR":                {d.Owner, protocol.YubiKey02, d.Subject(), FinalizeRequest{CSR: csr(t, newKey(t), "a.example")}, protocol.BadCSR, "send sshPublicKey and possession in place of csr"},
			"both":                 {d.Owner, protocol.YubiKey02, d.Subject(), two, protocol.Malformed, "both"},
			"no possession":        {d.Owner, protocol.YubiKey02, d.Subject(), FinalizeRequest{SSH: sshorder.Request{Key: line, OrderURL: orderURL}}, protocol.BadCSR, ""},
			"another order's":      {d.Owner, protocol.YubiKey02, d.Subject(), elsewhere, protocol.BadCSR, ""},
			"another's possession": {d.Owner, protocol.YubiKey02, d.Subject(), notOurs, protocol.BadCSR, ""},
			"the device's key":     {d.Owner, protocol.YubiKey02, d.Subject(), keyOf(deviceKey), protocol.BadCSR, "enrolled device"},
			"an account's key":     {d.Owner, protocol.YubiKey02, d.Subject(), keyOf(accountKey), protocol.BadCSR, "account key"},
			"a blocked key":        {d.Owner, protocol.YubiKey02, d.Subject(), keyOf(blocked), protocol.BadCSR, "compromised"},
			"another person":       {"bert@example.com", protocol.YubiKey02, d.Subject(), good, protocol.Unauthorized, "is not \"bert@example.com\"'s"},
			"no principals":        {d.Owner, protocol.YubiKey02, bare.Subject(), good, protocol.Unauthorized, "no SSH principals"},
			"a lost device":        {d.Owner, protocol.YubiKey02, lost.Subject(), good, protocol.Unauthorized, "not enrolled any more"},
			"a lost device itself": {d.Owner, protocol.YubiKey01, lost.Subject(), FinalizeRequest{}, protocol.Unauthorized, "not enrolled any more"},
			"no device":            {d.Owner, protocol.YubiKey02, "pod-1", good, protocol.Unauthorized, "needs the proof of an enrolled device"},
			"classic":              {d.Owner, protocol.HTTP01, "", good, protocol.Unauthorized, "doesn't count"},
			"pre-approved":         {d.Owner, protocol.PreApproved, "", good, protocol.Unauthorized, "doesn't count"},
		} {
			_, err := a.Finalize(t.Context(), a.Requester, a.byDevice(c.person, c.typ, c.subject).ID, c.r)
			p, ok := errors.AsType[*protocol.Problem](err)
			if !ok || p.Type != c.problem || !strings.Contains(p.Error(), c.says) {
				t.Errorf("%s: %v, want %s with %q", name, err, c.problem, c.says)
			}
		}
		if issued, _ := w.audited(t, "certificate.issue"); len(issued) != 0 {
			t.Errorf("%d certificates", len(issued))
		}
		_, log := w.audited(t, "order.finalize")
		for _, says := range []string{d.Subject(), "no SSH principals", "enrolled device", "not enrolled any more", "both"} {
			if !strings.Contains(log, says) {
				t.Errorf("the audit log says nothing of %q: %s", says, log)
			}
		}
	})
}

// What is taken from a device while its certificate waits for the key isn't in
// a certificate that comes later.
func TestSSHLessThanPlanned(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := w.sshWorld(t)
		a := w.account(t, "ssh")
		line, s := sshKey(t)
		for n, c := range []struct {
			left protocol.Identities
			says string // "": issued
		}{
			{protocol.Identities{Principals: []string{"anna"}}, "principal \"deploy\""},
			{protocol.Identities{Principals: []string{"anna", "deploy"}, MaxLifetime: time.Hour}, "limited to 1h0m0s"},
			{protocol.Identities{Principals: []string{"anna", "deploy", "root"}}, ""},
		} {
			d := w.enroll(t, newKey(t).Public(), func(d *protocol.Device) { d.Slot = string(rune('a'+n)) + "0" })
			k.before(t, w, func(ctx context.Context) error {
				return w.db.Update(ctx, func(tx *store.Tx) error { return done(tx.SetIdentities(d.ID, c.left)) })
			})
			o, err := a.Finalize(t.Context(), a.Requester, a.byDevice(d.Owner, protocol.YubiKey02, d.Subject()).ID, forSSH(t, line, s))
			if err != nil {
				t.Fatal(err)
			}
			if c.says == "" {
				if got := a.fetchSSH(o); !slices.Equal(got.ValidPrincipals, d.Principals) {
					t.Errorf("%q", got.ValidPrincipals)
				}
				continue
			}
			until(t, "the order ends", func() bool { o = a.look(o); return o.Status != protocol.OrderProcessing })
			if o.Status != protocol.OrderInvalid || !strings.Contains(o.Error.Detail, c.says) {
				t.Errorf("%s: %s, %v", c.says, o.Status, o.Error)
			}
			if _, log := w.audited(t, "certificate.issue"); !strings.Contains(log, "while") {
				t.Errorf("the audit log: %s", log)
			}
		}
	})
}

// before makes an issuer whose key does something before it signs.
func (k *sshKeys) before(t testing.TB, w *world, do func(context.Context) error) {
	t.Helper()
	w.serveSSH(t, slow{k.issuer(t, 0), do})
}

type slow struct {
	*issuer.SSH
	do func(context.Context) error
}

func (s slow) Issue(ctx context.Context, p *issuer.Prepared) ([]byte, error) {
	if err := s.do(ctx); err != nil {
		return nil, err
	}
	return s.SSH.Issue(ctx, p)
}

// Host certificates: the names, proven as for TLS.
func TestSSHHostCertificate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.sshWorld(t)
		a := w.account(t, "ssh")
		line, s := sshKey(t)
		c := a.sshCertificate(a.ready("web.example", "www.example"), forSSH(t, line, s))
		if c.CertType != ssh.HostCert || c.KeyId != "web.example" || !slices.Equal(c.ValidPrincipals, []string{"web.example", "www.example"}) ||
			len(c.Extensions)+len(c.CriticalOptions) != 0 {
			t.Errorf("%+v", c)
		}
		own := newKey(t)
		w.enroll(t, own.Public(), nil)
		deviceKey := must(ssh.NewSignerFromSigner(own))
		_, err := a.Finalize(t.Context(), a.Requester, a.ready("web.example").ID, forSSH(t, string(ssh.MarshalAuthorizedKey(deviceKey.PublicKey())), deviceKey))
		wants(t, err, protocol.BadCSR, "enrolled device")
		_, err = a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("*.web.example")})
		wants(t, err, protocol.RejectedIdentifier, "without wildcards")
		_, err = a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("web.example"), Profile: "ssh-user"})
		wants(t, err, protocol.RejectedIdentifier, "exactly one permanent-identifier")
		tls := a.prove(a.orderAs(OrderRequest{Identifiers: ids("web.example"), Profile: "server"}), protocol.DNS01)
		until(t, "the order is ready", func() bool { tls = a.look(tls); return tls.Status == protocol.OrderReady })
		_, err = a.Finalize(t.Context(), a.Requester, tls.ID, forSSH(t, line, s))
		wants(t, err, protocol.Malformed, "has no csr")
	})
}

// signs is an SSH issuer whose key fails as long as it is told to.
type signs struct {
	*issuer.SSH
	mu     sync.Mutex
	fail   error
	signed [][]byte
}

func (s *signs) Issue(ctx context.Context, p *issuer.Prepared) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	s.signed = append(s.signed, p.TBS)
	return s.SSH.Issue(ctx, p)
}

// A plan that a stopped process left is signed as it is; one whose key was retired
// meanwhile is planned anew, for the key that has taken its place.
func TestSSHPlanGoesOn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := w.sshWorld(t)
		a := w.account(t, "ssh")
		d := w.enroll(t, newKey(t).Public(), nil)
		start := func() (OrderView, cert.Certificate) {
			t.Helper()
			broken := &signs{SSH: k.issuer(t, 0), fail: errors.New("the card was pulled")}
			w.serveSSH(t, broken)
			line, s := sshKey(t)
			o, err := a.Finalize(t.Context(), a.Requester, a.byDevice(d.Owner, protocol.YubiKey02, d.Subject()).ID, forSSH(t, line, s))
			if err != nil || o.Status != protocol.OrderProcessing {
				t.Fatalf("%+v, %v", o, err)
			}
			until(t, "the job gives up", func() bool { _, n := w.Running(); return n == 0 })
			return o, w.plans(t)[0]
		}
		again := func(by Issuer) {
			t.Helper()
			w.serveSSH(t, by)
			w.Add(planLease + time.Second)
			if err := w.replica().claimPlans(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
		o, plan := start()
		works := &signs{SSH: k.issuer(t, 0)}
		again(works)
		c := a.fetchSSH(o)
		if !bytes.HasPrefix(c.Marshal(), plan.DER) || len(works.signed) != 1 {
			t.Errorf("%d signatures, of other bytes than were planned", len(works.signed))
		}

		o, plan = start()
		k.add(t)
		again(k.issuer(t, 1))
		c = a.fetchSSH(o)
		if !bytes.Equal(c.SignatureKey.Marshal(), must(ssh.NewPublicKey(k.keys[1].Public())).Marshal()) || bytes.HasPrefix(c.Marshal(), plan.DER) ||
			c.KeyId != "anna@example.com/12345678-9a" || !slices.Equal(c.ValidPrincipals, d.Principals) {
			t.Errorf("%+v", c)
		}
		if len(w.plans(t)) != 0 {
			t.Error("a plan is left")
		}
	})
}

// Revocation by the account, of the certificate's bytes; the revision that the KRL
// looks at rises, and a compromised key is blocked.
func TestSSHRevoke(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := w.sshWorld(t)
		a, b := w.account(t, "ssh"), w.account(t, "ssh")
		line, s := sshKey(t)
		wire := a.sshCertificate(a.ready("web.example"), forSSH(t, line, s)).Marshal()
		// RFC 9773's identifiers are X.509's.
		parsed := must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
		signedBy := sha256.Sum256(parsed.SignatureKey.Marshal())
		b64 := base64.RawURLEncoding.EncodeToString
		_, err := w.RenewalInfo(t.Context(), "ssh", b64(signedBy[:])+"."+b64(binary.BigEndian.AppendUint64(nil, parsed.Serial)))
		wants(t, err, protocol.Malformed, "no such certificate")
		reason := int(cert.KeyCompromise)
		wants(t, b.Revoke(t.Context(), b.Requester, wire, nil), protocol.Unauthorized, "another account's")
		wants(t, a.Revoke(t.Context(), a.Requester, wire[:len(wire)-1], nil), protocol.Malformed, "not a certificate")
		own := newKey(t) // the certificate's own key may ask, too
		mine := must(ssh.NewSignerFromSigner(own))
		byKey := a.sshCertificate(a.ready("www.example"), forSSH(t, string(ssh.MarshalAuthorizedKey(mine.PublicKey())), mine)).Marshal()
		if err := w.RevokeByKey(t.Context(), KeyHolder{Directory: "ssh", Key: jwk(t, own), Peer: peer}, byKey, nil); err != nil {
			t.Fatal(err)
		}
		stranger := KeyHolder{Directory: "ssh", Key: jwk(t, newKey(t)), Peer: peer}
		wants(t, w.RevokeByKey(t.Context(), stranger, wire, nil), protocol.Unauthorized, "certificate's key")
		if err := a.Revoke(t.Context(), a.Requester, wire, &reason); err != nil {
			t.Fatal(err)
		}
		wants(t, a.Revoke(t.Context(), a.Requester, wire, nil), protocol.AlreadyRevoked, "")
		id := must(sshca.NewAuthority(k.keys[0].Public())).ID()
		if n, err := w.db.Number(t.Context(), store.RevisionName(id, 0)); err != nil || n != 2 {
			t.Errorf("revision %d, %v", n, err)
		}
		_, err = a.Finalize(t.Context(), a.Requester, a.ready("web.example").ID, forSSH(t, line, s))
		wants(t, err, protocol.BadCSR, "compromised")
	})
}

// An order taken here, signed where the SSH CA's key is.
func TestSSHSignedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := w.sshWorld(t)
		public := k.keys[0].Public()
		remote := signer.NewRemote(public)
		remote.Report(signer.State{At: time.Now(), Mean: time.Millisecond, Parallel: 1})
		w.serveSSH(t, must(issuer.NewSSH(issuer.SSHConfig{Name: "ssh", Keys: []issuer.SSHKey{{Public: public, Remote: remote}}})))
		holder := w.replica()
		holder.Reload(w.options.Directories, map[string]Issuer{"local": w.key, "ssh": k.issuer(t, 0)}, []string{must(sshca.NewAuthority(public)).ID()})

		a := w.account(t, "ssh")
		d := w.enroll(t, newKey(t).Public(), nil)
		line, s := sshKey(t)
		w.hold = time.Millisecond // nobody is told before the holder looks
		o, err := a.Finalize(t.Context(), a.Requester, a.byDevice(d.Owner, protocol.YubiKey02, d.Subject()).ID, forSSH(t, line, s))
		if err != nil || o.Status != protocol.OrderProcessing {
			t.Fatalf("%s, %v", o.Status, err)
		}
		until(t, "the holder has signed", func() bool {
			if err := holder.claimPlans(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			return a.look(o).Status != protocol.OrderProcessing
		})
		if c := a.fetchSSH(o); c.KeyId != "anna@example.com/12345678-9a" || !slices.Equal(c.ValidPrincipals, d.Principals) {
			t.Errorf("%+v", c)
		}
		if all, text := w.audited(t, "certificate.issue"); len(all) != 1 || !strings.Contains(text, "anna@example.com/12345678-9a") {
			t.Errorf("the audit log: %s", text)
		}
	})
}

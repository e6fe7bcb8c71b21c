package e2e_test

import (
	"crypto"
	"crypto/x509"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/go-acme/lego/v4/challenge/http01"
	"github.com/go-acme/lego/v4/challenge/tlsalpn01"
	legoclient "github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/providers/dns/rfc2136"
	"github.com/go-acme/lego/v4/registration"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// lego4 is lego 4.35 by its packages, which are what its command and Traefik
// run: the command itself would bring the DNS providers of the whole world,
// and a minute and a half of compiling.
type lego4 struct {
	*legoclient.Client
	w   *harness.World
	ca  *harness.CA
	reg *registration.Resource
	key crypto.Signer
}

func (l *lego4) GetEmail() string                        { return "a@example.org" }
func (l *lego4) GetRegistration() *registration.Resource { return l.reg }
func (l *lego4) GetPrivateKey() crypto.PrivateKey        { return l.key }

// newLego4 makes a client; it registers with an external account where the
// binding's key ID isn't empty.
func newLego4(w *harness.World, ca *harness.CA, kind certcrypto.KeyType, kid, hmac string) *lego4 {
	w.Helper()
	l := &lego4{w: w, ca: ca, key: w.NewKey()}
	conf := legoclient.NewConfig(l)
	conf.CADirURL, conf.HTTPClient, conf.Certificate.KeyType = ca.Directory, ca.HTTPClient(), kind
	var err error
	if l.Client, err = legoclient.NewClient(conf); err != nil {
		w.Fatal(err)
	}
	if kid == "" {
		l.reg, err = l.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true})
	} else {
		l.reg, err = l.Registration.RegisterWithExternalAccountBinding(
			registration.RegisterEABOptions{TermsOfServiceAgreed: true, Kid: kid, HmacEncoded: hmac})
	}
	if err != nil {
		w.Fatal(err)
	}
	return l
}

// obtain gets a certificate and has it verified.
func (l *lego4) obtain(req certificate.ObtainRequest) (*x509.Certificate, *certificate.Resource) {
	l.w.Helper()
	req.Bundle = true
	res, err := l.Certificate.Obtain(req)
	if err != nil {
		l.w.Fatal(err)
	}
	return l.w.Verify(l.ca, req.Domains, l.w.Write("lego4.pem", string(res.Certificate))), res
}

func (l *lego4) http() *lego4 {
	l.w.Helper()
	if err := l.Challenge.SetHTTP01Provider(http01.NewProviderServer("127.0.0.1", "80")); err != nil {
		l.w.Fatal(err)
	}
	return l
}

func TestLego4(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		w.Sub("http-01, ARI, replaces, revoke", func(w *harness.World) {
			l := newLego4(w, ca, certcrypto.EC256, "", "").http()
			first, _ := l.obtain(certificate.ObtainRequest{Domains: []string{"a.test", "b.test"}})
			info, err := l.Certificate.GetRenewalInfo(certificate.RenewalInfoRequest{Cert: first})
			if err != nil {
				w.Fatal(err)
			}
			if info.RetryAfter <= 0 {
				w.Errorf("renewal information came with Retry-After %v", info.RetryAfter)
			}
			id, err := certificate.MakeARICertID(first)
			if err != nil {
				w.Fatal(err)
			}
			second, res := l.obtain(certificate.ObtainRequest{Domains: []string{"a.test", "b.test"}, ReplacesCertID: id})
			w.Renewed(first, second)
			reason := uint(4)
			if err := l.Certificate.RevokeWithReason(res.Certificate, &reason); err != nil {
				w.Fatal(err)
			}
			w.Revoked(ca, second, w.Write("lego4.key", string(res.PrivateKey)))
		})
		w.Sub("tls-alpn-01, RSA, IP address", func(w *harness.World) {
			l := newLego4(w, ca, certcrypto.RSA2048, "", "")
			if err := l.Challenge.SetTLSALPN01Provider(tlsalpn01.NewProviderServer("127.0.0.1", "443")); err != nil {
				w.Fatal(err)
			}
			cert, _ := l.obtain(certificate.ObtainRequest{Domains: []string{"a.test"}})
			w.KeyIs(cert, "RSA-2048")
			l.obtain(certificate.ObtainRequest{Domains: []string{"127.0.0.1"}})
		})
		w.Sub("IP address by http-01, external account binding, profile", func(w *harness.World) {
			kid, hmac := ca.EAB()
			newLego4(w, ca, certcrypto.EC384, kid, hmac).http().
				obtain(certificate.ObtainRequest{Domains: []string{"127.0.0.1"}, Profile: profileOf(w, ca)})
		})
	})
}

func TestLego4DNS(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		b := w.BIND()
		ca := w.CA(harness.Options{})
		conf := rfc2136.NewDefaultConfig()
		conf.Nameserver, conf.TSIGAlgorithm, conf.TSIGKey, conf.TSIGSecret = "127.0.0.1:53", "hmac-sha256.", b.KeyName, b.Secret
		conf.PollingInterval, conf.SequenceInterval, conf.PropagationTimeout = 100*time.Millisecond, 100*time.Millisecond, 10*time.Second
		provider, err := rfc2136.NewDNSProviderConfig(conf)
		if err != nil {
			w.Fatal(err)
		}
		l := newLego4(w, ca, certcrypto.EC256, "", "")
		if err := l.Challenge.SetDNS01Provider(provider, dns01.AddRecursiveNameservers([]string{"127.0.0.1:53"}),
			dns01.DisableAuthoritativeNssPropagationRequirement()); err != nil {
			w.Fatal(err)
		}
		l.obtain(certificate.ObtainRequest{Domains: []string{"*.a.test", "a.test"}})
	})
}

package ceremony

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// NewCA says what certificate a ceremony makes.
type NewCA struct {
	Name         string // the common name
	Organization string
	Lifetime     time.Duration // 0: as long as is usual
	Root         bool          // self-signed, without a parent

	// The rest is for what stands below a parent.

	Usages    []cert.Usage // none: no limit
	Constrain []string     // domains and networks that it may name; none: no limit
	Responder bool         // not a CA, but a key that signs OCSP responses in the parent's name
	// CRLURL and AIAURL are where relying parties find the parent's CRL and
	// certificate: "http://crl.internal", to which /crl/KEYID.crl and
	// /ca/KEYID.cer are added, or the URL of a file, as in
	// "http://crl.internal/root.crl". "": left out.
	CRLURL, AIAURL string
}

// Parent is who certifies: its certificate and its key.
type Parent struct {
	Certificate string // a PEM file; the first one in it counts
	Key         Key
}

// open returns the parent's certificate and key, which fit each other; the
// caller closes the key.
func (p Parent) open(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	c, err := ReadCertificate(p.Certificate)
	if err != nil {
		return nil, nil, err
	}
	key, err := p.Key.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !sameKey(key.Public(), c.PublicKey) {
		Close(key)
		return nil, nil, fmt.Errorf("%s is not the key of %q in %s", p.Key.URI, c.Subject, p.Certificate)
	}
	return c, key, nil
}

// Source opens or makes the key that a ceremony is about, which closes it. It is
// called once everything else is in order, so that no key is made in vain.
type Source func(context.Context) (crypto.Signer, error)

// CreateCA makes the certificate of a key that is at hand, under a parent
// whose key is at hand too, or self-signed, and writes it to a new file. It
// blocks on the tokens and on the person who is asked for PINs.
func CreateCA(ctx context.Context, n NewCA, source Source, by Parent, out string) (*x509.Certificate, error) {
	if err := free(out); err != nil {
		return nil, err
	}
	c, err := n.certify(ctx, source, by)
	if err != nil {
		return nil, err
	}
	return c, WriteNew(out, EncodeCertificate(c), 0o644)
}

func (n NewCA) certify(ctx context.Context, source Source, by Parent) (*x509.Certificate, error) {
	if n.Root {
		ca, err := n.parameters(nil)
		if err != nil {
			return nil, err
		}
		key, err := source(ctx)
		if err != nil {
			return nil, err
		}
		defer Close(key)
		return issuer.NewRoot(key, ca)
	}
	parent, parentKey, err := by.open(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(parentKey)
	if _, err := n.parameters(parent); err != nil {
		return nil, err
	}
	key, err := source(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(key)
	return n.under(parent, parentKey, key.Public())
}

// under makes the certificate of a public key under a parent.
func (n NewCA) under(parent *x509.Certificate, parentKey crypto.Signer, pub crypto.PublicKey) (*x509.Certificate, error) {
	ca, err := n.parameters(parent)
	if err != nil {
		return nil, err
	}
	if sameKey(pub, parent.PublicKey) {
		return nil, fmt.Errorf("the key is the parent's own: %q; each certificate has a key of its own", parent.Subject)
	}
	if n.Responder {
		return issuer.NewResponder(parent, parentKey, pub, ca)
	}
	return issuer.NewIntermediate(parent, parentKey, pub, ca)
}

// parameters puts the request into the issuer's words; parent is nil for a
// root.
func (n NewCA) parameters(parent *x509.Certificate) (issuer.CA, error) {
	ca := issuer.CA{CommonName: n.Name, Organization: n.Organization, Lifetime: n.Lifetime, Usages: n.Usages, Now: time.Now()}
	if n.Name == "" {
		return ca, errors.New("the certificate needs a name")
	}
	limited := len(n.Usages)+len(n.Constrain) > 0 || n.CRLURL != "" || n.AIAURL != ""
	switch {
	case n.Root && n.Responder:
		return ca, errors.New("a root is no OCSP responder")
	case n.Root && limited:
		return ca, errors.New("usages, constraints and URLs belong into the certificates below a root")
	case n.Responder && limited:
		return ca, errors.New("an OCSP responder has no usages, constraints and URLs of its own")
	case n.Root || n.Responder:
		return ca, nil
	}
	var err error
	if ca.PermittedDNS, ca.PermittedIPs, err = permitted(n.Constrain); err != nil {
		return ca, err
	}
	id := hex.EncodeToString(parent.SubjectKeyId)
	if ca.CRLURL, err = published(n.CRLURL, "/crl/"+id+".crl"); err != nil {
		return ca, err
	}
	ca.IssuerURL, err = published(n.AIAURL, "/ca/"+id+".cer")
	return ca, err
}

// permitted sorts what a CA may name into domains and networks.
func permitted(names []string) (domains []string, networks []netip.Prefix, err error) {
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			networks = append(networks, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		if strings.Contains(name, "/") {
			network, err := netip.ParsePrefix(name)
			if err != nil || network != network.Masked() {
				return nil, nil, fmt.Errorf("%q is not a network; write it as in 10.0.0.0/8", name)
			}
			networks = append(networks, network)
			continue
		}
		id, err := protocol.ParseIdentifier(string(protocol.DNS), name)
		if err != nil || id.IsWildcard() {
			return nil, nil, fmt.Errorf("%q is not a domain or network; write it as in prod.internal, for all names in it, or 10.0.0.0/8", name)
		}
		domains = append(domains, id.Value)
	}
	return domains, networks, nil
}

// published is where something of the parent's is found: a base gets the path
// that the publish listener has for it, as crl_url and aia_url do.
func published(base, path string) (string, error) {
	if base == "" {
		return "", nil
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q is not an http URL", base)
	case u.Scheme != "http":
		return "", fmt.Errorf("%s: use http: what is fetched is signed, and who checks a certificate can't be asked to check another one first", base)
	case strings.Contains(u.Path[strings.LastIndexByte(u.Path, '/')+1:], "."): // it names the file
		return base, nil
	}
	return strings.TrimSuffix(base, "/") + path, nil
}

// RequestCA makes a request for a CA certificate of the key (PKCS #10), to be
// carried to where the parent's key is, and writes it to a new file. Only the
// name and the key of it count there.
func RequestCA(ctx context.Context, n NewCA, source Source, out string) error {
	if err := free(out); err != nil {
		return err
	}
	if n.Name == "" {
		return errors.New("the CA needs a name")
	}
	subject := pkix.Name{CommonName: n.Name}
	if n.Organization != "" {
		subject.Organization = []string{n.Organization}
	}
	key, err := source(ctx)
	if err != nil {
		return err
	}
	defer Close(key)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return fmt.Errorf("sign the request: %w", err)
	}
	return WriteNew(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644)
}

// ReadRequest reads a request that RequestCA or another program made, checks
// its signature (whoever made it has the key), and returns it.
func ReadRequest(path string) (*x509.CertificateRequest, error) {
	der, err := readPEM(path, "CERTIFICATE REQUEST")
	if err != nil {
		return nil, err
	}
	r, err := parseRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request's signature is not by its key: %w", err)
	}
	names := map[string]int{}
	for _, a := range r.Subject.Names {
		names[a.Type.String()]++
	}
	if names["2.5.4.3"] != 1 || names["2.5.4.10"] > 1 || len(r.Subject.Names) != names["2.5.4.3"]+names["2.5.4.10"] || r.Subject.CommonName == "" {
		return nil, fmt.Errorf("the subject %q isn't one common name and at most one organization, which is all that is made here", r.Subject)
	}
	return r, nil
}

// SignCA makes the certificate for a request, with the name and the key in it
// and all else as n says. sure is
// shown what will be signed, before the parent's key is asked for anything;
// its error ends the ceremony.
func SignCA(ctx context.Context, n NewCA, request string, by Parent, out string, sure func(what string) error) (*x509.Certificate, error) {
	if err := free(out); err != nil {
		return nil, err
	}
	r, err := ReadRequest(request)
	if err != nil {
		return nil, err
	}
	n.Name, n.Organization = r.Subject.CommonName, strings.Join(r.Subject.Organization, "")
	parent, err := ReadCertificate(by.Certificate)
	if err != nil {
		return nil, err
	}
	what, err := n.describe(r, parent)
	if err != nil {
		return nil, err
	}
	if err := sure(what); err != nil {
		return nil, err
	}
	parent, parentKey, err := by.open(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(parentKey)
	c, err := n.under(parent, parentKey, r.PublicKey)
	if err != nil {
		return nil, err
	}
	return c, WriteNew(out, EncodeCertificate(c), 0o644)
}

// describe says in a few lines what is about to be signed.
func (n NewCA) describe(r *x509.CertificateRequest, parent *x509.Certificate) (string, error) {
	ca, err := n.parameters(parent)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{what}, args...)...)
	}
	typ, _ := issuer.KeyTypeOf(r.PublicKey)
	fmt.Fprintf(&b, "%q will certify %s\n", parent.Subject, map[bool]string{true: "an OCSP responder:", false: "a CA:"}[n.Responder])
	line("name", "%q", r.Subject)
	line("key", "%s, key id %s", typ, subjectKeyID(r.RawSubjectPublicKeyInfo))
	line("fingerprint", "%s", Fingerprint(r.RawSubjectPublicKeyInfo))
	if !n.Responder {
		line("usages", "%s", cmp.Or(strings.Join(words(n.Usages), ", "), "any"))
		line("names", "%s", cmp.Or(strings.Join(n.Constrain, ", "), "any"))
	}
	if ca.CRLURL != "" {
		line("CRL", "%s", ca.CRLURL)
	}
	if ca.IssuerURL != "" {
		line("parent at", "%s", ca.IssuerURL)
	}
	lifetime := n.Lifetime
	switch {
	case lifetime == 0 && n.Responder:
		lifetime = issuer.ResponderLifetime
	case lifetime == 0:
		lifetime = issuer.IntermediateLifetime
	}
	end := ca.Now.Add(lifetime)
	if end.After(parent.NotAfter) {
		end = parent.NotAfter
	}
	line("until", "%s", end.UTC().Format(time.DateOnly))
	return b.String(), nil
}

func words[T ~string](values []T) []string {
	var s []string
	for _, v := range values {
		s = append(s, string(v))
	}
	return s
}

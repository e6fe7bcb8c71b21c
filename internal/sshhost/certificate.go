package sshhost

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// hostKey is one of sshd's keys.
type hostKey struct {
	path   string // of the private key
	signer ssh.Signer
}

// loadKey reads a host key, which only root can.
func loadKey(path string) (*hostKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("a host key: %w (run as root; ssh-keygen -A makes those that are missing)", err)
	}
	defer clear(data)
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := raw.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T can't prove itself", path, raw)
	}
	s, err := ssh.NewSignerFromSigner(signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &hostKey{path, s}, sshca.CheckKey(s.PublicKey(), nil)
}

// readCertificate reads a certificate's file; nil if there is none that counts.
func readCertificate(path string) *ssh.Certificate {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	cert, _ := parseCertificate(data)
	return cert
}

// parseCertificate reads the one line that a certificate is.
func parseCertificate(data []byte) (*ssh.Certificate, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, errors.New("it can't be read")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one SSH certificate")
	}
	return cert, nil
}

// checkCertificate says why a certificate isn't the one that was asked for: sshd
// would show it to everybody who logs in.
func checkCertificate(cert *ssh.Certificate, key ssh.PublicKey, names []string, cas []ssh.PublicKey, now time.Time) error {
	equal := func(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
	want, have := slices.Clone(names), slices.Clone(cert.ValidPrincipals)
	slices.Sort(want)
	slices.Sort(have)
	switch {
	case cert.CertType != ssh.HostCert:
		return errors.New("it isn't a host's")
	case !equal(cert.Key, key):
		return errors.New("it is for another key")
	case !slices.Equal(want, have):
		return fmt.Errorf("it is for %s, not %s", strings.Join(have, ", "), strings.Join(want, ", "))
	case !slices.ContainsFunc(cas, func(ca ssh.PublicKey) bool { return equal(ca, cert.SignatureKey) }):
		return fmt.Errorf("it is signed with %s, which the CA doesn't name among its keys", ssh.FingerprintSHA256(cert.SignatureKey))
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	return checker.CheckCert(names[0], cert)
}

// asked is one certificate to get.
type asked struct {
	names    []string
	profile  string
	lifetime time.Duration // 0: the profile's
	key      *hostKey
	solvers  []acme.Solver
}

// finalize is the payload that asks for an SSH certificate.
type finalize struct {
	SSHPublicKey string `json:"sshPublicKey"`
	Possession   string `json:"possession"`
}

// obtain gets a certificate from one CA, and checks it. It blocks on the network,
// and on whoever proves the names.
func (a asked) obtain(ctx context.Context, c *acme.Client, t *Trust) (line []byte, cert *ssh.Certificate, err error) {
	order := acme.OrderRequest{Identifiers: acme.Identifiers(a.names...), Profile: a.profile}
	if a.lifetime > 0 {
		order.NotAfter = time.Now().Add(a.lifetime)
	}
	o, err := c.NewOrder(ctx, order)
	if err != nil {
		return nil, nil, err
	}
	// What the host key signs is the order's URL; of another server's it would
	// prove something there.
	if !sameOrigin(c.DirectoryURL, o.URL) {
		return nil, nil, fmt.Errorf("the order's URL %.80q is of another server than the directory's", o.URL)
	}
	if err := c.Authorize(ctx, o, a.solvers...); err != nil {
		return nil, nil, err
	}
	public, err := sshca.KeyLine(a.key.signer.PublicKey(), "")
	if err != nil {
		return nil, nil, err
	}
	possession, err := sshca.SignPossession(a.key.signer, o.URL)
	if err != nil {
		return nil, nil, err
	}
	if o, err = finish(ctx, c, o, finalize{strings.TrimSpace(public), possession}); err != nil {
		return nil, nil, err
	}
	chain, err := c.Certificate(ctx, o.Certificate)
	if err != nil {
		return nil, nil, err
	}
	if chain.ContentType != "application/vnd.chancery.ssh-certificate" {
		return nil, nil, fmt.Errorf("the server answered %.60q, not an SSH certificate", chain.ContentType)
	}
	cert, err = parseCertificate(chain.PEM)
	if err == nil {
		err = checkCertificate(cert, a.key.signer.PublicKey(), a.names, t.Host, time.Now())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the certificate that came is refused: %w", err)
	}
	return ssh.MarshalAuthorizedKey(cert), cert, nil
}

// finish finalizes an order and waits for its end; servers that take a moment
// between a valid authorization and a ready order are met with a wait.
func finish(ctx context.Context, c *acme.Client, o acme.Order, payload finalize) (acme.Order, error) {
	done, err := c.FinalizeWith(ctx, o, payload)
	if acme.HasType(err, acme.ErrOrderNotReady) {
		if o, err = c.WaitOrder(ctx, o); err == nil {
			done, err = c.FinalizeWith(ctx, o, payload)
		}
	}
	if err != nil {
		return done, err
	}
	if done.Status == acme.StatusReady { // its answer may still be the state before
		done.Status = acme.StatusProcessing
	}
	if done, err = c.WaitOrder(ctx, done); err != nil {
		return done, err
	}
	if done.Status != acme.StatusValid || done.Certificate == "" {
		return done, fmt.Errorf("the order is %.20q without a certificate", done.Status)
	}
	return done, nil
}

// sameOrigin reports whether two URLs have one scheme, host and port.
func sameOrigin(a, b string) bool {
	origin := func(u string) string {
		scheme, rest, _ := strings.Cut(u, "://")
		host, _, _ := strings.Cut(rest, "/")
		return scheme + "://" + host
	}
	return strings.EqualFold(origin(a), origin(b))
}

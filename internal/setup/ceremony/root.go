package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
)

// RootRotation makes a new root beside the old one: its certificate, another
// one for the same key by the old root (who trusts only the old one then
// verifies what stands below the new one), and for the key of each issuing
// CA below the old root a certificate by the new one. The issuing keys
// themselves stay, and needn't be at hand.
type RootRotation struct {
	Config   *config.Config
	Name     string        // of the new root; "": the old one's with the next number
	Lifetime time.Duration // of the new root; 0: as long as is usual
	Old      Parent
	Out      string // the new root's certificate; the others' names derive from it
}

// reissue is one issuing certificate made anew.
type reissue struct {
	issuer string // in the configuration
	signer int
	old    *x509.Certificate
	out    string
}

// Run does it; source has the new root's key. No certificate is written unless
// all could be made. It blocks on both keys.
func (r RootRotation) Run(ctx context.Context, source Source) (*Rotated, error) {
	old, oldKey, err := r.Old.open(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(oldKey)
	if !bytes.Equal(old.RawSubject, old.RawIssuer) {
		return nil, fmt.Errorf("%s: %q is not a root", r.Old.Certificate, old.Subject)
	}
	below, skipped, err := r.below(old)
	if err != nil {
		return nil, err
	}
	key, err := source(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(key)
	if sameKey(key.Public(), old.PublicKey) {
		return nil, errors.New("the new root's key is the old one's: give it a key of its own")
	}
	bodies := map[string][]byte{}
	made, err := r.make(old, oldKey, key, below, bodies)
	if err != nil {
		return nil, err
	}
	for _, file := range made.Files {
		if err := WriteNew(file, bodies[file], 0o644); err != nil {
			return nil, err
		}
	}
	made.Advice = r.advice(below, skipped)
	return made, nil
}

// make makes all certificates; bodies gets what the files shall hold.
func (r RootRotation) make(old *x509.Certificate, oldKey, key crypto.Signer, below []reissue, bodies map[string][]byte) (*Rotated, error) {
	now := time.Now()
	name := r.Name
	if name == "" {
		name = nextName(old.Subject.CommonName)
	}
	root, err := issuer.NewRoot(key, issuer.CA{CommonName: name, Organization: strings.Join(old.Subject.Organization, ""), Lifetime: r.Lifetime, Now: now})
	if err != nil {
		return nil, err
	}
	cross := issuer.CA{Now: now}
	if len(below) > 0 { // they know where the old root's list and certificate are
		cross.CRLURL, cross.IssuerURL = first(below[0].old.CRLDistributionPoints), first(below[0].old.IssuingCertificateURL)
	}
	bridge, err := issuer.CrossSign(root, old, oldKey, cross)
	if err != nil {
		return nil, err
	}
	made := &Rotated{Certificates: []*x509.Certificate{root, bridge}, Files: []string{r.Out, r.crossFile()}}
	bodies[r.Out], bodies[r.crossFile()] = EncodeCertificate(root), append(EncodeCertificate(bridge), EncodeCertificate(old)...)
	for _, b := range below {
		c, err := b.certify(root, key, old, now)
		if err != nil {
			return nil, err
		}
		made.Certificates, made.Files = append(made.Certificates, c), append(made.Files, b.out)
		bodies[b.out] = EncodeCertificate(c)
	}
	return made, nil
}

// crossFile holds the way from the new root's key up to the old root.
func (r RootRotation) crossFile() string {
	return strings.TrimSuffix(r.Out, filepath.Ext(r.Out)) + "-cross.pem"
}

// below finds the issuing certificates that stand directly below the old
// root, and the issuers that don't. It fails where a file is in the way.
func (r RootRotation) below(old *x509.Certificate) (found []reissue, skipped []string, err error) {
	if err := errors.Join(free(r.Out), free(r.crossFile())); err != nil {
		return nil, nil, err
	}
	base := strings.TrimSuffix(filepath.Base(r.Out), filepath.Ext(r.Out))
	for _, name := range slices.Sorted(maps.Keys(r.Config.Issuers)) {
		direct := true
		for i, s := range r.Config.Issuers[name].Signers {
			path := r.Config.Path(s.Certificate)
			c, err := ReadCertificate(path)
			if err != nil {
				return nil, nil, r.Config.At(fmt.Sprintf("issuers.%s.signers[%d].certificate", name, i), err)
			}
			if c.CheckSignatureFrom(old) != nil {
				direct = false
				continue
			}
			out := strings.TrimSuffix(path, filepath.Ext(path)) + "-" + base + ".pem"
			if err := free(out); err != nil {
				return nil, nil, err
			}
			found = append(found, reissue{issuer: name, signer: i, old: c, out: out})
		}
		if !direct {
			skipped = append(skipped, name)
		}
	}
	return found, skipped, nil
}

// certify makes the certificate of the same key and name under the new root,
// with the same end.
func (b reissue) certify(root *x509.Certificate, rootKey crypto.Signer, old *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	n, err := like(b.old)
	if err != nil {
		return nil, err
	}
	n.CRLURL, n.AIAURL = moved(n.CRLURL, old), moved(n.AIAURL, old)
	left := b.old.NotAfter.Sub(now)
	if left <= 0 {
		return nil, fmt.Errorf("%q ended on %s: take it out of the configuration first", b.old.Subject, b.old.NotAfter.Format(time.DateOnly))
	}
	n.Lifetime = left + time.Hour // it begins that much back
	c, err := n.under(root, rootKey, b.old.PublicKey)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(c.RawSubject, b.old.RawSubject) || !bytes.Equal(c.SubjectKeyId, b.old.SubjectKeyId) {
		return nil, fmt.Errorf("%q was made by another program, whose names and key identifiers aren't made here: make its certificate by the new root there", b.old.Subject)
	}
	return c, nil
}

// moved makes the address of what the old parent publishes a base, to which
// the new one's path is added. An address that isn't of our form is left out:
// nobody knows what the new one's would be.
func moved(address string, old *x509.Certificate) string {
	id := hex.EncodeToString(old.SubjectKeyId)
	for _, path := range []string{"/crl/" + id + ".crl", "/ca/" + id + ".cer"} {
		if base, ok := strings.CutSuffix(address, path); ok {
			return base
		}
	}
	return ""
}

func (r RootRotation) advice(below []reissue, skipped []string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("1. In %s:", r.Config.File())
	last := ""
	for i, item := range below {
		if item.issuer != last {
			p("   issuers.%s:", item.issuer)
			last = item.issuer
		}
		p("        certificate: %s   # for %s; its key stays", strconv.Quote(named(r.Config, item.out)), at(r.Config, fmt.Sprintf("issuers.%s.signers[%d]", item.issuer, item.signer)))
		if i+1 == len(below) || below[i+1].issuer != item.issuer {
			p("    chain: %s   # by way of the old root: both trust it", strconv.Quote(named(r.Config, r.crossFile())))
			p("    alternate_chains: [%s]   # the short way, for those that trust the new root", strconv.Quote(named(r.Config, r.Out)))
		}
	}
	for _, name := range skipped {
		p("   issuers.%s has certificates that don't stand directly below the old root: those above them need new ones by the new root.", name)
	}
	p("2. Take the new root's key offline.")
	p("3. chanceryd check %s, then reload the server (SIGHUP).", r.Config.File())
	p("4. Give %s to everybody who trusts the old root; add it to roots.pem.", r.Out)
	p("5. Once all have it: chain: %s, and no alternate_chains. The old root ends by itself, or is taken out of the trust stores.", strconv.Quote(named(r.Config, r.Out)))
	return b.String()
}

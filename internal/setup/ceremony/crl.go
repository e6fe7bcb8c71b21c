package ceremony

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/revocation"
)

// RootCRL says what the list of a root, or of another CA whose key is kept
// offline, shall be. It withdraws CA certificates; the server makes the lists
// of the issuing CAs by itself.
type RootCRL struct {
	By       Parent
	Previous string        // the list before, whose entries stay; "" is Out, if it is there
	Number   int64         // 0: one more than that of the list before, which must be there then
	Validity time.Duration // 0: RootCRLValidity
	Revoke   []Withdrawal
	Out      string // replaced if it is the list before
}

// RootCRLValidity is how long a root's list is believed: a year passes
// between two ceremonies at the most.
const RootCRLValidity = 365 * 24 * time.Hour

// Withdrawal is one certificate to be withdrawn.
type Withdrawal struct {
	Certificate string // a PEM file
	Reason      int    // a CRLReason (RFC 5280 section 5.3.1)
}

// crlReasons are the reasons that a CA certificate may be withdrawn for (RFC
// 5280 section 5.3.1): not a hold, which isn't for good, and not removeFromCRL.
var crlReasons = []struct {
	name string
	code int
}{
	{"unspecified", 0}, {"keyCompromise", 1}, {"cACompromise", 2}, {"affiliationChanged", 3}, {"superseded", 4},
	{"cessationOfOperation", 5}, {"privilegeWithdrawn", 9},
}

// ParseWithdrawal reads "FILE=REASON"; without a reason it is unspecified.
func ParseWithdrawal(text string) (Withdrawal, error) {
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return Withdrawal{Certificate: text}, nil
	}
	var known []string
	for _, r := range crlReasons {
		if r.name == text[i+1:] {
			return Withdrawal{Certificate: text[:i], Reason: r.code}, nil
		}
		known = append(known, r.name)
	}
	return Withdrawal{}, fmt.Errorf("%q: the reason is one of %s", text, strings.Join(known, ", "))
}

// Run makes the list, checks it, and writes it. It blocks on the key.
func (l RootCRL) Run(ctx context.Context) (*x509.RevocationList, error) {
	parent, key, err := l.By.open(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(key)
	if err := revocation.Check(parent); err != nil {
		return nil, err
	}
	previous, err := l.previous(parent)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	t := &x509.RevocationList{Number: big.NewInt(l.Number), ThisUpdate: now, NextUpdate: now.Add(RootCRLValidity)}
	if l.Validity > 0 {
		t.NextUpdate = now.Add(l.Validity)
	}
	if t.NextUpdate.After(parent.NotAfter) {
		t.NextUpdate = parent.NotAfter
	}
	if err := l.number(t, previous); err != nil {
		return nil, err
	}
	if err := l.withdraw(t, parent, now); err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, parent, key)
	if err != nil {
		return nil, fmt.Errorf("sign the list: %w", err)
	}
	if _, _, _, err := revocation.CRLNumber(der, parent); err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	if previous != nil && filepath.Clean(l.Previous) == filepath.Clean(l.Out) {
		err = ReplaceFile(l.Out, text)
	} else if err = free(l.Out); err == nil {
		err = WriteNew(l.Out, text, 0o644)
	}
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// previous reads the list before, nil if there is none.
func (l *RootCRL) previous(parent *x509.Certificate) (*x509.RevocationList, error) {
	named := l.Previous != ""
	if !named {
		l.Previous = l.Out
	}
	data, err := readFile(l.Previous)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	if _, _, _, err := revocation.CRLNumber(data, parent); err != nil {
		return nil, fmt.Errorf("%s: %w", l.Previous, err)
	}
	return x509.ParseRevocationList(data)
}

// number gives the list its number, which never goes back (RFC 5280 section
// 5.2.3): relying parties may keep what has the higher one. It takes over the
// entries of the list before.
func (l *RootCRL) number(t, previous *x509.RevocationList) error {
	if previous == nil {
		if l.Number <= 0 {
			return fmt.Errorf("%s isn't there: name the list before (--previous), whose entries stay, or give the number of the first (--number 1)", l.Out)
		}
		return nil
	}
	switch next := new(big.Int).Add(previous.Number, big.NewInt(1)); {
	case l.Number == 0:
		t.Number = next
	case t.Number.Cmp(next) < 0:
		return fmt.Errorf("number %d isn't above that of %s, %v", l.Number, l.Previous, previous.Number)
	}
	for _, e := range previous.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if !x.Id.Equal([]int{2, 5, 29, 21}) { // the reason is a field
				e.ExtraExtensions = append(e.ExtraExtensions, x)
			}
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, e)
	}
	return nil
}

// withdraw adds the certificates, which must be the parent's.
func (l *RootCRL) withdraw(t *x509.RevocationList, parent *x509.Certificate, now time.Time) error {
	for _, w := range l.Revoke {
		c, err := ReadCertificate(w.Certificate)
		if err != nil {
			return err
		}
		if !bytes.Equal(c.RawIssuer, parent.RawSubject) || c.CheckSignatureFrom(parent) != nil {
			return fmt.Errorf("%s: %q was not issued by %q", w.Certificate, c.Subject, parent.Subject)
		}
		if i := slices.IndexFunc(t.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }); i >= 0 {
			return fmt.Errorf("%s: %q is on the list since %s", w.Certificate, c.Subject, t.RevokedCertificateEntries[i].RevocationTime.Format(time.DateOnly))
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: c.SerialNumber, RevocationTime: now, ReasonCode: w.Reason,
		})
	}
	return nil
}

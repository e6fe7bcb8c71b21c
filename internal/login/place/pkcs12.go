package place

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"path/filepath"

	"software.sslmate.com/src/go-pkcs12"
)

// bundle is the target pkcs12: one file with key and certificates, and its
// password in another.
type bundle struct{ o Options }

const (
	p12Suffix      = ".p12"
	passwordSuffix = ".p12.password"
)

// Put writes NAME.p12 and, where no password was given, a random one into
// NAME.p12.password. It is no secret from whoever can read the folder: what
// protects both is the folder, and the password is there because programs want
// one.
func (t bundle) Put(_ context.Context, p Pair) (Placed, error) {
	leaf, err := p.exportable("pkcs12", "slot")
	if err != nil {
		return Placed{}, err
	}
	password, given := string(t.o.PKCS12Password), len(t.o.PKCS12Password) > 0
	if !given {
		password = rand.Text()
	}
	// AES-256 and SHA-256, which OpenSSL 1.1.1, NSS, Java 12 and Windows 2019
	// read; of the newer PBMAC1 (RFC 9579) few know.
	data, err := p.encode(pkcs12.Modern2023, password)
	if err != nil {
		return Placed{}, err
	}
	write := []file{{p.Name + p12Suffix, data}}
	var remove []string
	if given {
		remove = append(remove, p.Name+passwordSuffix)
	} else {
		write = append(write, file{p.Name + passwordSuffix, []byte(password + "\n")})
	}
	placed := p.placed("pkcs12", leaf)
	placed.Mark = mark(data)
	return t.o.put(placed, write, remove)
}

// encode returns key and chain as PKCS#12.
func (p Pair) encode(e *pkcs12.Encoder, password string) ([]byte, error) {
	var chain []*x509.Certificate
	for _, der := range p.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	data, err := e.Encode(p.Key, chain[0], chain[1:], password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return data, nil
}

// Remove unlinks the files, unless they are a later certificate's.
func (t bundle) Remove(_ context.Context, p Placed) error {
	if err := p.check("pkcs12"); err != nil {
		return err
	}
	names := []string{p.Name + passwordSuffix, p.Name + p12Suffix}
	dir, err := within(p, names...)
	if err != nil {
		return err
	}
	data, err := read(filepath.Join(dir, p.Name+p12Suffix))
	if err != nil || data != nil && mark(data) != p.Mark {
		return err
	}
	return empty(dir, names...)
}

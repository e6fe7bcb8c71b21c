//go:build ignore

// Inside does for slowkeys what takes the server's own packages. It is built
// from the repository's root, as part of the server's module:
//
//	inside hsm DIR LABEL...        SoftHSM tokens behind the slow module; prints a key's URI for each
//	inside live DB KEYID URL N     N certificates in force that point to OCSP at the URL; prints their serials
//	inside revoked DB KEYID N      N revoked ones
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/slowhsm"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
	"github.com/chancery-pki/chancery/internal/store"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "hsm":
		return hsm(args[1], args[2:])
	case len(args) == 5 && args[0] == "live":
		n, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		return live(ctx, args[1], args[2], args[3], n)
	case len(args) == 4 && args[0] == "revoked":
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return revoked(ctx, args[1], args[2], n)
	}
	return errors.New("see the comment in its source for what it takes")
}

// hsm makes tokens in DIR/soft and the module before them in DIR/slow.
func hsm(dir string, labels []string) error {
	soft, slow := filepath.Join(dir, "soft"), filepath.Join(dir, "slow")
	if err := errors.Join(os.MkdirAll(soft, 0o700), os.MkdirAll(slow, 0o700)); err != nil {
		return err
	}
	h, err := softhsm.In(soft)
	if err != nil {
		return err
	}
	m, err := slowhsm.In(slow, h.Module, h.Env())
	if err != nil {
		return err
	}
	for _, label := range labels {
		t, err := h.NewToken(label, "1234")
		if err != nil {
			return err
		}
		t.Module = m.Path
		fmt.Println(t.URI("ca"))
	}
	return nil
}

// batch is how many certificates share a transaction.
const batch = 500

// fill puts n certificates into the database, as they are when they are
// issued; change makes each what is wanted. The serials go to standard output.
func fill(ctx context.Context, database string, n int, change func(i int, c *cert.Certificate)) error {
	db, err := store.Open(ctx, store.Options{DSN: database, UnsafeSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriter(os.Stdout)
	now := time.Now()
	for at := 0; at < n; at += batch {
		err := db.Update(ctx, func(tx *store.Tx) error {
			for i := at; i < min(at+batch, n); i++ {
				c := cert.Certificate{
					Serial: serial(), State: cert.Issued, Directory: "filled", Profile: "filled", Issuer: "filled",
					KeyHash:   "00",
					NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), PlannedAt: now,
				}
				change(i, &c)
				if err := tx.InsertCertificate(c, time.Time{}); err != nil {
					return err
				}
				fmt.Fprintln(out, c.Serial)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("filling, after %d: %w", at, err)
		}
	}
	return out.Flush()
}

// serial is a fresh one of 16 octets in DER.
func serial() cert.Serial {
	for {
		if s := cert.NewSerial(); s[0] < '8' {
			return s
		}
	}
}

// live fills in certificates that can be asked about. Their signatures are
// another key's: to the server they are what it issued, and nobody verifies
// them here.
func live(ctx context.Context, database, keyID, url string, n int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	model := serial()
	template := &x509.Certificate{
		SerialNumber: model.Big(), DNSNames: []string{"pod.live.internal"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, OCSPServer: []string{url},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		return err
	}
	from := model.Big().Bytes()
	if bytes.Count(der, from) != 1 {
		return errors.New("the model's serial isn't once in it")
	}
	return fill(ctx, database, n, func(i int, c *cert.Certificate) {
		own, _ := hex.DecodeString(string(c.Serial))
		c.IssuerKeyID, c.DER = keyID, bytes.Replace(der, from, own, 1)
		c.Names = []protocol.Identifier{{Type: protocol.DNS, Value: fmt.Sprintf("pod-%d.live.internal", i)}}
	})
}

// revoked fills in revoked certificates. A list says nothing of their bytes,
// which are left out.
func revoked(ctx context.Context, database, keyID string, n int) error {
	reasons := []cert.Reason{cert.Unspecified, cert.KeyCompromise, cert.Superseded, cert.CessationOfOperation}
	now := time.Now()
	return fill(ctx, database, n, func(i int, c *cert.Certificate) {
		c.IssuerKeyID, c.Revoked = keyID, cert.Revoked{At: now.Add(-time.Duration(i) * time.Millisecond), Reason: reasons[i%len(reasons)]}
	})
}

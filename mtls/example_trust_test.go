package mtls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-pki/chancery/mtls"
)

// A program that trusts one private PKI, for servers and clients alike. The
// file may be replaced while it runs.
func ExampleNewTrust() {
	path := filepath.Join(os.TempDir(), "example-roots.pem")
	defer os.Remove(path)
	if err := os.WriteFile(path, exampleRoot("Example Root"), 0o600); err != nil {
		log.Fatal(err)
	}

	roots := []mtls.Roots{mtls.RootsFile(path)}
	trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: roots, Clients: roots})
	if err != nil {
		log.Fatal(err)
	}
	defer trust.Close()
	// mtls.New(ctx, mtls.Config{Trust: trust})

	for _, s := range trust.Health().Sources {
		fmt.Println(s.List, s.Roots)
	}
	// Output:
	// Servers 1
	// Clients 1
}

// A service that calls servers on the internet, demands clients of the private
// PKI, follows that one's rotation by its bundle, and refuses clients whose
// certificates were revoked, or about which nothing can be found out.
func ExampleTrustConfig() {
	trust, err := mtls.NewTrust(mtls.TrustConfig{
		Servers: []mtls.Roots{mtls.RootsSystem()},
		Clients: []mtls.Roots{
			mtls.RootsPEM(exampleRoot("Example Root")),
			mtls.RootsURL("https://ca.prod.internal/roots.pem"),
		},
		Revocation: mtls.Revocation{Check: mtls.CheckOCSP, Hard: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer trust.Close()
}

// A CA rotates: until nothing of the old root's is in use, both are listed.
func ExampleTrust_Reload() {
	path := filepath.Join(os.TempDir(), "example-rotation.pem")
	defer os.Remove(path)
	old, young := exampleRoot("Example Root 1"), exampleRoot("Example Root 2")
	trustIn := func(pem []byte) {
		if err := os.WriteFile(path, pem, 0o600); err != nil {
			log.Fatal(err)
		}
	}

	trustIn(old)
	trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: []mtls.Roots{mtls.RootsFile(path)}})
	if err != nil {
		log.Fatal(err)
	}
	defer trust.Close()

	trustIn(append(old, young...))
	err = trust.Reload(context.Background()) // or wait a minute
	fmt.Println(trust.Health().Sources[0].Roots, err)

	trustIn(nil) // a mistake changes nothing
	err = trust.Reload(context.Background())
	fmt.Println(trust.Health().Sources[0].Roots, err != nil)
	// Output:
	// 2 <nil>
	// 2 true
}

// exampleRoot makes a root, as the CA's own "roots.pem" would have it.
func exampleRoot(name string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

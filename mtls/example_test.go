package mtls_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// What is wrong with a Config is said by field.
func ExampleStart() {
	_, err := mtls.Start(mtls.Config{
		CAs:   []mtls.CA{{Directory: "http://ca.internal/acme/pods/directory"}},
		Names: []string{"web.prod.internal"},
		Trust: new(mtls.Trust),
	})
	fmt.Println(err)
	// Output: mtls: Config.CAs[0].Directory: "http://ca.internal/acme/pods/directory" is not an https URL; ACME is spoken over TLS only (RFC 8555 section 6.1)
}

// Two CAs that share the work and a last resort, one name for sure and others
// of our customers as they are asked for.
func ExampleConfig() {
	id, err := mtls.New(context.Background(), mtls.Config{
		CAs: []mtls.CA{
			{Directory: "https://ca1.internal/acme/pods/directory"},
			{Directory: "https://ca2.internal/acme/pods/directory"},
			{Directory: "https://ca3.example/acme/directory", Tier: 1, EAB: &acme.ExternalAccount{KeyID: "key-7", MACKey: []byte("…")}},
		},
		Pick:  mtls.PickNearest,
		Names: []string{"web.prod.internal"},
		SNI: func(name string) error {
			if !strings.HasSuffix(name, ".customers.internal") {
				return errors.New("not a customer of ours")
			}
			return nil
		},
		Lifetime: 12 * time.Hour,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	http.Handle("/healthz", id.HealthHandler())
	fmt.Println("first to end:", id.Health().Dark, id.Health().DarkAt)
}

// A cache that survives restarts, under a key that the platform keeps.
func ExampleSealedFile() {
	var key []byte // 32 random bytes, from a secret store
	id, err := mtls.New(context.Background(), mtls.Config{Cache: mtls.SealedFile("/var/lib/web/identity", key)})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
}

// registrar writes the records of a dns provider.
type registrar struct{}

func (registrar) Present(ctx context.Context, name, value string) error { return nil }
func (registrar) CleanUp(ctx context.Context, name, value string) error { return nil }

// Names are proven by dns-01 first, then by whatever else fits.
func ExampleDNS01() {
	cfg := mtls.Config{Proof: mtls.Proof{Solvers: []acme.Solver{mtls.DNS01(registrar{})}}}
	fmt.Println(cfg.Proof.Solvers[0].Type())
	// Output: dns-01
}

package acme_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// A certificate by http-01, with a throwaway account.
func Example() {
	ctx := context.Background()
	accountKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	certificateKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

	client := &acme.Client{DirectoryURL: "https://ca.internal/acme/servers/directory", Key: accountKey}
	if _, err := client.Register(ctx, acme.Registration{TermsAgreed: true}); err != nil {
		log.Fatal(err)
	}
	solver := new(acme.HTTP01Solver)
	go http.ListenAndServe(":80", solver)

	chain, err := client.Obtain(ctx, acme.ObtainRequest{
		Order:   acme.OrderRequest{Identifiers: acme.Identifiers("web.internal")},
		Key:     certificateKey,
		Solvers: []acme.Solver{solver},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", chain.PEM)
}

// tokenSolver answers a challenge which the acme package has never heard of,
// with a payload of its own.
type tokenSolver struct{ token func() string }

func (tokenSolver) Type() string { return "kubernetes-01" }

func (s tokenSolver) Present(context.Context, acme.Proof) (any, error) {
	return map[string]string{"serviceAccountToken": s.token()}, nil
}

func (tokenSolver) CleanUp(context.Context, acme.Proof) error { return nil }

func ExampleSolver() {
	var s acme.Solver = tokenSolver{func() string { return "projected" }}
	payload, _ := s.Present(context.Background(), acme.Proof{})
	fmt.Println(s.Type(), payload)
	// Output: kubernetes-01 map[serviceAccountToken:projected]
}

func ExampleDNSAccount01Name() {
	fmt.Println(acme.DNSAccount01Name("https://example.com/acme/acct/ExampleAccount", "*.example.org"))
	// Output: _ujmmovf2vn55tgye._acme-challenge.example.org
}

func ExampleKeyAuthorization() {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 1)) // never use such a key
	if err != nil {
		log.Fatal(err)
	}
	keyAuth, err := acme.KeyAuthorization("DGyRejmCefe7v4NfDGDKfA", key.Public())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("GET", acme.HTTP01Path("DGyRejmCefe7v4NfDGDKfA"))
	fmt.Println(len(keyAuth), sha256.Size, len(acme.DNS01Value(keyAuth)))
	// Output:
	// GET /.well-known/acme-challenge/DGyRejmCefe7v4NfDGDKfA
	// 66 32 43
}

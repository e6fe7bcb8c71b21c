// Package acme speaks ACME (RFC 8555) from the client's side. It has two
// layers: the protocol's wire words (Directory, Account, Order,
// Authorization, Challenge, Identifier, Problem, RenewalInfo), and a Client
// whose methods are the protocol's requests.
//
// It is for programs which need more of ACME than a certificate for a web
// server: challenges nobody has heard of (their members arrive in
// Challenge.Extra, their answers are posted by Client.Accept), other finalize
// payloads (Client.FinalizeWith; SSH keys, for example), profiles
// (draft-ietf-acme-profiles), external account binding (RFC 8555 section
// 7.3.4), requested lifetimes, renewal information and replaces (RFC 9773),
// addresses (RFC 8738) and tls-alpn-01 (RFC 8737). Whoever just wants mutual
// TLS wants the mtls package above it.
//
// The shortest way to a certificate:
//
//	client := &acme.Client{DirectoryURL: "https://ca.internal/acme/servers/directory", Key: accountKey}
//	if _, err := client.Register(ctx, acme.Registration{TermsAgreed: true}); err != nil { … }
//	solver := new(acme.HTTP01Solver) // an http.Handler; serve it on port 80
//	chain, err := client.Obtain(ctx, acme.ObtainRequest{
//		Order:   acme.OrderRequest{Identifiers: acme.Identifiers("web.internal")},
//		Key:     certificateKey,
//		Solvers: []acme.Solver{solver},
//	})
//
// Against a server that answers at once this takes six POSTs, account
// included; nothing is polled that is final already.
//
// The server is not trusted with more than the protocol gives it. Every body
// is bounded, every URL must be https, redirects of signed requests are
// refused, Retry-After is capped, polling ends. Errors which the server
// reports are *Problem, found with errors.As or HasType.
//
// The package imports the standard library only.
package acme

// Package mtls gives a program mutual TLS 1.3 with certificates that it gets,
// renews and forgets by itself: nothing to configure, nothing on disk.
//
// Mutual TLS is three values: what I am (an [Identity]), whom I trust (a
// [Trust]), whom I allow (an acl.Policy).
//
//	id, err := mtls.New(ctx, mtls.Config{})
//	if err != nil { … }
//	defer id.Close()
//	srv := &http.Server{TLSConfig: id.Server(acl.Allow("web.prod.internal", "*.batch.internal"))}
//	go srv.ListenAndServeTLS("", "")
//	res, err := id.HTTPClient().Get("https://api.prod.internal/")
//
// The zero [Config] takes everything from the environment:
//
//	CHANCERY_DIRECTORY   ACME directory URLs, separated by blanks; after a "|" stand those of the next tier.
//	                     One that gives certificates for servers only, or for clients only, is written
//	                     server=URL, client=URL
//	CHANCERY_ROOTS       a PEM file: the private PKI's roots, for directories and peers alike
//	CHANCERY_NAMES       the names to be certified, separated by blanks or commas
//	CHANCERY_TOKEN       the file of a projected service account token, for kubernetes-01;
//	                     /var/run/secrets/chancery/token where that exists. Several, separated by
//	                     blanks: one for each directory, in their order, "-" for none
//	CHANCERY_EAB         a file with an external account key: its id and its MAC key (base64url), separated
//	                     by a blank. With several directories a line for each, in their order, "-" for none
//
// What the program's Config says wins over the environment, field by field.
//
// # When not
//
// A program that should present a certificate of a public CA on its listener
// and asks no client for one needs autocert, not this. A program that nobody
// here wrote is served by the chancery agent.
//
// # In tests
//
// Package catest (github.com/chancery-pki/chancery/catest) is a whole CA in
// memory, with a clock that tests turn:
//
//	ca := catest.New(t)
//	id, err := mtls.New(t.Context(), ca.Config("web.test"))
//
// # What it promises
//
// Certificates live in memory only, each with a key of its own, and are
// replaced when two thirds of their life are over or the CA asks for it (RFC
// 9773). The old one is served until the new one is in. No handshake ever waits for a
// CA while a valid certificate is at hand, nothing here panics, and an Identity costs
// at most two goroutines while it is idle.
//
// It imports the standard library and golang.org/x/crypto, nothing else.
// Sources: RFC 8446 (TLS 1.3), RFC 8555, 8737, 8738 and 9773 (ACME), RFC 5280
// and 6960 (chains and revocation).
package mtls

// Package catest is a whole certificate authority for a test, as httptest is a
// whole server: in one line, in memory, gone with the test.
//
//	ca := catest.New(t)
//	id, err := mtls.New(t.Context(), ca.Config("web.test"))
//
// It is the very authority of chanceryd, with its ACME server, its policy, its
// issuer and its database, on a port of this machine: a root and an issuing CA
// with new P-256 keys, and one directory with the profiles "server", "client"
// and "both", whose certificates live for 24 hours. What a program does against
// it works against the real one.
//
// # Proof
//
// Nothing is issued without proof here either. The proof that needs nothing is
// [CA.EAB], an external account key under which every name is approved already;
// [CA.Config] hands it in. Who tests a challenge solver says [WithChallenges].
//
// # Time
//
// [CA.Config] hands in the authority's own [Clock], so that an identity and
// its CA always agree. By default that is the machine's time, moved on by
// [CA.Advance]; [StoppedAt] makes one that stands still in between. In a bubble
// of testing/synctest the machine's time is the bubble's, and nothing need be
// turned: give [InMemory], since real connections never let a bubble rest.
//
// # Trouble
//
// [CA.Down] and [CA.Up], [CA.Slow], [CA.Answer] for wrong answers, [CA.Revoke], [CA.Rotate]
// and [CA.RotateRoot]. A certificate for a peer that knows nothing of ACME is
// [CA.Issue]; one with a fault is made with the key of [CA.Issuer]; one from a wrong CA
// comes from a second New.
//
// # When not
//
// It is no fake for speed tests (the disk is never waited for), and none of
// its keys is protected from anybody.
//
// It may import all of the authority's packages but for what brings drivers,
// clouds or Kubernetes: neither pgx nor client-go is reached, so that a test's
// binary stays small. Sources: RFC 8555 (ACME; 7.3.4 external account keys), RFC
// 6960 and 5280 section 5 (what WithRevocation serves).
package catest

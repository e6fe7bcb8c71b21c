// Package plan answers, before anything is bought or drained, whether the
// signing keys are enough: which share of the signing budget each use takes,
// how long the workloads of a drained node pool wait for their certificates,
// and when to add a key. It is what `chanceryd plan` prints and draws.
//
// [Run] simulates event by event: certificates come to be, are asked about,
// are renewed; every signature waits in the line of its key, and that line is
// the server's own code (internal/signer/schedule), as is the rule by which a
// request gets its key. Time is virtual, chance is seeded: one [Input] has one
// [Result]. What the queues decide isn't in any formula; what a formula can
// tell (the rates in steady state) is computed too, and shown beside the
// simulated figures.
//
// What it doesn't know: the time that validation, network and database take.
// They overlap with the waiting of others, and beside a key of five signatures
// a second they don't count.
//
// The package is pure: no I/O, no clock, no goroutines. It imports
// internal/signer/schedule only.
package plan

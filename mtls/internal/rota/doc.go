// Package rota says which of several CAs is asked next, and asks them: in
// tiers, picked within a tier, those that failed lately last, hedged, each at
// most once in a round. It knows nothing of ACME: a CA is a number.
//
// It imports the standard library only and does no I/O of its own. The mix of
// exponential backoff and jitter follows AWS's "Exponential Backoff And
// Jitter"; hedging follows Dean and Barroso, "The Tail at Scale".
package rota

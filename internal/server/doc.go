// Package server puts the parts together and runs them: the one place where
// drivers, validators, issuers and listeners are chosen (wire.go), and the
// life of the process from start to graceful stop (server.go). Nothing here
// decides about certificates.
//
// It may import everything below it; cmd/chanceryd and internal/setup import it.
package server

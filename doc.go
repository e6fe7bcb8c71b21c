// Package chancery is the root of the product: a private certificate
// authority that speaks ACME. It holds no code of its own, only the tests that
// keep the tree in order. Start at README.md and docs/ARCHITECTURE.md; the
// server is cmd/chanceryd, the library for Go programs is the mtls module.
package chancery

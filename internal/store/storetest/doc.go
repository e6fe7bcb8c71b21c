// Package storetest holds what every engine of internal/store must pass, a
// PostgreSQL for tests, and a filler for benchmarks. It imports internal/store
// and the words it stores; only tests and benchmarks import it.
package storetest

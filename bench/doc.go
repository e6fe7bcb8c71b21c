// Bench measures what a certificate costs: at chanceryd on SQLite and on
// PostgreSQL, at Pebble and at step-ca, and at a floor server that does only
// what no CA can avoid. Every server is a process of its own, all take turns
// in the same run, and what is compared are ratios within one round, so that
// a busy machine is busy for all of them.
//
//	cd bench && GOWORK=off go run .            # the whole comparison, about 12 minutes
//	cd bench && GOWORK=off go run . --quick    # chanceryd and the floor, under a minute
//
// Validation, logging, audit and metrics are on everywhere, and both of
// chanceryd's databases sync every commit.
package main

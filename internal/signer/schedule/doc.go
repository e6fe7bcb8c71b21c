// Package schedule is the order in which those who wait for one signing key
// get it, and the reckoning of how long that takes. It is pure: no goroutine,
// no clock, no cryptography. The signer's queues run it, and so does the
// simulator, which is how its forecasts stay true.
//
// A [Line] holds the waiting of one key. Certificates, OCSP and CRLs share the
// key by start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), and so do
// new certificates and renewals within the certificates' part: what one
// doesn't use the others get, and idle time earns no credit. Within a class
// the directories take turns, within a directory its clients, and a client's
// own requests are first come, first served; renewals that are short of time
// go before those that aren't.
//
// [Slots] turns a place in the line into a time, and [Choose] finds the key
// with the least.
//
// It imports the standard library only.
package schedule

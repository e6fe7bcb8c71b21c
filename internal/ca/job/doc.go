// Package job runs work in the background for requests that come and go: a
// [Set] holds what runs in this process by its key, so that whoever asks for
// the same waits for the same; a [Room] bounds how many wait in one name; and
// [News] wakes those who wait for what another process does. It doesn't know
// what the work is. Nothing here survives a crash: whoever starts a job has
// recorded it, or records it when it takes long, and the database gives it out
// again.
//
// It may import the standard library only. Source: RFC 8555 sections 6.6, 7.4
// and 7.5.1 (a client that polls is told by Retry-After when to come back).
package job

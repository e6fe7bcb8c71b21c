// Package proof asks validators, which only look and report: at a challenge,
// when an order is made and finalized, and again before a key signs. Whatever
// they do, it ends in time and without a panic.
//
// A private proof (protocol.ChallengeType.Private) rests on one subject, a pod
// or a device. Its Validator may do more than validate: a [Rechecker] is asked
// again, immediately before the key is used, whether the subject may still have
// the name; a [Locator] takes the client's address for a proof. The same shape
// serves clusters and registries of devices.
//
// It may import the words (protocol).
package proof

// Package device says what an enrolled device changes of an order: whose key is
// certified, and for how long at most; and what the audit log hears of a proof
// that failed. It reads the database and changes nothing; internal/ca plans,
// signs and records.
//
// It may import this project's words (protocol, cert, audit), issuer for what a
// CSR holds, and store. Source: DESIGN section 6.
package device

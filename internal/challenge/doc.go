// Package challenge looks for proofs: one file per challenge type, each with
// a struct whose method
//
//	Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error)
//
// says what it saw. Validators look and report; they never write, retry or
// keep anything between two calls, so one value serves any number of
// goroutines. A no is a *[protocol.ValidationError]; any other error means
// that the caller's context was cancelled and says nothing about the target.
// CAA is not a proof but a wish of the name's owner, looked up the same way.
//
// It may import internal/protocol and internal/yubikey, the standard library,
// golang.org/x/crypto (cryptobyte), github.com/miekg/dns and
// github.com/fxamacker/cbor, nothing else of this project.
//
// Sources: RFC 8555 section 8 (http-01, dns-01), RFC 8737 (tls-alpn-01), RFC
// 8738 (ip identifiers), draft-ietf-acme-dns-account-label-02,
// draft-ietf-acme-dns-persist-02, draft-ietf-acme-device-attest-09 with
// WebAuthn level 2 (device-attest-01), DESIGN section 6 (yubikey-01 and -02), RFC 8659 and 8657 (CAA), RFC 8305 (several
// addresses).
//
// # What a target may do to us
//
// Whoever asks for a certificate chooses what we connect to and what we read,
// so everything from outside is bounded: each validation in time
// ([Network.Timeout], [Resolver] likewise), each connection in bytes, each
// answer in records, redirects in number and ports, addresses in number.
// Addresses are checked after resolving and again in the dialer, on the very
// address the socket connects to, for every redirect and for ip identifiers
// too (see [Network]); a name that resolves to something else a second later
// gains nothing. Nothing that a target sent is repeated in a problem: not its
// body, nor a header, nor where a redirect leads, since the target may be an
// internal service that the client can't reach itself.
package challenge

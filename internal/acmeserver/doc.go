// Package acmeserver is ACME over HTTP: RFC 8555 whole, renewal information
// (RFC 9773) and profiles (draft-ietf-acme-profiles-02). It parses, bounds
// and authenticates requests, hands them to internal/ca and renders what that
// answers; it decides nothing. One file per resource.
//
// What a request goes through, in this order (RFC 8555 section 6):
//
//  1. the path, then the method: 404, or 405 with Allow;
//  2. Content-Type application/jose+json, no Content-Encoding: 415;
//  3. the body, at most [jws.MaxBody] bytes: 413;
//  4. the frame, strictly ([jws.Parse]): malformed;
//  5. the nonce, spent by this: badNonce;
//  6. `url` equals the external URL of this very request: unauthorized;
//  7. jwk or kid as the resource wants, and the account of kid, which must be
//     in this directory and still valid;
//  8. the signature.
//
// The cheap checks come first. The nonce comes before the signature, so that
// a client with a stale one hears badNonce, which it repairs by itself; no
// stranger can spend another's nonces, since nobody can guess one.
//
// URLs are built from the configured external URL and never from the Host
// header; the client's address is the connection's, or that of a PROXY
// protocol header from a trusted balancer ([ProxyListener]), and never what
// Forwarded or X-Forwarded-For say.
//
// Handlers return (response, error). One wrapper ([handler.ServeHTTP]) renders
// both, adds a fresh nonce to every answer, maps errors to problem documents
// (an error that isn't a *protocol.Problem is shown as serverInternal and
// told to the log only), counts, and writes one log record per request.
//
// It may import ca, store (for one error), and the words (protocol, cert, jws).
package acmeserver

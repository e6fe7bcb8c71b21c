// Package client calls one CA's admin API (see internal/api): over the unix
// socket of a server on this machine, or over TLS 1.3 with an operator's
// certificate, whose key may live in a YubiKey. Its errors say what to do.
//
// It may import the standard library, signer/secret for key files, yubikey and
// the words (api); it builds for every system that cmd/chancery runs on.
package client

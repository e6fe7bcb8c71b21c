// Package prove answers the challenges that need more than package acme has:
// kubernetes-01 with a service account's token, and tls-alpn-01 on a listener
// of its own.
//
// It imports the standard library and package acme. Sources: RFC 8737
// (tls-alpn-01), RFC 7519 (tokens), Kubernetes' projected service account
// tokens, and Chancery's kubernetes-01.
package prove

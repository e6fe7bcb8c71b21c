// Package admin is the API for those who run the CA: HTTP and JSON over a
// unix socket that only its owner may open, and over mutual TLS for operators
// with certificates of this very CA. Who calls is read from the socket
// (SO_PEERCRED) or from the CA's record of the certificate (operator.Gate),
// never from the request; ca/operator below decides what that one may do, and
// audits every call, reads included. Package client is the other end. A
// dashboard will join them here.
//
// It may import ca, ca/operator, store's filters, sshca and yubikey
// for how things are written, the words (api, protocol,
// cert) and golang.org/x/net/netutil.
package admin

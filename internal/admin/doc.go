// Package admin is the API for those who run the CA: HTTP and JSON over a
// unix socket that only its owner may open. Who calls is read from the socket
// (SO_PEERCRED), never from the request; ca/operator below decides what that
// one may do, and audits every call, reads included. A dashboard and mutual
// TLS for operators will join the socket here.
//
// It may import ca, ca/operator, store's filters and the words (api, protocol, cert).
package admin

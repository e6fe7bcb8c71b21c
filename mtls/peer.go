package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// PeerOf returns who is at the other end of a connection: its certificate's
// names. It is false for a connection without TLS, without a peer's
// certificate, or whose handshake isn't done.
func PeerOf(conn net.Conn) (*acl.Peer, bool) {
	c, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, false
	}
	cs := c.ConnectionState()
	return peerOf(&cs)
}

func peerOf(cs *tls.ConnectionState) (*acl.Peer, bool) {
	if cs == nil || !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return nil, false
	}
	return acl.PeerOf(cs.PeerCertificates[0]), true
}

type peerKey struct{}

// WithPeer returns a context that knows the peer, as Handler and the
// interceptors of package mtlsgrpc make it.
func WithPeer(ctx context.Context, p *acl.Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFromContext returns the peer whose request this is, behind Handler or an
// interceptor of package mtlsgrpc.
func PeerFromContext(ctx context.Context) (*acl.Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(*acl.Peer)
	return p, ok && p != nil
}

// Handler passes on the requests that p allows, with the peer in their
// context. To the others it answers 403 and no more; why is in the log. It
// goes around all other handlers: p is asked about the path as it came. A
// connection that stands obeys p, too, but its chain is as it was when it
// began.
func (id *Identity) Handler(h http.Handler, p acl.Policy) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := peerOf(r.TLS)
		if id.AllowRequest(p, peer, acl.Request{Method: r.Method, Path: r.URL.EscapedPath()}, r.RemoteAddr) != nil {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r.WithContext(WithPeer(r.Context(), peer)))
	})
}

// AllowRequest asks p about a peer's request and logs it if the answer is no,
// for those who serve something else than HTTP; from is the peer's address,
// for the log. A nil p and a nil peer are refused.
func (id *Identity) AllowRequest(p acl.Policy, peer *acl.Peer, r acl.Request, from string) error {
	err := errors.New("it shows no certificate, or there is no policy")
	if peer != nil && p != nil {
		err = p.AllowRequest(peer, r)
	}
	if err != nil {
		id.notice(notice{what: "mtls: request denied", key: "request", from: from, leaf: (*x509.Certificate)(peer), why: err.Error()})
	}
	return err
}

package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Access is who may call over TLS.
type Access struct {
	Grants []operator.Grant
	// Issuers are the CA certificates that sign operators' certificates, each
	// trusted as it is.
	Issuers *x509.CertPool
}

// Reserved reports whether a name is an operator's, a host's that only reports
// apart.
func (a Access) Reserved(name string) bool {
	return slices.ContainsFunc(a.Grants, func(g operator.Grant) bool { return g.Role != operator.Reporter && strings.EqualFold(g.Name, name) })
}

// Bounds of the listener for operators. Handshake and header have readTimeout.
const (
	// maxConnections is far more than operators and reporting hosts use at
	// once; what is above it waits to be accepted.
	maxConnections = 256
	// answerTimeout bounds an answer: a walk over a long audit log takes
	// minutes, and a backup gets more time with each piece that is taken.
	answerTimeout = 6 * time.Minute
)

// Bound limits how many connections a listener has at once.
func Bound(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

// TLSServer returns the server for operators with certificates: TLS 1.3 with
// the server's own certificate, and nobody without a certificate of an
// operators' issuer gets through the handshake. Who it is, is asked from gate at
// each request, since access and the certificate's standing may change while a
// connection is open.
func (s *Server) TLSServer(gate *operator.Gate, own func(*tls.ClientHelloInfo) (*tls.Certificate, error), access func() Access) *http.Server {
	config := &tls.Config{
		GetCertificate: own, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true,
	}
	outer := config.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := config.Clone()
		c.ClientCAs = access().Issuers
		return c, nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: s.identified(gate, access, s.Handler()), TLSConfig: outer, Protocols: protocols,
		ReadTimeout: readTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
}

// errOtherSite is what a browser is told that shows its operator's certificate
// for a page of somebody else's.
var errOtherSite = protocol.NewProblem(protocol.Unauthorized, "a page of another site asked for this by your browser; use the chancery command")

// identified lets operators through to next, and nobody else: not the pages of
// other sites either, to which an operator's browser, having the certificate,
// would lend it (https://fetch.spec.whatwg.org, Sec-Fetch-Site and Origin).
func (s *Server) identified(gate *operator.Gate, access func() Access, next http.Handler) http.Handler {
	sites := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			peer = r.RemoteAddr
		}
		who, err := gate.Caller(r.Context(), access().Grants, r.TLS.PeerCertificates[0], peer)
		if other := sites.Check(r); err == nil && other != nil {
			_ = gate.Refuse(r.Context(), r.TLS.PeerCertificates[0], peer, other.Error()) // refused in any case
			err = errOtherSite
		}
		if err != nil {
			w.Header().Set("Connection", "close") // a handshake for each try
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}

// patient extends the time for an answer with each piece of it that is taken.
type patient struct{ http.ResponseWriter }

// Write passes it on.
func (p patient) Write(b []byte) (int, error) {
	// The error is of a writer that has no deadlines, as in tests.
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(answerTimeout))
	return p.ResponseWriter.Write(b)
}

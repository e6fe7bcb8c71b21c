package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Server returns a configuration for listeners: TLS 1.3 only, with the
// identity's server certificates, and closed to everybody but clients whose
// chain leads to one of today's roots and whom p allows; a nil p allows
// nobody. It serves net/http, gRPC (credentials.NewTLS) and raw TCP as it is,
// by the protocols h2 and http/1.1, or none. Connections that answer
// tls-alpn-01 challenges end in their handshake: to the program they are
// handshakes that failed.
//
// Chain and p are looked at for each connection, a resumed one too; what p or
// the roots say later is no matter to connections that stand. The result's
// ConnectionState has PeerCertificates but no VerifiedChains: see PeerOf.
//
// The program may change these fields of the result itself (not of a clone,
// where it has no effect) before it is first used: GetCertificate, to show a
// certificate of a public CA, say (or nil, to have Certificates shown);
// NextProtos, also to do without HTTP/2, for which http.Server.Protocols alone
// isn't enough; SessionTicketsDisabled, which is true; VerifyConnection, which
// is asked after our own checks; CurvePreferences, KeyLogWriter, WrapSession
// and UnwrapSession. All others are ours.
func (id *Identity) Server(p acl.Policy) *tls.Config {
	if err := faultOf(p); err != nil {
		id.log.Error("mtls: the access rules are not obeyed as they are", "error", err)
	}
	s := &server{id: id, policy: p}
	s.program = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   id.clock.Now,
		GetCertificate:         id.serverCertificate,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetConfigForClient:     s.configFor,
		// Whoever takes GetConfigForClient away is left with a listener that
		// lets nobody in.
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  x509.NewCertPool(),
	}
	return s.program
}

// faultOf is what is wrong with a policy that knows such a thing, as acl's
// rules do.
func faultOf(p acl.Policy) error {
	if p, ok := p.(interface{ Err() error }); ok {
		return p.Err()
	}
	return nil
}

// server is what stands behind a configuration for listeners.
type server struct {
	id      *Identity
	policy  acl.Policy
	program *tls.Config // the program's to change until it is used; only read here
}

// configFor makes the configuration of one connection, whose refusal then
// tells where it came from.
func (s *server) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	id, from := s.id, remote(hello.Conn)
	if isChallenge(hello) && !id.noALPN {
		if cert := id.challengeCertificate(hello); cert != nil {
			return challengeConfig(hello, cert), nil
		}
		id.report(from, nil, &PeerError{Reason: RefusedChallenge,
			Text: fmt.Sprintf("a CA looks for %q, of which no challenge is pending here", clipped(hello.ServerName))})
	}
	if !slices.Contains(hello.SupportedVersions, tls.VersionTLS13) { // crypto/tls refuses it
		id.report(from, nil, &PeerError{Reason: RefusedVersion, Text: noTLS13})
	}
	p := s.program
	hints, _ := id.trust.pool(UsageClient)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   p.Time,
		Certificates:           p.Certificates,
		GetCertificate:         p.GetCertificate,
		NextProtos:             p.NextProtos,
		SessionTicketsDisabled: p.SessionTicketsDisabled,
		CurvePreferences:       p.CurvePreferences,
		KeyLogWriter:           p.KeyLogWriter,
		WrapSession:            p.WrapSession,
		UnwrapSession:          p.UnwrapSession,
		// Asked for only, not required: VerifyConnection does that, once, and
		// has a word for the log. It runs when no certificate came, too.
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  hints,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := s.admit(from, &cs); err != nil || p.VerifyConnection == nil {
				return err
			}
			return p.VerifyConnection(cs)
		},
	}, nil
}

// admit lets a client in, or says why not: to the log, not to the client.
func (s *server) admit(from net.Addr, cs *tls.ConnectionState) error {
	err := s.id.verified(UsageClient, cs, "")
	if err == nil {
		err = allowed(cs, s.policy)
	}
	s.id.shaken(true, cs, err)
	if err == nil {
		return nil
	}
	s.id.report(from, cs.PeerCertificates, err)
	return &reported{err}
}

// Client returns a configuration for calls to servers: TLS 1.3 only, with the
// identity's client certificates. The server's chain must lead to one of
// today's roots and its certificate must bear the name that was dialled, on
// resumed connections too. Calls to addresses fail, since tls.Config keeps
// addresses to itself: for those are HTTPClient, Dial and ClientTo.
//
// The program may change the result and clone it, but for InsecureSkipVerify
// and VerifyConnection, which replaces what that skips: both or neither.
func (id *Identity) Client() *tls.Config {
	return id.clientConfig(func(cs *tls.ConnectionState) error { return id.named(cs, cs.ServerName) })
}

// ClientTo is like Client for one server, whose certificate must bear the name
// or address, wherever it is dialled.
func (id *Identity) ClientTo(name string) *tls.Config {
	config := id.clientConfig(func(cs *tls.ConnectionState) error { return id.named(cs, name) })
	config.ServerName = name // which crypto/tls sends if it is no address
	return config
}

// ClientFor is like Client for the servers that p allows, by SPIFFE ID say,
// under whatever name or address they were dialled. A nil p allows none.
func (id *Identity) ClientFor(p acl.Policy) *tls.Config {
	return id.clientConfig(func(cs *tls.ConnectionState) error {
		if err := id.verified(UsageServer, cs, anyName); err != nil {
			return err
		}
		return allowed(cs, p)
	})
}

func (id *Identity) clientConfig(check func(*tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		Time:                 id.clock.Now,
		GetClientCertificate: id.clientCertificate,
		InsecureSkipVerify:   true, // check verifies, by today's roots, and resumed connections too
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := check(&cs)
			id.shaken(false, &cs, err)
			return err
		},
	}
}

// anyName stands for a server's name where a policy knows better whom to
// expect. It is no name that could be dialled.
const anyName = "\x00"

// What is refused beside certificates that aren't believed (see Trust).
const (
	RefusedVersion   Refusal = "tls_version"
	RefusedPolicy    Refusal = "policy"    // its certificate is believed, but the acl.Policy doesn't allow it
	RefusedChallenge Refusal = "challenge" // a CA looked for a tls-alpn-01 challenge that isn't pending
)

const noTLS13 = "the peer doesn't speak TLS 1.3"

// named checks a server's chain and its name.
func (id *Identity) named(cs *tls.ConnectionState, name string) error {
	if name == "" || name == anyName {
		return &PeerError{Reason: RefusedName, Text: "no server name to check: addresses are called with HTTPClient, Dial or ClientTo"}
	}
	return id.verified(UsageServer, cs, name)
}

// verified checks a peer's chain by today's roots, and a server's name.
func (id *Identity) verified(peer Usage, cs *tls.ConnectionState, name string) error {
	if cs.Version < tls.VersionTLS13 { // the program has changed MinVersion
		return &PeerError{Reason: RefusedVersion, Text: noTLS13}
	}
	return id.trust.verify(peer, cs.PeerCertificates, name, cs.OCSPResponse, id.clock.Now())
}

// allowed asks the policy about a peer whose chain is verified.
func allowed(cs *tls.ConnectionState, p acl.Policy) error {
	peer := acl.PeerOf(cs.PeerCertificates[0])
	err := error(nil)
	if p == nil {
		err = &acl.Denied{Peer: peer, Reason: "there is no policy, so nobody is allowed"}
	} else if err = p.Allow(peer); err == nil {
		return nil
	}
	return &PeerError{Reason: RefusedPolicy, Peer: peer.Name(), Text: err.Error(), Err: err}
}

// shaken tells the hook.
func (id *Identity) shaken(server bool, cs *tls.ConnectionState, err error) {
	if id.hooks.Shaken == nil {
		return
	}
	h := Handshake{Server: server, Resumed: cs.DidResume, Err: err}
	if len(cs.PeerCertificates) > 0 {
		h.Peer = acl.PeerOf(cs.PeerCertificates[0]).Name()
	}
	id.hooks.Shaken(h)
}

// isChallenge reports whether a client offers tls-alpn-01's protocol and
// nothing else (RFC 8737 section 4).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto
}

// errChallengeAnswered ends every handshake that answers a challenge.
var errChallengeAnswered = errors.New("mtls: a CA's tls-alpn-01 challenge was answered; the connection is of no other use")

// challengeConfig shows the certificate that answers a challenge, asks for
// none and lets nobody in: VerifyConnection is called when all of ours is
// sent, so the CA's side of the handshake completes, and ours never does.
func challengeConfig(hello *tls.ClientHelloInfo, cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{acme.ALPNProto},
		Certificates:           []tls.Certificate{*cert},
		SessionTicketsDisabled: true,
		VerifyConnection: func(tls.ConnectionState) error {
			awaitEnd(hello.Conn)
			return errChallengeAnswered
		},
	}
}

// A CA closes the connection as soon as it has seen the certificate (RFC 8737
// section 3). One that doesn't is not waited for longer.
const (
	challengeWait  = 5 * time.Second
	challengeBytes = 16 << 10 // its Finished, an alert, and more
)

// awaitEnd reads and forgets what the CA sends until it closes. Were we to
// close first, it might be told before its own Finished is written, and take
// that for a handshake that failed.
func awaitEnd(conn net.Conn) {
	if conn == nil || conn.SetReadDeadline(time.Now().Add(challengeWait)) != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(conn, challengeBytes))
}

func remote(conn net.Conn) net.Addr {
	if conn == nil { // QUIC has none
		return nil
	}
	return conn.RemoteAddr()
}

// Package mtlsgrpc brings package mtls to gRPC: credentials for servers and
// clients, and interceptors that ask an acl.Policy about each call and pass
// the peer on.
//
//	srv := grpc.NewServer(mtlsgrpc.ServerOptions(id, rules)...)
//	conn, err := grpc.NewClient("api.prod.internal:443", grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(id)))
//
// A handler learns who calls by mtls.PeerFromContext. In rules a call's path
// is its full method, "/pkg.Service/Method", and its method is POST.
//
// It is a module of its own, so that package mtls needs no gRPC. It imports
// mtls, mtls/acl and google.golang.org/grpc.
package mtlsgrpc

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

// ServerOptions is all that a server needs: credentials and both interceptors.
// Others are chained behind these.
func ServerOptions(id *mtls.Identity, p acl.Policy) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(ServerCredentials(id, p)),
		grpc.ChainUnaryInterceptor(UnaryInterceptor(id, p)),
		grpc.ChainStreamInterceptor(StreamInterceptor(id, p)),
	}
}

// ServerCredentials lets in the clients that p allows; see Identity.Server.
func ServerCredentials(id *mtls.Identity, p acl.Policy) credentials.TransportCredentials {
	return credentials.NewTLS(id.Server(p))
}

// UnaryInterceptor passes on the calls that p allows, with the peer in their
// context. The others get PermissionDenied and no more; why is in the log.
func UnaryInterceptor(id *mtls.Identity, p acl.Policy) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := admit(ctx, id, p, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// StreamInterceptor is UnaryInterceptor for streams. It asks when a stream
// begins.
func StreamInterceptor(id *mtls.Identity, p acl.Policy) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := admit(stream.Context(), id, p, info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &knownStream{stream, ctx})
	}
}

// knownStream is a stream whose context knows the peer.
type knownStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context with the peer.
func (s *knownStream) Context() context.Context { return s.ctx }

func admit(ctx context.Context, id *mtls.Identity, p acl.Policy, method string) (context.Context, error) {
	who, from := caller(ctx)
	if id.AllowRequest(p, who, acl.Request{Method: http.MethodPost, Path: method}, from) != nil {
		return nil, status.Error(codes.PermissionDenied, "permission denied")
	}
	return mtls.WithPeer(ctx, who), nil
}

// caller returns who makes a call, nil if it didn't come over TLS with a
// certificate, and from which address.
func caller(ctx context.Context) (who *acl.Peer, from string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, ""
	}
	if p.Addr != nil {
		from = p.Addr.String()
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, from
	}
	return acl.PeerOf(info.State.PeerCertificates[0]), from
}

// ClientCredentials calls servers by the name or address of the channel's
// authority (the target's, unless grpc.WithAuthority says otherwise), which
// their certificate must bear.
func ClientCredentials(id *mtls.Identity) credentials.TransportCredentials {
	return &client{credentials.NewTLS(id.Client()), id}
}

// ClientCredentialsFor calls the servers that p allows, under whatever name.
func ClientCredentialsFor(id *mtls.Identity, p acl.Policy) credentials.TransportCredentials {
	return credentials.NewTLS(id.ClientFor(p))
}

// client knows addresses, too, which a tls.Config alone wouldn't.
type client struct {
	credentials.TransportCredentials
	id *mtls.Identity
}

// ClientHandshake checks the server by the authority's host.
func (c *client) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority // as gRPC has it: no port
	}
	return credentials.NewTLS(c.id.ClientTo(host)).ClientHandshake(ctx, authority, raw)
}

// Clone returns a copy.
func (c *client) Clone() credentials.TransportCredentials {
	return &client{c.TransportCredentials.Clone(), c.id}
}

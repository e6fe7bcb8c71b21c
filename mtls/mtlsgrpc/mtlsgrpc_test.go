package mtlsgrpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/mtlsgrpc"
)

// service counts its calls, and knows who calls.
type service struct {
	health.UnimplementedHealthServer
	calls atomic.Int64
	peer  atomic.Value // string
}

func (s *service) seen(ctx context.Context) {
	s.calls.Add(1)
	p, _ := mtls.PeerFromContext(ctx)
	s.peer.Store(p.Name())
}

func (s *service) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	s.seen(ctx)
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}

func (s *service) Watch(_ *health.HealthCheckRequest, stream grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
	s.seen(stream.Context())
	return stream.Send(&health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING})
}

type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// world is a CA, a gRPC server that is certified through its own listener, and
// a caller.
type world struct {
	addr    string
	service service
	log     journal
	caller  *mtls.Identity
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// newWorld starts all of it. The intruder, if there is one, comes when a
// challenge is pending.
func newWorld(t *testing.T, rules string, intruder func(addr, name string)) *world {
	t.Helper()
	w := new(world)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	outside := &answers{addr: freeAddress(t)}
	newCA(t, func(name string) error {
		if name != "localhost" && name != "127.0.0.1" {
			return visit(outside.addr, name)
		}
		if intruder != nil {
			intruder(w.addr, name)
		}
		return visit(w.addr, name)
	})
	p, err := acl.Parse("rules", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	server, err := mtls.Start(mtls.Config{Names: []string{"localhost", "127.0.0.1"}, Logger: slog.New(slog.NewTextHandler(&w.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(mtlsgrpc.ServerOptions(server, p)...)
	health.RegisterHealthServer(srv, &w.service)
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Stop(); <-done; server.Close() })
	if err := server.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	w.caller, err = mtls.New(bounded(t), mtls.Config{Names: []string{"a.batch.internal"}, Proof: mtls.Proof{ListenALPN: outside.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.caller.Close() })
	return w
}

type answers struct{ addr string }

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// visit is the CA's look at a tls-alpn-01 answer (RFC 8737 section 3).
func visit(addr, name string) error {
	sni := name
	if net.ParseIP(name) != nil {
		sni = "1.0.0.127.in-addr.arpa"
	}
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: sni, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return fmt.Errorf("tls-alpn-01 for %s: %w", name, err)
	}
	defer conn.Close()
	if cs := conn.ConnectionState(); cs.NegotiatedProtocol != acme.ALPNProto || cs.PeerCertificates[0].Subject.CommonName != "ACME challenge" {
		return errors.New("no answer to tls-alpn-01 for " + name)
	}
	return nil
}

// call makes a unary call and a stream.
func call(t *testing.T, addr string, creds credentials.TransportCredentials) (unary, stream error) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := health.NewHealthClient(conn)
	_, unary = c.Check(bounded(t), &health.HealthCheckRequest{})
	s, stream := c.Watch(bounded(t), &health.HealthCheckRequest{})
	if stream == nil {
		_, stream = s.Recv()
	}
	return unary, stream
}

func TestCalls(t *testing.T) {
	w := newWorld(t, "allow a.batch.internal POST /grpc.health.v1.Health/Check\n", nil)
	_, port, _ := net.SplitHostPort(w.addr)
	for _, addr := range []string{"127.0.0.1:" + port, "localhost:" + port} {
		before := w.service.calls.Load()
		unary, stream := call(t, addr, mtlsgrpc.ClientCredentials(w.caller))
		if unary != nil || status.Code(stream) != codes.PermissionDenied || w.service.calls.Load() != before+1 {
			t.Errorf("%s: %v, %v", addr, unary, stream)
		}
		if who := w.service.peer.Load(); who != "a.batch.internal" {
			t.Errorf("the service sees %v", who)
		}
		if text := status.Convert(stream).Message(); text != "permission denied" {
			t.Errorf("the caller is told %q", text)
		}
	}
	if log := w.log.String(); strings.Count(log, "request denied") != 2 || !strings.Contains(log, "Health/Watch") || !strings.Contains(log, "peer=127.0.0.1:") {
		t.Errorf("%s", log)
	}
	// With NewTLS alone, names work, addresses don't.
	if unary, _ := call(t, "localhost:"+port, credentials.NewTLS(w.caller.Client())); unary != nil {
		t.Error(unary)
	}
	// A copy is as good.
	if unary, _ := call(t, w.addr, mtlsgrpc.ClientCredentials(w.caller).Clone()); unary != nil {
		t.Error(unary)
	}
}

func TestCallersCheckServers(t *testing.T) {
	w := newWorld(t, "allow a.batch.internal\n", nil)
	unary, stream := call(t, w.addr, mtlsgrpc.ClientCredentialsFor(w.caller, acl.Allow("localhost")))
	if unary != nil || stream != nil || w.service.calls.Load() != 2 || w.service.peer.Load() != "a.batch.internal" {
		t.Error(unary, stream)
	}
	for what, creds := range map[string]credentials.TransportCredentials{
		"another policy": mtlsgrpc.ClientCredentialsFor(w.caller, acl.Allow("db.prod.internal")),
		"no policy":      mtlsgrpc.ClientCredentialsFor(w.caller, nil),
	} {
		if unary, _ := call(t, w.addr, creds); status.Code(unary) != codes.Unavailable {
			t.Errorf("%s: %v", what, unary)
		}
	}
	_, port, _ := net.SplitHostPort(w.addr)
	if unary, _ := call(t, "127.0.0.2:"+port, mtlsgrpc.ClientCredentials(w.caller)); status.Code(unary) != codes.Unavailable {
		t.Error("another address:", unary)
	}
	if w.service.calls.Load() != 2 {
		t.Error("the service was called")
	}
}

func TestCallersAreRefused(t *testing.T) {
	w := newWorld(t, "allow b.batch.internal\n", nil)
	for what, creds := range map[string]credentials.TransportCredentials{
		"not allowed":    mtlsgrpc.ClientCredentials(w.caller),
		"no certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"no TLS":         insecure.NewCredentials(),
	} {
		if unary, stream := call(t, w.addr, creds); status.Code(unary) != codes.Unavailable || status.Code(stream) != codes.Unavailable {
			t.Errorf("%s: %v, %v", what, unary, stream)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "a.batch.internal") || !strings.Contains(log, "no certificate") {
		t.Errorf("%s", log)
	}
	if w.service.calls.Load() != 0 {
		t.Error("the service was called")
	}
}

// While a challenge is pending somebody comes as a CA would, and calls.
func TestNobodyCallsAsValidator(t *testing.T) {
	came := 0
	w := newWorld(t, "allow *\n", func(addr, name string) {
		if name != "localhost" {
			return
		}
		for _, protos := range [][]string{{acme.ALPNProto}, {acme.ALPNProto, "h2"}, {"h2", acme.ALPNProto}} {
			config := &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true}
			conn, err := tls.Dial("tcp", addr, config)
			if len(protos) == 1 && err != nil {
				t.Error("the challenge isn't answered:", err)
			}
			if err != nil {
				continue
			}
			came++
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			// The preface, empty settings, and the begin of a call.
			conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x05\x00\x00\x00\x01\x83"))
			conn.NetConn().(*net.TCPConn).CloseWrite()
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("%v: the server says %q", protos, got)
			}
			conn.Close()
		}
	})
	if came == 0 || w.service.calls.Load() != 0 {
		t.Errorf("%d visits, %d calls", came, w.service.calls.Load())
	}
	if unary, stream := call(t, w.addr, mtlsgrpc.ClientCredentials(w.caller)); unary != nil || stream != nil {
		t.Error(unary, stream)
	}
}

// Calls that didn't come over TLS, by a program's own listener say, are
// nobody's.
func TestInterceptorsWithoutTLS(t *testing.T) {
	w := newWorld(t, "allow *\n", nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(mtlsgrpc.UnaryInterceptor(w.caller, acl.Anyone())), grpc.StreamInterceptor(mtlsgrpc.StreamInterceptor(w.caller, acl.Anyone())))
	health.RegisterHealthServer(srv, &w.service)
	go srv.Serve(l)
	defer srv.Stop()
	unary, stream := call(t, l.Addr().String(), insecure.NewCredentials())
	if status.Code(unary) != codes.PermissionDenied || status.Code(stream) != codes.PermissionDenied || w.service.calls.Load() != 0 {
		t.Error(unary, stream)
	}
	if _, err := mtlsgrpc.UnaryInterceptor(w.caller, acl.Anyone())(t.Context(), nil, &grpc.UnaryServerInfo{}, nil); status.Code(err) != codes.PermissionDenied {
		t.Error("without a peer:", err)
	}
}

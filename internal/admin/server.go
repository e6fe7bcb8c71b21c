package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Server serves the admin API.
type Server struct {
	Console *operator.Console
	// Signing tells what the signing keys do; who uses them is added here.
	Signing func() api.Signing
	Version string
	Logger  *slog.Logger
}

// Bounds: an operator's request is small, and the socket is local.
const (
	maxBody     = 64 << 10
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Listen makes the socket, readable by its owner only. A socket that a dead
// server left is replaced; one that still answers is not.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another server answers there", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("admin socket %s: there is something that is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The socket appears under its name only once it is closed to others.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	hidden := path + ".new"
	os.Remove(hidden)
	l, err := net.Listen("unix", hidden)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(hidden, 0o600)
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &socket{l, path}, nil
}

// socket removes its file when it is closed.
type socket struct {
	net.Listener
	path string
}

// Addr is the name it was moved to.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socket) Close() error {
	os.Remove(s.path)
	return s.Listener.Close()
}

type callerKey struct{}

// HTTPServer returns the server for a listener made by Listen.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: s.Handler(), ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, caller(c))
		},
	}
}

// caller identifies the process at the other end: root and the server's own
// user are administrators, nobody else is anybody.
func caller(c net.Conn) operator.Caller {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return operator.Caller{Name: "unknown"}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return operator.Caller{Name: "unknown"}
	}
	uid, ok := peer(raw)
	if !ok {
		return operator.Caller{Name: "unknown"}
	}
	who := operator.Caller{Name: fmt.Sprintf("uid:%d", uid)}
	if uid == 0 || int(uid) == os.Geteuid() {
		who.Role = operator.Administrator
	}
	return who
}

// Handler routes the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle(s, mux, "GET /v1/status", s.status)
	handle(s, mux, "GET /v1/signing", s.signing)
	handle(s, mux, "GET /v1/eab-keys", s.listEABKeys)
	handle(s, mux, "POST /v1/eab-keys", s.createEABKey)
	handle(s, mux, "POST /v1/eab-keys/{id}/revoke", s.revokeEABKey)
	handle(s, mux, "GET /v1/accounts", s.listAccounts)
	handle(s, mux, "GET /v1/accounts/{id}", s.showAccount)
	handle(s, mux, "POST /v1/accounts/{id}/revoke", s.revokeAccount)
	handle(s, mux, "GET /v1/certificates", s.listCertificates)
	handle(s, mux, "GET /v1/certificates/{serial}", s.showCertificate)
	handle(s, mux, "POST /v1/certificates/{serial}/revoke", s.revokeCertificate)
	handle(s, mux, "GET /v1/devices", s.listDevices)
	handle(s, mux, "POST /v1/devices", s.enrollDevice)
	handle(s, mux, "GET /v1/devices/{id}", s.showDevice)
	handle(s, mux, "POST /v1/devices/{id}/identities", s.setIdentities)
	handle(s, mux, "POST /v1/devices/{id}/retire", s.retireDevice)
	handle(s, mux, "POST /v1/devices/{id}/lost", s.loseDevice)
	handle(s, mux, "POST /v1/people/{owner}/revoke", s.revokePerson)
	handle(s, mux, "GET /v1/advisories", s.listAdvisories)
	handle(s, mux, "POST /v1/advisories", s.addAdvisory)
	handle(s, mux, "POST /v1/advisories/{id}/withdraw", s.withdrawAdvisory)
	handle(s, mux, "GET /v1/watched-keys", s.listWatchedKeys)
	handle(s, mux, "POST /v1/watched-keys", s.watchKey)
	handle(s, mux, "POST /v1/watched-keys/{fingerprint}/forget", s.forgetKey)
	handle(s, mux, "POST /v1/watched-keys/{fingerprint}/sightings", s.reportSighting)
	handle(s, mux, "GET /v1/audit", s.listAudit)
	handle(s, mux, "POST /v1/audit/verify", s.verifyAudit)
	mux.HandleFunc("POST /v1/backup", s.backup)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, protocol.NewProblem(protocol.Malformed, "there is no %s %s", r.Method, r.URL.Path).WithStatus(http.StatusNotFound))
	})
	return mux
}

// call is one request: who asks, and what for.
type call struct {
	*http.Request
	who operator.Caller
}

// body reads the JSON body into v, strictly.
func (c call) body(v any) error {
	dec := json.NewDecoder(io.LimitReader(c.Request.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return protocol.NewProblem(protocol.Malformed, "the request body is not as it should be: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if dec.More() {
		return protocol.NewProblem(protocol.Malformed, "there is more after the request body")
	}
	return nil
}

// handle wraps one operation: it identifies the caller, encodes the answer and
// maps errors, once for all.
func handle[T any](s *Server, mux *http.ServeMux, pattern string, do func(call) (T, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		who, _ := r.Context().Value(callerKey{}).(operator.Caller)
		answer, err := do(call{r, who})
		if err != nil {
			s.fail(w, r, err)
		} else {
			s.write(w, http.StatusOK, "application/json", answer)
		}
		s.Logger.Info("admin request", "operation", pattern, "operator", who.Name, "duration", time.Since(begun), "ok", err == nil)
	})
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := protocol.AsProblem(err)
	if _, known := errors.AsType[*protocol.Problem](err); !known {
		s.Logger.Error("admin request failed", "path", r.URL.Path, "error", err)
		p.Detail = "the server could not do this; its log says why"
	}
	s.write(w, p.HTTPStatus(), "application/problem+json",
		api.Problem{Type: protocol.ProblemPrefix + string(p.Type), Detail: p.Detail, Status: p.HTTPStatus()})
}

func (s *Server) write(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.Logger.Debug("admin answer not sent", "error", err)
	}
}

// BackupTrailer follows a backup; it is "whole" when nothing is missing.
const BackupTrailer = "Chancery-Backup"

// backup streams; whether it is whole is known only at its end.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	who, _ := r.Context().Value(callerKey{}).(operator.Caller)
	w.Header().Set("Trailer", BackupTrailer)
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := s.Console.Backup(r.Context(), who, patient{w}); err != nil {
		s.Logger.Error("backup failed", "operator", who.Name, "error", err)
		if p, known := errors.AsType[*protocol.Problem](err); known {
			s.fail(w, r, p)
		}
		return
	}
	w.Header().Set(BackupTrailer, "whole")
	s.Logger.Info("backup written", "operator", who.Name)
}

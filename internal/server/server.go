package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	"github.com/chancery-pki/chancery/internal/admin"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/publish"
	"github.com/chancery-pki/chancery/internal/store"
)

// Options say what to run.
type Options struct {
	// Config is the checked configuration of the start.
	Config *config.Config
	// Reload reads it again at SIGHUP; nil: SIGHUP is not looked at.
	Reload  func() (*config.Config, error)
	Version string
	Logger  *slog.Logger
	// PublishOnly serves OCSP, CRLs and issuer certificates (and metrics),
	// and nothing else: no key is opened, and what must be signed is left to
	// the replicas that hold the keys. It needs a database that replicas can
	// share.
	PublishOnly bool
	// Ready is called once when everything listens.
	Ready func(Running)
}

// Running says where a started server is.
type Running struct {
	Listen  net.Addr // nil: PublishOnly
	Metrics net.Addr // nil: no such listener
	Admin   net.Addr // over TLS; nil: no such listener
	Publish net.Addr // nil: no such listener
}

// grace is how long a stopping server lets requests and jobs finish.
const grace = 30 * time.Second

// Server is one running chanceryd.
type Server struct {
	version   string
	replica   string // names this process in leases and reports
	log       *slog.Logger
	db        *store.DB
	authority *ca.Authority
	nonces    *store.Nonces
	own       *ownCertificate
	metrics   *metrics
	publisher *publisher
	fresh     fresh
	config    atomic.Pointer[config.Config]
	parts     atomic.Pointer[parts]
	acme      atomic.Pointer[http.Handler]
	operators atomic.Pointer[admin.Access]
	keys      *keyring // nil: PublishOnly
	proxied   bool     // clients' addresses are what balancers say
}

// Run serves until ctx ends, then stops gracefully: in-flight requests finish,
// validations and issuances under way end or are left to the next start.
func Run(ctx context.Context, o Options) error {
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer s.db.Close()
	defer func() { s.parts.Load().close() }()
	listeners, err := s.listen(o.Config)
	if err != nil {
		return err
	}
	return s.serve(ctx, o, listeners)
}

// start makes everything but the listeners.
func start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{version: o.Version, log: o.Logger, metrics: newMetrics()}
	s.config.Store(o.Config)
	if err := refuseReadableRoot(o.Config); err != nil {
		return nil, err
	}
	if o.PublishOnly {
		if err := refusePublishOnly(o.Config); err != nil {
			return nil, err
		}
	} else {
		s.keys = newKeyring(s.log)
		s.keys.absent = s.absent
		s.metrics.registry.MustRegister(newKeyMetrics(s.keys))
	}
	s.keys.begin()
	p, err := wire(ctx, o.Config, s.keys, s.enrolled(), s.log)
	s.keys.end(err == nil)
	if err != nil {
		return nil, err
	}
	if s.db, err = OpenDatabase(ctx, o.Config, s.log); err != nil {
		p.close()
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
			s.db.Close()
		}
	}()
	s.replica = rand.Text()
	s.publisher = newPublisher(s)
	if o.PublishOnly {
		s.own = &ownCertificate{log: s.log}
		if o.Config.TLS.Certificate != "" { // for metrics, with client_ca
			if err = s.own.refresh(ctx, o.Config); err != nil {
				return nil, fmt.Errorf("tls: %w", err)
			}
		}
		return s, s.install(ctx, o.Config, p)
	}
	if s.nonces, err = s.db.Nonces(ctx); err != nil {
		return nil, err
	}
	s.authority = ca.New(ca.Options{
		DB: s.db, Directories: p.directories, Issuers: p.caIssuers(), Held: p.held, Replica: s.replica, Logger: s.log, Observe: s.metrics,
		Keep: ca.Keep{
			Certificates: time.Duration(o.Config.Certificates.KeepAfterExpiry), Audit: time.Duration(o.Config.Audit.Keep),
		},
	})
	s.own = &ownCertificate{authority: s.authority, log: s.log}
	if err = s.own.obtain(ctx, o.Config); err != nil {
		return nil, err
	}
	s.metrics.watch(s.db, s.authority, s.own)
	return s, s.install(ctx, o.Config, p)
}

// enrolled is the registry of devices; the database opens after the wiring.
func (s *Server) enrolled() device.Registry {
	return device.Registry{DB: func() *store.DB { return s.db }}
}

// absent tells about a signing key that isn't there at the start.
func (s *Server) absent(uri, name string, err error) {
	s.log.Error("a signing key is not there; the server goes on without it and takes it in when it comes",
		"key", uri, "of", name, "error", err)
}

// refusePublishOnly refuses what such a replica can't do.
func refusePublishOnly(c *config.Config) error {
	address, err := dsn(c)
	switch {
	case err != nil:
		return err
	case !config.IsPostgres(address):
		return c.At("database", errors.New("--publish-only needs a PostgreSQL database, which it shares with the replicas that hold the keys; an SQLite file belongs to one server"))
	case c.Publish.Listen == "":
		return c.At("publish", errors.New("--publish-only serves this listener alone: set publish.listen"))
	case c.Metrics.ClientCA != "" && c.TLS.Certificate == "":
		return c.At("metrics.client_ca", errors.New("a --publish-only server has no certificate of its own: set tls.certificate and tls.key, or serve metrics on loopback"))
	}
	return nil
}

// install puts the parts of a reading of the configuration into service.
func (s *Server) install(ctx context.Context, c *config.Config, p *parts) error {
	if err := s.publisher.install(ctx, c, p); err != nil {
		return err
	}
	s.parts.Store(p)
	defer func() { s.announce(p) }()
	if s.authority == nil {
		s.config.Store(c)
		return nil
	}
	handler := (&acmeserver.Server{
		Authority: s.authority, Nonces: s.nonces, BaseURL: c.ExternalURL, Directories: p.meta, Logger: s.log, Observe: s.metrics.request,
	}).Handler()
	s.acme.Store(&handler)
	access := p.access(c)
	s.operators.Store(&access)
	s.authority.Reload(p.directories, p.caIssuers(), p.held)
	s.config.Store(c)
	return nil
}

func (p *parts) caIssuers() map[string]ca.Issuer {
	all := make(map[string]ca.Issuer, len(p.issuers))
	for name, i := range p.issuers {
		all[name] = i
	}
	for name, i := range p.ssh.issuers {
		all[name] = i
	}
	return all
}

// reload reads the configuration again; a bad one changes nothing.
func (s *Server) reload(ctx context.Context, read func() (*config.Config, error)) error {
	c, err := read()
	if err != nil {
		return err
	}
	for _, w := range config.Diff(s.config.Load(), c) {
		s.log.Warn("a change of the configuration waits for a restart", "change", w)
	}
	// Clients hold URLs that begin so.
	c.ExternalURL = s.config.Load().ExternalURL
	if err := refuseReadableRoot(c); err != nil {
		return err
	}
	if err := s.refuseAddresses(c); err != nil {
		return err
	}
	var pair *tls.Certificate
	if c.TLS.Certificate != "" {
		if pair, err = readPair(c); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	old, before := s.config.Load().TLS, s.parts.Load()
	s.keys.begin()
	p, err := wire(ctx, c, s.keys, s.enrolled(), s.log)
	if err == nil {
		if err = s.install(ctx, c, p); err != nil {
			p.close()
		}
	}
	s.keys.end(err == nil)
	if err != nil {
		return err
	}
	// All is in place; what follows can't be refused any more.
	before.close()
	switch {
	case pair != nil:
		s.own.current.Store(pair)
	case s.authority == nil: // it issues nothing, to itself neither
	case c.TLS.Certificate != old.Certificate || c.TLS.Profile != old.Profile || !slices.Equal(c.TLS.Names, old.Names):
		if err := s.own.refresh(ctx, c); err != nil {
			s.log.Error("the server keeps its certificate until that is renewed", "error", err)
		}
	}
	return nil
}

// refuseAddresses refuses clients' addresses as proofs while, until the next
// start, balancers tell them.
func (s *Server) refuseAddresses(c *config.Config) error {
	for name, d := range c.Directories {
		if s.proxied && d.Kubernetes.Proof == config.ProofSourceAddress {
			return c.At("directories."+name+".kubernetes.proof", errors.New("the listener takes clients' addresses from balancers until the next start, and such prove nothing"))
		}
	}
	return nil
}

// bound is one listener with its server.
type bound struct {
	name string
	net.Listener
	server *http.Server
	tls    bool
}

// listen opens every listener before any serves, so that a port in use stops
// the start.
func (s *Server) listen(c *config.Config) (all []bound, err error) {
	defer func() {
		if err != nil {
			for _, b := range all {
				b.Close()
			}
		}
	}()
	if s.authority != nil {
		if all, err = s.listenACME(c); err != nil {
			return all, err
		}
	}
	if c.Metrics.Listen != "" {
		b, err := s.listenMetrics(c)
		if err != nil {
			return all, fmt.Errorf("metrics.listen: %w", err)
		}
		all = append(all, b)
	}
	if c.Publish.Listen != "" {
		l, err := net.Listen("tcp", c.Publish.Listen)
		if err != nil {
			return all, fmt.Errorf("publish.listen: %w", err)
		}
		all = append(all, bound{"publish", l, s.publisher.httpServer(), false})
	}
	for _, b := range all {
		b.server.ConnState = s.fresh.note
		b.server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug) // strangers' broken handshakes
	}
	return all, nil
}

// listenACME opens the listeners of clients and operators.
func (s *Server) listenACME(c *config.Config) (all []bound, err error) {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if len(c.TrustedProxies) > 0 {
		l, s.proxied = acmeserver.ProxyListener(l, c.TrustedProxies), true
	}
	acme := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, publish.SSHPrefix) { // also here, where who asks knows whom it asks
			s.publisher.current.Load().publisher.ServeHTTP(w, r)
			return
		}
		(*s.acme.Load()).ServeHTTP(w, r)
	})
	all = append(all, bound{"acme", l, acmeserver.HTTPServer(acme, s.own.tlsConfig()), true})

	a := &admin.Server{Console: s.console(), Signing: s.signing, Version: s.version, Logger: s.log}
	if l, err = admin.Listen(c.Path(c.Admin.Socket)); err != nil {
		return all, fmt.Errorf("admin.socket: %w", err)
	}
	all = append(all, bound{"admin", l, a.HTTPServer(), false})
	if c.Admin.Listen == "" {
		return all, nil
	}
	b, err := s.listenOperators(c, a)
	if err != nil {
		return all, err
	}
	return append(all, b), nil
}

// serve runs the listeners and jobs until ctx ends or one of them fails.
func (s *Server) serve(ctx context.Context, o Options, all []bound) error {
	jobs, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJobs()
	var running sync.WaitGroup
	running.Go(func() { s.publisher.run(jobs) })
	if s.authority != nil {
		running.Go(func() { s.authority.Run(jobs, grace) })
		running.Go(func() { s.keys.watch(jobs, s.db, s.authority) })
		running.Go(func() { s.own.run(jobs, s.config.Load) })
	}
	failed := make(chan error, len(all))
	where := Running{}
	for _, b := range all {
		go func() {
			err := b.serve()
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s listener: %w", b.name, err)
			}
		}()
		switch b.name {
		case "acme":
			where.Listen = b.Addr()
		case "metrics":
			where.Metrics = b.Addr()
		case "operators":
			where.Admin = b.Addr()
		case "publish":
			where.Publish = b.Addr()
		}
		s.log.Info("listening", "for", b.name, "at", b.Addr().String())
	}
	hangup := make(chan os.Signal, 1)
	if o.Reload != nil { // before anybody is told that we can be reloaded: a SIGHUP that nobody minds ends a process
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	notify("READY=1")
	if o.Ready != nil {
		o.Ready(where)
	}
	err := s.wait(ctx, o, hangup, failed)
	notify("STOPPING=1")
	if s.keys != nil {
		s.keys.leave(jobs, s.db, s.authority)
	}
	s.stop(all)
	stopJobs()
	running.Wait()
	return err
}

func (b bound) serve() error {
	if b.tls {
		return b.server.ServeTLS(b.Listener, "", "")
	}
	return b.server.Serve(b.Listener)
}

// wait returns when it is time to stop; until then it reloads at SIGHUP.
func (s *Server) wait(ctx context.Context, o Options, hangup <-chan os.Signal, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-hangup:
			if err := s.reload(ctx, o.Reload); err != nil {
				s.log.Error("the new configuration is bad; the old one goes on", "error", err)
			} else {
				s.log.Info("configuration reloaded")
			}
		}
	}
}

// stop lets requests finish, then closes what is left.
func (s *Server) stop(all []bound) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	defer time.AfterFunc(freshGrace, s.fresh.close).Stop()
	var stopping sync.WaitGroup
	for _, b := range all {
		stopping.Go(func() {
			if err := b.server.Shutdown(ctx); err != nil {
				b.server.Close()
			}
		})
	}
	stopping.Wait()
}

// notify tells systemd, where it asked (sd_notify(3)).
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, state) // nothing to do about a failure
}

package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/authority"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/names"
	"github.com/chancery-pki/chancery/mtls/internal/prove"
	"github.com/chancery-pki/chancery/mtls/internal/rota"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// Identity is who a program is: its certificates and keys, got and renewed by
// themselves. Its methods may be called from many goroutines at once. Make it
// with [New] or [Start] and end it with Close.
type Identity struct {
	cfg    Config // complete; never changes
	trust  *Trust
	log    *slog.Logger
	hooks  Hooks
	clock  Clock
	noALPN bool

	cas  []*authority.CA
	rota *rota.Rota
	alpn acme.TLSALPN01Solver

	server, client *slot.Slot  // nil where Usage or Names have no use for it
	names          *slot.Names // on demand; nil without Config.SNI
	cache          cacheOf
	net            network // what connections share; see net.go

	life lifetime
}

// lifetime is an identity's beginning and end.
type lifetime struct {
	ctx       context.Context // ends with Close
	end       context.CancelFunc
	began     time.Time
	work      sync.WaitGroup // every goroutine
	wake      chan struct{}  // has the loop look again
	ready     chan struct{}  // closed when the first certificates are there
	makeReady func()         // closes it, once
	close     func()         // once
	ownTrust  bool           // made from the environment, ended by Close

	mu      sync.Mutex // guards retired
	retired []retired
}

// ErrClosed says that the identity was closed.
var ErrClosed = errors.New("mtls: the identity is closed")

// newTime bounds New where its context has no deadline.
const newTime = 5 * time.Minute

// New makes an identity and waits until its first certificates exist: until
// ctx ends or, where that has no deadline, for five minutes. An error says
// which field of cfg is wrong, or what the CAs answered last; nothing is left
// behind then.
func New(ctx context.Context, cfg Config) (*Identity, error) {
	id, err := Start(cfg)
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, newTime)
		defer cancel()
	}
	if err := id.Ready(ctx); err != nil {
		return nil, errors.Join(err, id.Close())
	}
	return id, nil
}

// Start makes an identity and returns at once; its certificates come as the
// CAs give them, and until then handshakes fail. Only a bad cfg is an error.
func Start(cfg Config) (*Identity, error) {
	cfg, err := cfg.complete(os.Getenv)
	if err != nil {
		return nil, err
	}
	id := &Identity{cfg: cfg, trust: cfg.Trust, log: cfg.Logger, hooks: cfg.Hooks, clock: cfg.Clock, noALPN: cfg.Proof.NoALPN}
	if id.trust == nil {
		if id.trust, err = trustFromEnvironment(os.Getenv, cfg); err != nil {
			return nil, err
		}
		id.life.ownTrust = true
	}
	if id.cfg.staple == nil {
		id.cfg.staple = id.trust.staple
	}
	id.makeSlots()
	stopALPN := func() {}
	if cfg.Proof.ListenALPN != "" {
		if _, stopALPN, err = prove.ListenALPN(cfg.Proof.ListenALPN, &id.alpn); err != nil {
			err = wrong("Proof.ListenALPN", "%w", err)
			if id.life.ownTrust {
				err = errors.Join(err, id.trust.Close())
			}
			return nil, err
		}
	}
	id.begin(stopALPN)
	return id, nil
}

func (id *Identity) makeSlots() {
	both := id.cfg.Usage == UsageBoth && slices.ContainsFunc(id.cfg.CAs, func(ca CA) bool { return ca.Usage == UsageBoth })
	if len(id.cfg.Names) > 0 && id.cfg.Usage != UsageClient {
		id.server = &slot.Slot{Names: id.cfg.Names, Both: both}
	}
	if id.cfg.Usage != UsageServer {
		id.client = &slot.Slot{Client: true, Names: id.cfg.Names, Both: both}
	}
	if id.cfg.SNI != nil {
		id.names = &slot.Names{Max: id.cfg.MaxSNI, Gone: id.retire}
	}
	id.cache.Cache = id.cfg.Cache
	settings := &authority.Settings{
		OneAccount: id.cfg.OneAccount, UserAgent: id.cfg.UserAgent, Lifetime: id.cfg.Lifetime, NewKey: id.cfg.NewKey,
		Now: id.clock.Now, Log: id.log, Roots: id.roots,
	}
	tiers := make([]int, len(id.cfg.CAs))
	for i, ca := range id.cfg.CAs {
		tiers[i] = ca.Tier
		id.cas = append(id.cas, &authority.CA{
			Settings: settings, Number: i, Directory: ca.Directory, Own: ca.Roots, EAB: ca.EAB, HTTPClient: ca.HTTPClient,
			ServerProfile: ca.ServerProfile, ClientProfile: ca.ClientProfile, Solvers: id.solvers(ca),
		})
	}
	id.rota = rota.New(tiers, rota.Pick(id.cfg.Pick), nil)
}

// roots are today's, for servers and for clients.
func (id *Identity) roots() (servers, clients *x509.CertPool, generation uint64) {
	clients, _ = id.trust.pool(UsageClient)
	servers, generation = id.trust.pool(UsageServer)
	return servers, clients, generation
}

func (id *Identity) begin(stopALPN func()) {
	l := &id.life
	l.ctx, l.end = context.WithCancel(context.Background())
	l.began = id.clock.Now()
	l.wake, l.ready = make(chan struct{}, 1), make(chan struct{})
	stopALPN = sync.OnceFunc(stopALPN)
	l.makeReady = sync.OnceFunc(func() {
		stopALPN() // first: the program may want its address
		close(l.ready)
	})
	l.close = sync.OnceFunc(func() {
		l.end()
		stopALPN()
		id.net.close()
		l.work.Wait()
		id.eraseAll()
		if l.ownTrust {
			if err := id.trust.Close(); err != nil {
				id.log.Warn("mtls: closing the trust", "error", err)
			}
		}
	})
	l.work.Go(id.run)
}

// Ready waits until the first certificates exist: all of Names and Usage. The
// error of a ctx that ends before says what the CAs answered last.
func (id *Identity) Ready(ctx context.Context) error {
	select {
	case <-id.life.ready:
		return nil
	default:
	}
	select {
	case <-id.life.ready:
		return nil
	case <-id.life.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		var errs []error
		for _, s := range id.base() {
			if s.Current.Load() == nil {
				errs = append(errs, fmt.Errorf("mtls: no certificate for %s: %w", s, s.LastError()))
			}
		}
		return errors.Join(append(errs, context.Cause(ctx))...)
	}
}

// Close ends what the identity does and erases its keys: handshakes from then
// on fail, also those that are under way; connections live on. It waits for
// what it called off, at most about half a minute. Further calls do nothing.
// The error is always nil.
func (id *Identity) Close() error {
	id.life.close()
	return nil
}

// eraseAll erases every key there is. Nothing else runs any more.
func (id *Identity) eraseAll() {
	for _, s := range id.slots() {
		if c := s.Current.Load(); c != nil {
			authority.EraseKey(c.Key)
		}
	}
	id.life.mu.Lock()
	defer id.life.mu.Unlock()
	for _, r := range id.life.retired {
		r.key.Erase()
	}
	id.life.retired = nil
	for _, ca := range id.cas {
		ca.Erase()
	}
}

// base are the slots of Names.
func (id *Identity) base() (slots []*slot.Slot) {
	for _, s := range []*slot.Slot{id.server, id.client} {
		if s != nil {
			slots = append(slots, s)
		}
	}
	return slots
}

// slots are all of them.
func (id *Identity) slots() []*slot.Slot { return append(id.base(), id.names.All()...) }

// serverCertificate is for a handshake where we are the server: by the name
// that the client asks for. It waits only for a name on demand that has no
// certificate yet, at most ten seconds.
func (id *Identity) serverCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := id.server
	if id.names != nil && hello.ServerName != "" && (s == nil || !names.Cover(s.Names, hello.ServerName)) {
		return id.certificateFor(hello)
	}
	if s == nil {
		if id.names != nil {
			return nil, errors.New("mtls: the client named no server, and there are certificates by name (Config.SNI) only")
		}
		return nil, errors.New("mtls: this identity is a client's only (Config.Usage)")
	}
	c, err := id.alive(s)
	if err != nil {
		return nil, err
	}
	return c.Widest(), nil
}

// clientCertificate is for a handshake where we are the client: the chain that
// one of the server's acceptable CAs signed, an empty one if there is none.
func (id *Identity) clientCertificate(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if id.client == nil {
		return new(tls.Certificate), nil
	}
	c, err := id.alive(id.client)
	if err != nil {
		return nil, err
	}
	if chain := c.Accepted(req.AcceptableCAs); chain != nil {
		return chain, nil
	}
	return new(tls.Certificate), nil
}

// challengeCertificate answers a pending tls-alpn-01 challenge; nil if the
// handshake isn't one's.
func (id *Identity) challengeCertificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if id.noALPN {
		return nil
	}
	cert, _ := id.alpn.GetCertificate(hello) // never an error
	return cert
}

// alive returns the slot's credential if that can be used now.
func (id *Identity) alive(s *slot.Slot) (*issued.Credential, error) {
	if id.life.ctx.Err() != nil {
		return nil, ErrClosed
	}
	c := s.Current.Load()
	if c == nil {
		return nil, fmt.Errorf("mtls: no certificate for %s yet: %w", s, s.LastError())
	}
	if end := c.Leaf().NotAfter; id.clock.Now().After(end) {
		err := fmt.Errorf("mtls: our certificate for %s ended at %s: %w", s, end.Format(time.RFC3339), s.LastError())
		if c.Mourned.CompareAndSwap(false, true) {
			id.log.Error("mtls: our certificate has ended; handshakes fail until there is a new one", "certificate", s.String(), "error", err)
			id.poke() // the clock may have jumped
		}
		return nil, err
	}
	return c, nil
}

// systemClock is the machine's time.
type systemClock struct{}

// Now returns time.Now().
func (systemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

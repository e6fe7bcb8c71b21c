package mtls

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/roots"
	"github.com/chancery-pki/chancery/mtls/internal/status"
)

// TrustConfig says whose certificates are believed. NewTrust copies it.
type TrustConfig struct {
	// Servers are the roots of servers, Clients those of clients, apart: a
	// program may face the world with a public CA's certificate and still
	// demand clients of the private PKI. One of the two may be empty; then no
	// such peer is believed. Of a list at most one source may be
	// [RootsSystem] or [RootsPool].
	Servers, Clients []Roots
	// Revocation is the look at whether peers' certificates were withdrawn.
	// Default: none.
	Revocation Revocation
	// FilesEvery is how often files are looked at. Default: 1 min. URLsEvery
	// is how often bundles are fetched. Default: 1 h; a failed fetch is tried
	// again after a minute. Negative: only by [Trust.Reload].
	FilesEvery, URLsEvery time.Duration
	// Logger tells what an operator should know. Nil: slog.Default.
	Logger *slog.Logger
	// Clock is the time by which certificates and revocation answers end, and
	// files and bundles are looked at. Nil: the machine's.
	Clock Clock

	transport http.RoundTripper // of the look at revocation, for tests; nil: its own
}

// Roots is where root certificates come from: [RootsFile], [RootsPEM],
// [RootsSystem], [RootsPool] or [RootsURL].
type Roots struct{ source roots.Source }

// RootsFile are the CA certificates of a PEM file of at most 4 MiB. It is read
// again when it has changed; what can't be read then leaves the former roots
// in place. To rotate a CA, list the old root and the new one until nothing of
// the old one's is in use.
func RootsFile(path string) Roots { return Roots{roots.File(path)} }

// RootsPEM are the CA certificates of a PEM text.
func RootsPEM(pem []byte) Roots { return Roots{roots.PEM(pem)} }

// RootsSystem are the machine's, as of the start of the process.
func RootsSystem() Roots { return Roots{roots.System()} }

// RootsPool are those of a pool as it is now; it is copied.
func RootsPool(pool *x509.CertPool) Roots { return Roots{roots.Pool(pool)} }

// RootsURL are the CA certificates, in PEM, that a CA publishes at an https
// URL: at most 64, in at most 1 MiB. The server there must show a certificate
// that the roots of the same list verify, so at least one other source must
// stand beside it; what the bundle brings is added to theirs and never replaces
// them. A root that a bundle brought goes when the bundle no longer has it. A
// failed fetch leaves the former roots in place. [NewTrust] doesn't wait for
// it, [Trust.Reload] does.
func RootsURL(url string) Roots { return Roots{roots.URL(url)} }

// String names the source.
func (r Roots) String() string { return r.source.String() }

// Trust is whose certificates are believed. Any number of identities may share
// one. Roots that change are taken up while it runs, and connections resumed
// after that are held against the new ones. Its methods may be called at the
// same time. It has one goroutine, none if no root can change.
type Trust struct {
	clock     Clock
	roots     *roots.Keeper
	checked   [2]chains // by servers and clients
	status    *status.Checker
	revocable bool // peers are looked up
}

// The lists of Trust.roots.
const servers, clients = 0, 1

// NewTrust loads the roots. It reads files, and waits for nothing else. The
// error says which source can't be loaded and what would be right; a source
// without a root is an error.
func NewTrust(cfg TrustConfig) (*Trust, error) {
	if len(cfg.Servers)+len(cfg.Clients) == 0 {
		return nil, errors.New("mtls: TrustConfig: neither Servers nor Clients has roots; name a RootsFile, say")
	}
	policy, err := cfg.Revocation.policy()
	if err != nil {
		return nil, err
	}
	cfg.defaults()
	t := &Trust{clock: cfg.Clock, revocable: cfg.Revocation.Check != CheckOff}
	t.roots, err = roots.New(
		roots.Config{FilesEvery: cfg.FilesEvery, URLsEvery: cfg.URLsEvery, Clock: cfg.Clock, Log: cfg.Logger},
		roots.List{Name: "Servers", Sources: sources(cfg.Servers)}, roots.List{Name: "Clients", Sources: sources(cfg.Clients)})
	if err != nil {
		return nil, fmt.Errorf("mtls: TrustConfig.%w", err)
	}
	t.status = status.New(status.Config{Policy: policy, Now: cfg.Clock.Now, Log: cfg.Logger, Transport: cfg.transport,
		Roots: func() *x509.CertPool { return t.roots.Today(servers).Pool }})
	return t, nil
}

func (cfg *TrustConfig) defaults() {
	if cfg.FilesEvery == 0 {
		cfg.FilesEvery = time.Minute
	}
	if cfg.URLsEvery == 0 {
		cfg.URLsEvery = time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
}

func sources(list []Roots) (out []roots.Source) {
	for _, r := range list {
		out = append(out, r.source)
	}
	return out
}

// Reload looks at all files and bundles now, and returns why those that failed
// did; their former roots stay. It blocks until they are read and fetched, each
// bundle ten seconds at most.
func (t *Trust) Reload(ctx context.Context) error {
	if err := t.roots.Reload(ctx); err != nil {
		return fmt.Errorf("mtls: roots of %w", err)
	}
	return nil
}

// Close ends the background work and waits for it. Identities that still use
// the Trust go on with what it knows.
func (t *Trust) Close() error {
	t.status.Close()
	t.roots.Close()
	return nil
}

// listOf is where a peer's roots are.
func listOf(peer Usage) int {
	if peer == UsageClient {
		return clients
	}
	return servers
}

// pool returns today's roots, not to be changed. The generation changes when
// the roots do, and never comes back.
func (t *Trust) pool(peer Usage) (pool *x509.CertPool, generation uint64) {
	today := t.roots.Today(listOf(peer))
	return today.Pool, today.Generation
}

// TrustHealth says what a Trust rests on.
type TrustHealth struct {
	Sources []SourceHealth `json:"sources"`
	Answers int            `json:"answers"` // OCSP answers at hand
	Lists   []ListHealth   `json:"lists"`   // revocation lists, at most 256
}

// SourceHealth is one source's part of TrustHealth.
type SourceHealth struct {
	List  string `json:"list"` // "Servers", "Clients"
	From  string `json:"from"`
	Roots int    `json:"roots"`           // -1: a pool's can't be counted
	Error string `json:"error,omitempty"` // of the last look, if that failed
}

// ListHealth is one revocation list's part of TrustHealth.
type ListHealth struct {
	URL        string    `json:"url"`
	Number     string    `json:"number"`
	Entries    int       `json:"entries"`
	NextUpdate time.Time `json:"next_update,omitzero"` // zero: there is none yet
	Error      string    `json:"error,omitempty"`      // of the last fetch, if that failed
}

// Health returns what is trusted now. It doesn't block.
func (t *Trust) Health() TrustHealth {
	var h TrustHealth
	for _, s := range t.roots.Health() {
		h.Sources = append(h.Sources, SourceHealth{List: s.List, From: s.From.String(), Roots: s.Roots, Error: textOf(s.Err)})
	}
	var lists []status.List
	h.Answers, lists = t.status.Health()
	for _, l := range lists {
		h.Lists = append(h.Lists, ListHealth{URL: l.URL, Number: l.Number, Entries: l.Entries, NextUpdate: l.NextUpdate, Error: textOf(l.Err)})
	}
	return h
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

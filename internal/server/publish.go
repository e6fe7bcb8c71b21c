package server

import (
	"context"
	"crypto"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/chancery-pki/chancery/internal/publish"
	"github.com/chancery-pki/chancery/internal/signer"
)

// publisher runs the publisher of the current configuration, and puts another
// in its place at a reload.
type publisher struct {
	server  *Server
	current atomic.Pointer[publish.Publisher]

	mu      sync.Mutex
	ctx     context.Context // of run; nil before
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newPublisher(s *Server) *publisher { return &publisher{server: s} }

// install makes the publisher of a reading of the configuration; the lists of
// the one before are served until there are new ones.
func (p *publisher) install(parts *parts) error {
	s := p.server
	o := publish.Options{
		Revision: s.authority.RevocationRevision, Entries: s.authority.Revoked, NextNumber: s.authority.NextCRLNumber,
		Previous: p.current.Load(), Logger: s.log, Made: s.metrics.crlMade, Served: s.metrics.published,
	}
	for _, a := range parts.authorities {
		issuing := publish.Issuer{Certificate: a.Chains[0][0]}
		if a.Queue != nil && parts.crlKeys[keyID(issuing.Certificate)] {
			queue := a.Queue
			issuing.Sign = func(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
				return queue.Sign(ctx, signer.CRL, digest, opts)
			}
		}
		o.Issuers = append(o.Issuers, issuing)
	}
	next, err := publish.New(o)
	if err != nil {
		return err
	}
	p.current.Store(next)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx != nil {
		p.launch(next)
	}
	return nil
}

// launch lets the publisher run in place of the one before; mu is held.
func (p *publisher) launch(next *publish.Publisher) {
	if p.cancel != nil {
		p.cancel()
	}
	ctx, cancel := context.WithCancel(p.ctx)
	p.cancel = cancel
	p.running.Go(func() { next.Run(ctx) })
}

// run keeps lists fresh until ctx ends.
func (p *publisher) run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.launch(p.current.Load())
	p.mu.Unlock()
	<-ctx.Done()
	p.running.Wait()
}

func (p *publisher) httpServer() *http.Server {
	server := publish.HTTPServer(p.current.Load())
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.current.Load().ServeHTTP(w, r) })
	return server
}

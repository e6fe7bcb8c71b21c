package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/publish"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/responder/krl"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// publisher runs the responder of the current configuration with what serves
// it, and puts others in their place at a reload.
type publisher struct {
	server  *Server
	current atomic.Pointer[published]

	mu      sync.Mutex
	ctx     context.Context // of run; nil before
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// published is what one reading of the configuration publishes.
type published struct {
	responder *responder.Responder
	krl       *krl.Keeper // nil: there is no SSH issuer
	publisher *publish.Publisher
}

// loadTime bounds how long a start waits for stored CRLs.
const loadTime = 10 * time.Second

func newPublisher(s *Server) *publisher { return &publisher{server: s} }

// install makes the responder of a reading of the configuration; the lists of
// the one before are served until this one has them.
func (p *publisher) install(ctx context.Context, c *config.Config, parts *parts) (err error) {
	s := p.server
	o := responder.Options{
		DB: s.db, Authorities: parts.authorities, Replica: s.replica, Logger: s.log, Observe: s.metrics.responder(),
	}
	if before := p.current.Load(); before != nil {
		o.Previous = before.responder
	}
	next := &published{}
	if next.responder, err = responder.New(o); err != nil {
		return err
	}
	// A database that doesn't answer now is no reason not to start.
	loading, cancel := context.WithTimeout(ctx, loadTime)
	if err := next.responder.Load(loading); err != nil {
		s.log.Warn("the stored CRLs could not be loaded yet", "error", err)
	}
	cancel()
	if next.krl, err = p.installKRL(ctx, c, parts); err != nil {
		return err
	}
	var certificates []*x509.Certificate
	for _, a := range parts.authorities {
		certificates = append(certificates, a.Certificate)
	}
	next.publisher, err = publish.New(publish.Options{
		Source: next.responder, Certificates: append(certificates, parts.above...), Lists: parts.lists, Logger: s.log, Served: s.metrics.published,
		SSH: parts.ssh.published(next.krl),
	})
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

// launch lets responder and keeper run in place of the ones before; mu is held.
func (p *publisher) launch(next *published) {
	if p.cancel != nil {
		p.cancel()
	}
	ctx, cancel := context.WithCancel(p.ctx)
	p.cancel = cancel
	p.running.Go(func() { next.responder.Run(ctx) })
	if next.krl != nil {
		p.running.Go(func() { next.krl.Run(ctx) })
	}
}

// run signs what is wanted and keeps lists fresh until ctx ends.
func (p *publisher) run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.launch(p.current.Load())
	p.mu.Unlock()
	p.server.announceDaily(ctx)
	p.running.Wait()
}

func (p *publisher) httpServer() *http.Server {
	return publish.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.current.Load().publisher.ServeHTTP(w, r) }))
}

// foreignLists reads the CRLs that are made elsewhere, as the root's.
func (p *parts) foreignLists(c *config.Config) error {
	for i, file := range c.Publish.CRLs {
		list, err := p.readList(c.Path(file))
		if err != nil {
			return c.At(fmt.Sprintf("publish.crls[%d]", i), err)
		}
		p.lists = append(p.lists, list)
	}
	return nil
}

// readList reads a CRL (DER or PEM) of one of the CAs in the issuers' chains.
func (p *parts) readList(path string) (*x509.RevocationList, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	der, err := io.ReadAll(io.LimitReader(f, maxForeignList+1))
	if err != nil {
		return nil, err
	}
	if len(der) > maxForeignList {
		return nil, fmt.Errorf("%s is over %d MiB", path, maxForeignList>>20)
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("%s is not a CRL: %w", path, err)
	}
	for _, by := range p.above {
		if !bytes.Equal(by.RawSubject, list.RawIssuer) {
			continue
		}
		_, _, _, err := revocation.CRLNumber(der, by)
		return list, err
	}
	return nil, fmt.Errorf("%s was made by %q, which is in no issuer's chain", path, list.Issuer)
}

// maxForeignList bounds a CRL that was made elsewhere: a root's lists a few CAs.
const maxForeignList = 4 << 20

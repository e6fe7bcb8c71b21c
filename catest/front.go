package catest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// front is what a CA shows to its clients.
type front struct {
	base      string // https URL of the ACME server
	published string // http URL of OCSP and CRLs; "": none

	wire      *wire
	trouble   *trouble
	transport *http.Transport

	acme, publish net.Listener // publish: nil for none
	servers       []*http.Server
	requests      requests
	last          func() error // when no request is under way any more
}

// newFront opens listeners, so that the URLs are known; nobody is answered yet.
func newFront(clock *Clock, s settings) (_ *front, err error) {
	f := &front{
		wire: &wire{alive: make(map[net.Conn]struct{})}, trouble: newTrouble(clock), last: func() error { return nil },
		transport: &http.Transport{MaxIdleConnsPerHost: 16, ForceAttemptHTTP2: true},
	}
	if s.memory {
		return f, f.inMemory(s.revocation)
	}
	if f.acme, err = listen(); err != nil {
		return nil, err
	}
	f.base = "https://" + f.acme.Addr().String()
	if !s.revocation {
		return f, nil
	}
	if f.publish, err = listen(); err != nil {
		f.acme.Close()
		return nil, err
	}
	f.published = "http://" + f.publish.Addr().String()
	return f, nil
}

// listen listens on a free port of loopback.
func listen() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { // a machine without IPv4
		l, err = net.Listen("tcp", "[::1]:0")
	}
	return l, err
}

// inMemory makes listeners that only the transport can reach, under a name of
// their own, so that the URLs of several CAs differ.
func (f *front) inMemory(revocation bool) error {
	host := "ca-" + strings.ToLower(rand.Text()[:8]) + ".test"
	ports := map[string]*pipes{host + ":443": newPipes()}
	f.base, f.acme = "https://"+host, ports[host+":443"]
	if revocation {
		ports[host+":80"] = newPipes()
		f.published, f.publish = "http://"+host, ports[host+":80"]
	}
	f.transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		if p := ports[address]; p != nil {
			return p.dial(ctx)
		}
		return nil, fmt.Errorf("catest: the client of a CA in memory reaches %s only, not %s", host, address)
	}
	return nil
}

// host is the directory's name or address.
func (f *front) host() string {
	host := strings.TrimPrefix(f.base, "https://")
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// serve begins to answer.
func (f *front) serve(ca *CA) error {
	own, err := ca.keys.serverCertificate(f.host())
	if err != nil {
		return err
	}
	f.transport.TLSClientConfig = &tls.Config{RootCAs: ca.Roots(), MinVersion: tls.VersionTLS12}
	acme := f.server(newRoom(ca.handler))
	acme.TLSConfig = &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
	go acme.ServeTLS(cuttable{f.acme, f.wire}, "", "")
	if f.publish != nil {
		go f.server(http.HandlerFunc(ca.publish)).Serve(cuttable{f.publish, f.wire})
	}
	return nil
}

// server makes a server of a handler, with the trouble before it.
func (f *front) server(next http.Handler) *http.Server {
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f.requests.begin() {
				defer f.requests.under.Done()
				f.trouble.before(next, w, r)
			}
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	f.servers = append(f.servers, s)
	return s
}

// close ends everything, the database last.
func (f *front) close() {
	f.acme.Close()
	if f.publish != nil {
		f.publish.Close()
	}
	for _, s := range f.servers {
		s.Close()
	}
	f.wire.set(true) // what was accepted just now
	f.transport.CloseIdleConnections()
	f.requests.end()
	f.last()
}

// requests counts those under way, until there shall be no more. (A bubble of
// testing/synctest knows a WaitGroup for rest, unlike a lock.)
type requests struct {
	mu    sync.Mutex
	over  bool
	under sync.WaitGroup
}

func (r *requests) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.under.Add(1)
	}
	return !r.over
}

func (r *requests) end() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.under.Wait()
}

// trouble is what a test does to requests.
type trouble struct {
	clock *Clock

	mu      sync.Mutex
	wait    time.Duration
	changed chan struct{} // closed when wait is
	with    func(next http.Handler) http.Handler
}

func newTrouble(clock *Clock) *trouble { return &trouble{clock: clock, changed: make(chan struct{})} }

func (t *trouble) slow(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wait = d
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *trouble) answer(with func(http.Handler) http.Handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.with = with
}

// maxRequest is more than the authority takes.
const maxRequest = 1 << 20

// before does to a request what the test wants, and lets it go on to next.
func (t *trouble) before(next http.Handler, w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	wait, changed, with := t.wait, t.changed, t.with
	t.mu.Unlock()
	// The body first: net/http looks whether the client has left only then, so
	// that who waits here, or in a test's own handler, ends with the test.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if wait > 0 {
		select {
		case <-t.clock.After(wait):
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
	if with != nil {
		next = with(next)
	}
	next.ServeHTTP(w, r)
}

// room bounds the requests at once, so that the authority never leaves any for
// later, as it does with more than 2,048 certificates or 8 validations of one
// name: here nobody comes back to it.
type room struct {
	next           http.Handler
	all, challenge chan struct{}
}

func newRoom(next http.Handler) *room {
	return &room{next, make(chan struct{}, 16), make(chan struct{}, 8)}
}

func (m *room) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	places := m.all
	if strings.Contains(r.URL.Path, "/challenge/") {
		places = m.challenge
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
		m.next.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// testLog writes what goes wrong in the authority to the test's log, until the
// test is over.
type testLog struct {
	mu   sync.Mutex
	t    testing.TB
	over bool
}

func newTestLog(t testing.TB) *testLog { return &testLog{t: t} }

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.t.Logf("catest: %s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

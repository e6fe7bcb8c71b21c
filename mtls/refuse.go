package mtls

import (
	"crypto/x509"
	"errors"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// reported is an error that is in the log already: what a handshake with a
// client that was refused returns to the program. The client gets an alert,
// the same one whatever the reason.
type reported struct{ err error }

const refused = "mtls: client refused: "

// oldVersion is how crypto/tls refuses clients without TLS 1.3, of whom
// configFor has told.
const oldVersion = "tls: client offered only unsupported versions"

func (r *reported) Error() string { return refused + reasonText(r.err) }
func (r *reported) Unwrap() error { return r.err }

// Each reason has a line per second in the log, and a few more at once: of
// its own, so that strangers who knock without a certificate don't drown the
// colleague whose rule is missing.
const (
	linesAtOnce = 10
	lineEvery   = time.Second
)

// refusals bounds the log lines about clients that were refused. Its zero
// value is ready.
type refusals struct {
	mu    sync.Mutex
	shown map[Refusal]*share
}

// share is what a reason has of the log: a bucket of lines that refills.
type share struct {
	full    time.Time // when the bucket is full again
	skipped int
}

// take reports whether a line may be written now, and how many weren't since
// the last one.
func (r *refusals) take(why Refusal, now time.Time) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shown[why]
	if s == nil {
		s = new(share)
		if r.shown == nil {
			r.shown = make(map[Refusal]*share)
		}
		r.shown[why] = s
	}
	if s.full.Before(now) {
		s.full = now
	}
	if s.full.Sub(now) > (linesAtOnce-1)*lineEvery {
		s.skipped++
		return 0, false
	}
	s.full = s.full.Add(lineEvery)
	skipped, s.skipped = s.skipped, 0
	return skipped, true
}

// notice is what is said in the log about a client.
type notice struct {
	what string // happened
	key  Refusal
	from string // its address
	leaf *x509.Certificate
	why  string
}

// report logs that a handshake came to nothing: where the client is, who it
// says it is, and why. What is in the log already, and challenges that were
// answered, are let go.
func (id *Identity) report(from net.Addr, chain []*x509.Certificate, err error) {
	if _, ok := errors.AsType[*reported](err); ok || errors.Is(err, errChallengeAnswered) || strings.HasPrefix(err.Error(), oldVersion) {
		return
	}
	n := notice{what: "mtls: client refused", key: "handshake", why: reasonText(err)}
	if e, ok := errors.AsType[*PeerError](err); ok {
		n.key = e.Reason
	}
	if from != nil {
		n.from = from.String()
	}
	if len(chain) > 0 {
		n.leaf = chain[0]
	}
	id.notice(n)
}

func (id *Identity) notice(n notice) {
	skipped, ok := id.net.refusals.take(n.key, id.clock.Now())
	if !ok {
		return
	}
	attrs := []any{slog.String("why", n.why)}
	if n.from != "" {
		attrs = append(attrs, slog.String("peer", n.from))
	}
	if n.leaf != nil {
		attrs = append(attrs, slog.String("names", acl.PeerOf(n.leaf).String()), slog.String("issuer", clipped(n.leaf.Issuer.String())),
			slog.Time("not_after", n.leaf.NotAfter))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int("skipped_before", skipped))
	}
	id.log.Warn(n.what, attrs...)
}

// reasonText leaves out the package's name where that is said already.
func reasonText(err error) string {
	if e, ok := errors.AsType[*PeerError](err); ok {
		return e.Text
	}
	return err.Error()
}

// ErrorLog returns a logger for http.Server's ErrorLog: what the server says
// goes to the identity's Logger, but for what is there already (refused
// clients) and what is no error (challenges that were answered).
func (id *Identity) ErrorLog() *log.Logger { return log.New(errorLog{id.log}, "", 0) }

type errorLog struct{ to *slog.Logger }

// Write takes one line.
func (e errorLog) Write(line []byte) (int, error) {
	if text := string(line); !strings.Contains(text, refused) && !strings.Contains(text, errChallengeAnswered.Error()) && !strings.Contains(text, oldVersion) {
		e.to.Warn(strings.TrimSpace(string(line)))
	}
	return len(line), nil
}

// clipped bounds a stranger's text.
func clipped(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

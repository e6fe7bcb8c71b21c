package sshhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// Watcher tells when a watched key is used on this host: in the log, by a command,
// and to every CA. What a CA didn't hear yet lies in a folder until it did.
type Watcher struct {
	Host   string            // how reports call this machine
	Keys   map[string]string // fingerprint to label; beside those that the CAs name
	Exec   string            // a command of the shell; "": none
	Spool  string            // a folder of this package's own
	CAs    []Reporter
	Logger *slog.Logger // nil discards

	known map[string]string // with the CAs'
}

// Reporter is a CA that hears of sightings.
type Reporter struct {
	Name string // a folder is called so
	// List names the CA's watched keys.
	List func(ctx context.Context) ([]api.WatchedKey, error)
	// Report tells of one. It may be told of the same one twice.
	Report func(ctx context.Context, fingerprint string, s api.Sighting) error
}

// Bounds of the spool, and of what a CA may name.
const (
	maxSpooled = 10_000 // a CA
	maxWatched = 10_000
	maxReport  = 32 << 10
	reportTime = 10 * time.Second
	minRetry   = 5 * time.Second
	maxRetry   = 5 * time.Minute
	listAgain  = 10 * time.Minute
	saveAgain  = 5 * time.Second // how far a crash throws back
)

// report is a file of the spool.
type report struct {
	Fingerprint string       `json:"fingerprint"`
	Sighting    api.Sighting `json:"sighting"`
}

// Run watches the lines until they end or the context does, and then tries once
// more to get rid of what is spooled. Lines that nobody reads would block whoever
// writes them, so reading waits for nothing but the disk and the command.
func (w *Watcher) Run(ctx context.Context, lines <-chan Line) error {
	if w.Logger == nil {
		w.Logger = slog.New(slog.DiscardHandler)
	}
	for _, ca := range w.CAs {
		if err := (CA{Name: ca.Name}).name(); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(w.Spool, ca.Name), 0o700); err != nil {
			return err
		}
	}
	if err := w.refresh(ctx); err != nil {
		return err
	}
	senders, stop := context.WithCancel(ctx)
	kicks := make([]chan struct{}, len(w.CAs))
	done := make(chan struct{}, len(w.CAs))
	for i, ca := range w.CAs {
		kicks[i] = make(chan struct{}, 1)
		go func() {
			defer func() { done <- struct{}{} }()
			w.send(senders, ca, kicks[i])
		}()
	}
	defer func() {
		stop()
		for range w.CAs {
			<-done
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
		defer cancel()
		for _, ca := range w.CAs {
			w.flush(last, ca)
		}
	}()
	return w.read(ctx, lines, kicks)
}

// read looks at the lines. Where it is in the log is kept, so that what is
// logged while nobody watches is seen at the next start.
func (w *Watcher) read(ctx context.Context, lines <-chan Line, kicks []chan struct{}) (err error) {
	again := time.NewTicker(listAgain)
	defer again.Stop()
	at, saved := "", time.Now()
	save := func() error {
		saved = time.Now()
		if at == "" {
			return nil
		}
		return replace(w.positionFile(), []byte(at), 0o600)
	}
	defer func() { err = errors.Join(err, save()) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if err := w.refresh(ctx); err != nil {
				w.Logger.Error("the list of watched keys stays as it was", "error", err)
			}
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			seen := w.look(ctx, line.Text)
			if at = line.Position; seen || time.Since(saved) > saveAgain {
				if err := save(); err != nil {
					return err
				}
			}
			for _, kick := range kicks {
				if !seen {
					break
				}
				select {
				case kick <- struct{}{}:
				default: // told already
				}
			}
		}
	}
}

func (w *Watcher) positionFile() string { return filepath.Join(w.Spool, "position") }

// Position is where the last run was in its log; "": there was none.
func (w *Watcher) Position() string {
	data, err := os.ReadFile(w.positionFile())
	if err != nil || len(data) > maxPosition {
		return ""
	}
	return string(data)
}

const maxPosition = 1 << 10

// refresh asks the CAs which keys they watch; what they said last is kept for
// times when they don't answer. With nothing to watch it fails: nobody would
// notice.
func (w *Watcher) refresh(ctx context.Context) error {
	known := map[string]string{}
	var errs []error
	for _, ca := range w.CAs {
		if ca.List == nil {
			continue
		}
		file := filepath.Join(w.Spool, ca.Name, "watched.json")
		keys, err := w.list(ctx, ca)
		if err != nil {
			errs = append(errs, fmt.Errorf("CA %s: %w", ca.Name, err))
			data, _ := os.ReadFile(file) // nothing, where it never answered
			keys = nil
			if json.Unmarshal(data, &keys) != nil {
				keys = nil
			}
		} else if data, err := json.Marshal(keys); err != nil || replace(file, data, 0o600) != nil {
			errs = append(errs, fmt.Errorf("CA %s: its watched keys could not be kept", ca.Name))
		}
		for _, k := range keys {
			known[k.Fingerprint] = k.Label
		}
	}
	for fingerprint, label := range w.Keys {
		known[fingerprint] = label
	}
	if len(known) == 0 {
		return errors.Join(append(errs, errors.New("no key is watched: give --keys FILE, or chancery ssh watch add"))...)
	}
	for _, err := range errs {
		w.Logger.Error("watched keys", "error", err)
	}
	w.known = known
	return nil
}

func (w *Watcher) list(ctx context.Context, ca Reporter) ([]api.WatchedKey, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	keys, err := ca.List(ctx)
	if err == nil && len(keys) > maxWatched {
		err = fmt.Errorf("it watches more than %d keys", maxWatched)
	}
	return keys, err
}

// look reads one line, and says whether there is something to report.
func (w *Watcher) look(ctx context.Context, line string) bool {
	login, ok := ReadLine(line)
	if !ok {
		return false
	}
	seen := false
	for _, fingerprint := range slices.Compact(slices.Sorted(slices.Values(login.Fingerprints))) {
		label, watched := w.known[fingerprint]
		if !watched {
			continue
		}
		seen = true
		s := api.Sighting{Host: w.Host, User: login.User, From: login.From, At: time.Now().UTC(), Detail: strings.ToValidUTF8(line[:min(len(line), maxDetail)], "?")}
		w.Logger.Error("A WATCHED KEY WAS USED", "key", fingerprint, "label", label, "user", s.User, "from", s.From)
		for _, ca := range w.CAs {
			if err := w.spool(ca, report{fingerprint, s}); err != nil {
				w.Logger.Error("a sighting could not be kept", "ca", ca.Name, "error", err)
			}
		}
		if w.Exec != "" {
			err := shell(ctx, w.Exec, "CHANCERY_KEY="+fingerprint, "CHANCERY_LABEL="+clean(label), "CHANCERY_HOST="+w.Host,
				"CHANCERY_USER="+clean(s.User), "CHANCERY_FROM="+clean(s.From), "CHANCERY_LINE="+clean(s.Detail))
			if err != nil {
				w.Logger.Error("the command failed", "error", err)
			}
		}
	}
	return seen
}

// maxDetail bounds the line in a report.
const maxDetail = 2 << 10

// clean keeps NUL out of an environment.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "?") }

// spool keeps a report until the CA has it. Where there is no more room the oldest
// stay: the first use of a key tells more than the ten thousandth.
func (w *Watcher) spool(ca Reporter, r report) error {
	dir := filepath.Join(w.Spool, ca.Name)
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(there) >= maxSpooled {
		return fmt.Errorf("%d reports wait already", len(there))
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%020d-%s.report", r.Sighting.At.UnixNano(), strings.NewReplacer("/", "_", "+", "-", ":", "-").Replace(r.Fingerprint))
	return replace(filepath.Join(dir, name), data, 0o600)
}

// send gets rid of a CA's spool, now and whenever there is something new.
func (w *Watcher) send(ctx context.Context, ca Reporter, kick <-chan struct{}) {
	retry := minRetry
	for {
		again := time.Duration(1<<63 - 1)
		if err := w.flush(ctx, ca); err != nil && ctx.Err() == nil {
			w.Logger.Warn("a CA doesn't take reports; they are kept", "ca", ca.Name, "error", err, "again_in", retry)
			again, retry = retry, min(2*retry, maxRetry)
		} else {
			retry = minRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-time.After(again):
		}
	}
}

// flush reports what is spooled, oldest first. What the CA refuses for good, as
// a key that it watches no more, isn't kept for ever.
func (w *Watcher) flush(ctx context.Context, ca Reporter) error {
	names, err := filepath.Glob(filepath.Join(w.Spool, ca.Name, "*.report"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := readReport(name)
		if err != nil {
			w.Logger.Error("a report that can't be read is dropped", "file", name, "error", err)
		} else if err := w.report(ctx, ca, r); err != nil {
			if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != 404 && p.Status != 400 {
				return err
			}
			w.Logger.Warn("a CA refuses a report", "ca", ca.Name, "key", r.Fingerprint, "error", err)
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// report isn't cut off at the watcher's end: a CA that had heard of it already
// would hear it twice.
func (w *Watcher) report(ctx context.Context, ca Reporter, r report) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer cancel()
	return ca.Report(ctx, r.Fingerprint, r.Sighting)
}

func readReport(name string) (r report, err error) {
	data, err := os.ReadFile(name)
	if err == nil && len(data) > maxReport {
		err = errors.New("too long")
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// ReadWatched reads a file of keys to watch: one a line, as a fingerprint or as
// in authorized_keys, with a label behind it.
func ReadWatched(data []byte) (map[string]string, error) {
	keys := map[string]string{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		first, label, _ := strings.Cut(line, " ")
		if strings.HasPrefix(first, "SHA256:") {
			if err := CheckFingerprint(first); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			keys[first] = strings.TrimSpace(label)
			continue
		}
		key, err := sshca.ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d is neither a fingerprint nor a key: %w", n, err)
		}
		fields := strings.Fields(line)
		keys[ssh.FingerprintSHA256(key)] = strings.Join(fields[min(2, len(fields)):], " ")
	}
	return keys, nil
}

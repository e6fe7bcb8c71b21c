package sshhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Host is a server whose sshd is looked after. The fields must not change after
// the first call; one process at a time looks after a host.
type Host struct {
	CAs      []CA          // tried in this order
	Names    []string      // DNS names and addresses to be certified; none: no certificate is wanted
	Profile  string        // the directories' profile
	Lifetime time.Duration // asked for; 0: the profile's
	Keys     []string      // sshd's private keys
	Solvers  []acme.Solver // the preferred first

	Dir     string // where sshd's files are put, as in /etc/ssh/chancery
	Snippet string // the file that sshd_config includes, as in /etc/ssh/sshd_config.d/chancery.conf
	State   string // this package's own folder, as in /var/lib/chancery/ssh

	// Principals are who may log in as which user, beside or in place of those
	// whose certificate names the user itself: sshd asks these lists for every
	// user once there are any, and who has none can't log in by certificate.
	Principals map[string][]string

	SSHD   string        // sshd, for its check, as in /usr/sbin/sshd
	Config string        // its configuration, as in /etc/ssh/sshd_config
	Reload string        // a command of the shell
	MaxAge time.Duration // of a KRL

	Logger *slog.Logger // nil discards
}

// Files in Dir.
const (
	userCAFile    = "user_ca.pub"
	revokedFile   = "revoked.krl"
	principalsDir = "principals"
)

// Due is what Once says of the time to come.
type Due struct {
	Renew time.Time // the first certificate; zero: there is none to renew
}

// Once does all that is due. With an error, what could be done is done: a CA
// that is away is an error even where another did its work, so that somebody
// hears of it. It blocks on the network and on sshd.
func (h *Host) Once(ctx context.Context) (Due, error) {
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	if err := h.check(); err != nil {
		return Due{}, err
	}
	trusts, lists, errs := h.fetch(ctx, time.Now())
	if !slices.ContainsFunc(trusts, func(t *Trust) bool { return t != nil }) {
		return Due{}, fmt.Errorf("no CA is known yet, and sshd is left as it is: %w", errors.Join(errs...))
	}
	want := files{}
	due, err := h.certificates(ctx, trusts, want)
	errs = append(errs, err)
	if err := h.configuration(trusts, lists, want); err != nil {
		return due, errors.Join(append(errs, err)...)
	}
	return due, errors.Join(append(errs, h.apply(ctx, want))...)
}

func (h *Host) check() error {
	if len(h.CAs) == 0 {
		return errors.New("no CA: name them in the settings (cas:), or with --directory and --roots")
	}
	if len(h.Names) > 0 && len(h.Keys) == 0 {
		return errors.New("sshd has no host keys: ssh-keygen -A makes them")
	}
	for i, ca := range h.CAs {
		if err := ca.name(); err != nil {
			return err
		}
		if slices.ContainsFunc(h.CAs[:i], func(other CA) bool { return other.Name == ca.Name }) {
			return fmt.Errorf("two CAs are called %q", ca.Name)
		}
		if err := os.MkdirAll(h.kept(ca).dir, 0o700); err != nil {
			return err
		}
	}
	for user, principals := range h.Principals {
		if err := checkUser(user); err != nil {
			return err
		}
		for _, p := range principals {
			if err := checkPrincipal(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) kept(ca CA) kept { return kept{filepath.Join(h.State, ca.Name)} }

// checkUser refuses what is no user's name, and would be another file's.
func checkUser(user string) error {
	if user == "" || len(user) > 64 || strings.HasPrefix(user, ".") || strings.HasPrefix(user, "-") || strings.Trim(user, nameChars) != "" {
		return fmt.Errorf("%.60q is no user's name", user)
	}
	return nil
}

// checkPrincipal refuses what sshd would read as options or several lines
// (sshd(8), AuthorizedPrincipalsFile).
func checkPrincipal(p string) error {
	if p == "" || len(p) > 256 || p[0] == '#' || strings.Trim(p, nameChars+"@:+/=") != "" {
		return fmt.Errorf("%.60q is no principal", p)
	}
	return nil
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// fetch asks every CA what it says. A CA whose KRL isn't known isn't in the
// result: its entry is nil.
func (h *Host) fetch(ctx context.Context, now time.Time) (trusts []*Trust, lists []*sshca.KRL, errs []error) {
	trusts, lists = make([]*Trust, len(h.CAs)), make([]*sshca.KRL, len(h.CAs))
	for i, ca := range h.CAs {
		var stale error
		if trusts[i], stale = h.kept(ca).trust(ctx, ca); stale != nil {
			errs = append(errs, fmt.Errorf("CA %s: %w", ca.Name, stale))
		}
	}
	for i, ca := range h.CAs {
		if trusts[i] == nil {
			continue
		}
		var others []ssh.PublicKey
		for j, t := range trusts {
			if t != nil && j != i && (t.KRL == "" || t.KRL != trusts[i].KRL) { // the same list: two directories of one CA
				others = append(others, t.all()...)
			}
		}
		var stale error
		if lists[i], stale = h.kept(ca).krl(ctx, ca, trusts[i], others, now, h.MaxAge); stale != nil {
			errs = append(errs, fmt.Errorf("CA %s: %w", ca.Name, stale))
		}
	}
	return trusts, lists, errs
}

// certificates gets what is due, and adds all certificates that count to the
// files.
func (h *Host) certificates(ctx context.Context, trusts []*Trust, want files) (due Due, err error) {
	if len(h.Names) == 0 {
		return Due{}, nil
	}
	var errs []error
	for _, path := range h.Keys {
		key, err := loadKey(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		file := h.certificateFile(path)
		cert := readCertificate(file)
		if cert != nil && h.counts(cert, key, cert.ValidPrincipals, trusts) { // also for other names: better than none
			want[file] = ssh.MarshalAuthorizedKey(cert)
		}
		if cert != nil && !h.counts(cert, key, h.Names, trusts) {
			cert = nil
		}
		if cert == nil || !time.Now().Before(renewAt(cert)) {
			line, fresh, err := h.obtain(ctx, key, trusts)
			if err != nil {
				errs = append(errs, err)
			} else {
				cert, want[file] = fresh, line
			}
		}
		if cert != nil {
			if at := renewAt(cert); due.Renew.IsZero() || at.Before(due.Renew) {
				due.Renew = at
			}
		}
	}
	return due, errors.Join(errs...)
}

func (h *Host) certificateFile(key string) string {
	return filepath.Join(h.Dir, filepath.Base(key)+"-cert.pub")
}

// counts reports whether a certificate that is there is still good for these
// names, by any of the CAs.
func (h *Host) counts(cert *ssh.Certificate, key *hostKey, names []string, trusts []*Trust) bool {
	var cas []ssh.PublicKey
	for _, t := range trusts {
		if t != nil {
			cas = append(cas, t.Host...)
		}
	}
	return len(names) > 0 && checkCertificate(cert, key.signer.PublicKey(), names, cas, time.Now()) == nil
}

// renewAt is two thirds into a certificate's life, a little earlier or later
// for each: hosts that were set up together don't all come at once.
func renewAt(cert *ssh.Certificate) time.Time {
	from, until := int64(cert.ValidAfter), int64(cert.ValidBefore)
	life := time.Duration(until-from) * time.Second
	spread := rand.New(rand.NewPCG(cert.Serial, cert.ValidAfter)).Float64()/10 - 0.05
	return time.Unix(from, 0).Add(time.Duration(float64(life) * (2.0/3 + spread)))
}

// obtain asks one CA after the other.
func (h *Host) obtain(ctx context.Context, key *hostKey, trusts []*Trust) ([]byte, *ssh.Certificate, error) {
	var errs []error
	for i, ca := range h.CAs {
		if trusts[i] == nil {
			errs = append(errs, fmt.Errorf("CA %s: nothing is known of it", ca.Name))
			continue
		}
		line, cert, err := h.obtainFrom(ctx, ca, key, trusts[i])
		if err == nil {
			h.Logger.Info("certified", "key", key.path, "ca", ca.Name, "serial", fmt.Sprintf("%016x", cert.Serial), "until", time.Unix(int64(cert.ValidBefore), 0).UTC())
			return line, cert, nil
		}
		errs = append(errs, fmt.Errorf("CA %s: %w", ca.Name, err))
		h.Logger.Warn("no certificate", "key", key.path, "ca", ca.Name, "error", err)
	}
	return nil, nil, fmt.Errorf("no certificate for %s: %w", key.path, errors.Join(errs...))
}

// obtainTime bounds one CA's work, DNS that must spread included.
const obtainTime = 10 * time.Minute

func (h *Host) obtainFrom(ctx context.Context, ca CA, key *hostKey, t *Trust) ([]byte, *ssh.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, obtainTime)
	defer cancel()
	account, err := h.kept(ca).accountKey()
	if err != nil {
		return nil, nil, err
	}
	c := &acme.Client{DirectoryURL: ca.Directory, HTTPClient: ca.HTTP, Key: account, Logger: h.Logger, UserAgent: "chancery-ssh-host"}
	if _, err := c.Register(ctx, acme.Registration{TermsAgreed: true, EAB: ca.EAB}); err != nil {
		return nil, nil, err
	}
	return asked{names: h.Names, profile: h.Profile, lifetime: h.Lifetime, key: key, solvers: h.Solvers}.obtain(ctx, c, t)
}

// configuration adds all that isn't a certificate: sshd's snippet names what
// there is.
func (h *Host) configuration(trusts []*Trust, lists []*sshca.KRL, want files) error {
	var users []byte
	var known []*sshca.KRL
	seen := map[string]bool{}
	for i, t := range trusts {
		if lists[i] != nil {
			known = append(known, lists[i])
		}
		if t == nil || t.KRL != "" && lists[i] == nil {
			continue // not before its revocations are known
		}
		for _, key := range t.User {
			line, err := sshca.KeyLine(key, "chancery "+h.CAs[i].Name)
			if err != nil {
				return err
			}
			if id := string(key.Marshal()); !seen[id] {
				seen[id] = true
				users = append(users, line...)
			}
		}
	}
	revoked, err := sshca.MergeKRLs(known...)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("# Written by chancery ssh host, which overwrites changes.\n")
	for _, key := range h.Keys {
		if file := h.certificateFile(key); want[file] != nil {
			fmt.Fprintf(&b, "HostCertificate %s\n", quote(file))
		}
	}
	if users != nil {
		file := filepath.Join(h.Dir, userCAFile)
		want[file] = users
		fmt.Fprintf(&b, "TrustedUserCAKeys %s\n", quote(file))
	}
	file := filepath.Join(h.Dir, revokedFile)
	want[file] = revoked
	fmt.Fprintf(&b, "RevokedKeys %s\n", quote(file))
	if err := h.principals(want); err != nil {
		return err
	}
	if len(h.Principals) > 0 {
		fmt.Fprintf(&b, "AuthorizedPrincipalsFile %s\n", quote(filepath.Join(h.Dir, principalsDir, "%u")))
	}
	want[h.Snippet] = []byte(b.String())
	return nil
}

// principals adds the lists, and takes those away that nobody asks for any more.
func (h *Host) principals(want files) error {
	dir := filepath.Join(h.Dir, principalsDir)
	there, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range there {
		want[filepath.Join(dir, entry.Name())] = nil
	}
	for user, principals := range h.Principals {
		want[filepath.Join(dir, user)] = []byte(strings.Join(principals, "\n") + "\n")
	}
	return nil
}

// quote is for paths in sshd_config, which has quotes but no escapes.
func quote(path string) string {
	if strings.ContainsAny(path, " \t#") {
		return `"` + path + `"`
	}
	return path
}

// apply puts the files in place, has sshd check them, and reload. What sshd
// refuses is taken back.
func (h *Host) apply(ctx context.Context, want files) error {
	old, err := want.changed()
	if err != nil {
		return err
	}
	// A reload that failed, or that a crash prevented, is done at the next time.
	pending := filepath.Join(h.State, "reload")
	if _, err := os.Stat(pending); len(old) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	fresh := files{}
	for path := range old {
		fresh[path] = want[path]
	}
	if h.needsReload(old) {
		if err := replace(pending, nil, 0o600); err != nil {
			return err
		}
	}
	err = fresh.write(h.Snippet)
	if err == nil {
		err = h.test(ctx)
	}
	if err != nil {
		if back := old.write(""); back != nil {
			return fmt.Errorf("%w; and what was there before could not be brought back: %w", err, back)
		}
		return fmt.Errorf("sshd's files are as they were before: %w", err)
	}
	for path, data := range fresh {
		if data == nil {
			h.Logger.Info("removed", "file", path)
		} else {
			h.Logger.Info("wrote", "file", path)
		}
	}
	if _, err := os.Stat(pending); err != nil {
		return nil // what changed, sshd reads at every login
	}
	if err := shell(ctx, h.Reload); err != nil {
		return fmt.Errorf("sshd was not reloaded: %w", err)
	}
	h.Logger.Info("reloaded sshd")
	return os.Remove(pending)
}

// needsReload reports whether sshd must be told: it reads its configuration and
// the host certificates at its start, the other files at every login.
func (h *Host) needsReload(changed files) bool {
	for path := range changed {
		if path == h.Snippet || strings.HasSuffix(path, "-cert.pub") {
			return true
		}
	}
	return false
}

// test asks sshd whether it takes its configuration, and whether ours is part of
// it.
func (h *Host) test(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	if err := run(exec.CommandContext(ctx, h.SSHD, "-t", "-f", h.Config)); err != nil {
		return fmt.Errorf("sshd refuses its configuration: %w", err)
	}
	out, err := exec.CommandContext(ctx, h.SSHD, "-T", "-f", h.Config).Output()
	if err != nil {
		return fmt.Errorf("sshd -T: %w", err)
	}
	want := "revokedkeys " + filepath.Join(h.Dir, revokedFile) + "\n"
	if !strings.Contains(string(out), want) {
		return fmt.Errorf("%s doesn't include %s, or sets RevokedKeys before it: put \"Include %s\" at its top", h.Config, h.Snippet, filepath.Join(filepath.Dir(h.Snippet), "*.conf"))
	}
	return nil
}

// Bounds on the pauses of Run.
const (
	minPause = time.Minute // after a failure
	maxPause = time.Hour
)

// Run calls Once until the context ends: every so often, for the KRL; earlier
// where a certificate is due; soon again after a failure.
func (h *Host) Run(ctx context.Context, every time.Duration) error {
	failures := 0
	for {
		due, err := h.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := every
		if err != nil {
			h.Logger.Error("not all is as it should be", "error", err)
			pause = min(minPause<<min(failures, 6), maxPause, max(every, minPause))
			failures++
		} else {
			failures = 0
			if !due.Renew.IsZero() {
				pause = min(pause, time.Until(due.Renew))
			}
		}
		pause = max(pause, time.Second)
		pause += rand.N(cmp.Or(pause/10, 1))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

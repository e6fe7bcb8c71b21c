package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/sshhost"
)

type sshWatchCommand struct {
	fleetFlags `embed:""`

	Run    watchRun    `cmd:"" help:"On a server: follow sshd's log, and tell when a watched key is used."`
	Add    watchAdd    `cmd:"" help:"Watch a key, at all CAs."`
	List   watchList   `cmd:"" help:"List the watched keys, and which CAs know them."`
	Forget watchForget `cmd:"" help:"Watch a key no more, at all CAs."`
}

type watchRun struct {
	Log     string `help:"sshd's log: a file, or - for standard input; systemd's journal unless given." placeholder:"FILE"`
	Keys    string `help:"Keys to watch beside those that the CAs name: fingerprints or public keys, one a line." placeholder:"FILE"`
	Exec    string `help:"A command of the shell for each use, which finds CHANCERY_KEY, _LABEL, _HOST, _USER, _FROM and _LINE." placeholder:"COMMAND"`
	Host    string `help:"What reports call this machine; its host name unless given." placeholder:"NAME"`
	Spool   string `help:"Where reports wait for CAs that are away." default:"/var/lib/chancery/watch" placeholder:"DIR"`
	Offline bool   `help:"Ask and tell no CA."`
}

func (c *watchRun) Run(ctx context.Context, f *fleet, n notices) error {
	w := &sshhost.Watcher{Host: c.Host, Exec: c.Exec, Spool: c.Spool, Logger: logTo(n)}
	if w.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		w.Host = name
	}
	if c.Keys != "" {
		data, err := os.ReadFile(c.Keys)
		if err != nil {
			return err
		}
		if w.Keys, err = sshhost.ReadWatched(data); err != nil {
			return fmt.Errorf("%s: %w", c.Keys, err)
		}
	}
	if !c.Offline {
		cas, err := f.all()
		if err != nil {
			return err
		}
		for i, ca := range cas {
			name := ca.name
			if strings.ContainsAny(name, "/: ") { // an address, where nobody gave a name
				name = fmt.Sprintf("ca%d", i+1)
			}
			w.CAs = append(w.CAs, sshhost.Reporter{Name: name, List: ca.WatchedKeys, Report: ca.Report})
		}
	}
	if err := os.MkdirAll(c.Spool, 0o700); err != nil {
		return err
	}
	return c.watch(ctx, w)
}

// watch runs the source beside the watcher; the first to end ends both.
func (c *watchRun) watch(ctx context.Context, w *sshhost.Watcher) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lines, ended := make(chan sshhost.Line), make(chan error, 1)
	go func() {
		defer close(lines)
		switch c.Log {
		case "":
			ended <- sshhost.FollowJournal(ctx, w.Position(), lines, w.Logger)
		case "-":
			ended <- sshhost.FollowStream(ctx, os.Stdin, lines)
		default:
			ended <- sshhost.FollowFile(ctx, c.Log, w.Position(), lines)
		}
	}()
	err := w.Run(ctx, lines)
	if err != nil || ctx.Err() != nil {
		return err // a read of standard input may still wait; the process ends
	}
	return <-ended
}

// watchedArg is a key as people name it.
type watchedArg struct {
	Key string `arg:"" help:"A fingerprint (SHA256:…), or a file with the public key."`
}

func (a watchedArg) fingerprint() (string, error) {
	if strings.HasPrefix(a.Key, "SHA256:") {
		return a.Key, sshhost.CheckFingerprint(a.Key)
	}
	data, err := os.ReadFile(a.Key)
	if err != nil {
		return "", err
	}
	key, err := sshca.ParseKey(strings.TrimSpace(string(data)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", a.Key, err)
	}
	return ssh.FingerprintSHA256(key), nil
}

type watchAdd struct {
	watchedArg
	Label string `help:"What the key is for, as \"break glass, safe in Berlin\"." required:""`
}

func (c *watchAdd) Run(ctx context.Context, f *fleet, w output, out format) error {
	fingerprint, err := c.fingerprint()
	if err != nil {
		return err
	}
	all, err := each(ctx, f, func(ctx context.Context, ca target) (api.WatchedKey, error) {
		k, err := ca.Watch(ctx, api.WatchedKey{Fingerprint: fingerprint, Label: c.Label})
		if _, refused := errors.AsType[*api.Problem](err); refused {
			known, listErr := ca.WatchedKeys(ctx)
			i := slices.IndexFunc(known, func(k api.WatchedKey) bool { return k.Fingerprint == fingerprint })
			if listErr == nil && i >= 0 {
				return known[i], errAlready
			}
		}
		return k, err
	})
	if err != nil {
		return err
	}
	return report(w, out, all, "watched", func(k api.WatchedKey) string { return k.Fingerprint })
}

type watchList struct{}

func (c *watchList) Run(ctx context.Context, f *fleet, w output, out format) error {
	all, err := each(ctx, f, func(ctx context.Context, ca target) ([]api.WatchedKey, error) { return ca.WatchedKeys(ctx) })
	if err != nil {
		return err
	}
	if len(all) == 1 && !all[0].Done {
		return lag(all)
	}
	err = out.show(w, all, "CA KEY LABEL SINCE", func(add func(...any)) {
		for _, o := range all {
			if o.Answer == nil {
				add(o.CA, o.result(""))
				continue
			}
			for _, k := range *o.Answer {
				add(o.CA, k.Fingerprint, k.Label, day(k.CreatedAt))
			}
		}
	})
	return errors.Join(err, lag(all))
}

type watchForget struct{ watchedArg }

func (c *watchForget) Run(ctx context.Context, f *fleet, w output, out format) error {
	fingerprint, err := c.fingerprint()
	if err != nil {
		return err
	}
	all, err := each(ctx, f, func(ctx context.Context, ca target) (string, error) {
		err := ca.Forget(ctx, fingerprint)
		if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == 404 {
			return fingerprint, errAlready
		}
		return fingerprint, err
	})
	if err != nil {
		return err
	}
	return report(w, out, all, "forgotten", func(s string) string { return s })
}

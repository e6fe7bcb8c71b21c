//go:build pcsc && cgo

package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// TestLogin runs testdata/login/*.txtar, each with a real CA as `chanceryd init
// --ssh` makes it ($DIRECTORY, $ROOTS, its admin socket), a soft card behind the
// real pcscd, the real ssh-agent, and folders of its own. Beside testscript's own
// commands there are
//
//	touched, ! touched   says whether somebody touches the card
//	ssh [WORDS --] ARGS  runs ssh to a real sshd, whose folder is $SSHD, as WORDS ssh ARGS
//	touches N            the card has made so many signatures since the last time
//	pin PIN              somebody else changes the card's PIN
//	pull, plug           takes the card out and puts it back
func TestLogin(t *testing.T) {
	card := func(ts *testscript.TestScript) *softcard.Card { return ts.Value("card").(*softcard.Card) }
	s := sshdtest.Start(t, "TrustedUserCAKeys %D/ca.pub", "AuthorizedKeysFile none")
	known := s.KnownHosts(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/login",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SSHD", s.Dir)
			return startDesk(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"touched": func(ts *testscript.TestScript, neg bool, _ []string) { card(ts).SetTouched(!neg) },
			"touches": touches,
			"pin":     func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(card(ts).SetPIN(args[0])) },
			"pull": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(ts.Value("readers").(*reader.Reader).Remove(0))
			},
			"plug": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(ts.Value("readers").(*reader.Reader).Insert(0, card(ts)))
			},
			"ssh":   func(ts *testscript.TestScript, neg bool, args []string) { sshTo(ts, neg, s.Port, known, args) },
			"usage": usage,
		},
	})
}

// sshTo runs ssh to sshd as root, with these arguments more, after words that
// run it, which end with --.
func sshTo(ts *testscript.TestScript, neg bool, port int, known, args []string) {
	i := slices.Index(args, "--")
	command := append(slices.Clone(args[:max(i, 0)]), "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentityFile=none", "-p", fmt.Sprint(port))
	command = append(append(command, known...), args[i+1:]...)
	if err := ts.Exec(command[0], append(command[1:], "root@127.0.0.1", "true")...); (err == nil) == neg {
		ts.Fatalf("ssh: %v", err)
	}
}

func touches(ts *testscript.TestScript, _ bool, args []string) {
	seen := ts.Value("seen").(*int)
	now := ts.Value("card").(*softcard.Card).Signatures()
	if got := fmt.Sprint(now - *seen); got != args[0] {
		ts.Fatalf("%s touches", got)
	}
	*seen = now
}

// startDesk makes the CA, the card and the place of one script.
func startDesk(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "chancery-") // $WORK is too long for sockets
	if err != nil {
		return err
	}
	e.Defer(func() { os.RemoveAll(dir) })
	for _, name := range []string{"pcscd", "run"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	readers, err := reader.Start(filepath.Join(dir, "pcscd"), 1)
	if err != nil {
		return err
	}
	e.Defer(func() { readers.Close() })
	card, err := softcard.New(softcard.Options{Serial: 4711})
	if err != nil {
		return err
	}
	if err := readers.Insert(0, card); err != nil {
		return err
	}
	e.Values["card"], e.Values["readers"], e.Values["seen"] = card, readers, new(int)
	e.Vars = append(e.Vars, readers.Env()...)
	for name, value := range map[string]string{
		"HOME": filepath.Join(dir, "home"), "XDG_RUNTIME_DIR": filepath.Join(dir, "run"), "XDG_CONFIG_HOME": filepath.Join(dir, "config"),
		"XDG_STATE_HOME": filepath.Join(dir, "state"), "SSH_AUTH_SOCK": filepath.Join(dir, "agent"), "PINENTRY": filepath.Join(e.WorkDir, "pinentry"),
	} {
		e.Setenv(name, value)
	}
	return errors.Join(startSSHAgent(e, filepath.Join(dir, "agent")), startPeoplesCA(e, filepath.Join(dir, "ca"), card))
}

func startSSHAgent(e *testscript.Env, socket string) error {
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		return err
	}
	e.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// startPeoplesCA makes a CA that believes in the card's maker, and runs it.
func startPeoplesCA(e *testscript.Env, dir string, card *softcard.Card) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := free.Addr().String()
	free.Close()
	root, err := newRoot(dir + "-root")
	if err != nil {
		return err
	}
	made, err := setup.Init{
		Dir: dir, Name: "Test", DNS: "127.0.0.1", SSH: true, RootCert: root + ".pem", RootKey: root + ".key",
		Overrides: func(x *config.Example) {
			x.ExternalURL, x.Listen, x.Publish, x.Metrics, x.AdminSocket = "https://"+address, address, "127.0.0.1:0", "", "admin.sock"
			x.Allow = []string{"127.0.0.1", "*.people.internal"}
			x.Publish = "127.0.0.1:0" // tests run side by side
		},
	}.Run(context.Background())
	if err != nil {
		return err
	}
	var issuers []byte
	for _, c := range card.Maker().Issuers() {
		issuers = append(issuers, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	text, err := os.ReadFile(made.Config)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "maker.pem"), issuers, 0o600), os.WriteFile(made.Config, append(text, "\ndevices:\n  issuers: maker.pem\n"...), 0o600)); err != nil {
		return err
	}
	c, err := config.Load(made.Config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan server.Running, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{Config: c, Version: "test", Logger: slog.New(slog.DiscardHandler), Ready: func(r server.Running) { ready <- r }})
	}()
	e.Defer(func() {
		stop()
		if err := <-ended; err != nil {
			e.T().Log(err)
		}
	})
	e.Setenv("DIRECTORY", "https://"+address+"/acme/people/directory")
	e.Setenv("ROOTS", made.Bundle)
	e.Setenv("CA", dir)
	e.Setenv("CHANCERY_ADMIN", filepath.Join(dir, "admin.sock"))
	select {
	case <-ready:
		return nil
	case err := <-ended:
		ended <- err
		return err
	}
}

package sshhost_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/sshhost"
)

// A journalctl that says what systemd's does: text, bytes that aren't UTF-8, and
// what isn't an entry. It shows what it was asked for.
const journalctl = `#!/bin/sh
echo "$@" >>ASKED
echo '{"__CURSOR":"s=1","MESSAGE":"` + "Accepted publickey for root from 192.0.2.7 port 1 ssh2: ED25519 " + printA + `"}'
echo '{"__CURSOR":"s=2","MESSAGE":[104,105,255]}'
echo '{"MESSAGE":"no cursor"}'
echo '{"__CURSOR":"s=3","MESSAGE":{"an":"object"}}'
echo 'not JSON'
echo '{"__CURSOR":"s=4","MESSAGE":null}'
echo '{"__CURSOR":"s=5","MESSAGE":"last"}'
exec sleep 600
`

func TestFollowJournal(t *testing.T) {
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	program := filepath.Join(dir, "journalctl")
	text := []byte(strings.Replace(journalctl, "ASKED", asked, 1))
	if err := os.WriteFile(program, text, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for from, want := range map[string]string{
		"":    "--follow --output=json --quiet _SYSTEMD_UNIT=ssh.service + _SYSTEMD_UNIT=sshd.service --lines=0\n",
		"s=0": "--follow --output=json --quiet _SYSTEMD_UNIT=ssh.service + _SYSTEMD_UNIT=sshd.service --lines=all --after-cursor=s=0\n",
	} {
		if err := os.RemoveAll(asked); err != nil {
			t.Fatal(err)
		}
		lines, ended := make(chan sshhost.Line), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { ended <- sshhost.FollowJournal(ctx, from, lines, logger(t)) }()
		for _, want := range []sshhost.Line{
			{Text: "Accepted publickey for root from 192.0.2.7 port 1 ssh2: ED25519 " + printA, Position: "s=1"}, {Text: "hi\xff", Position: "s=2"}, {Text: "", Position: "s=4"}, {Text: "last", Position: "s=5"},
		} {
			select {
			case l := <-lines:
				if l != want {
					t.Errorf("got %+v, want %+v", l, want)
				}
			case <-time.After(time.Minute):
				t.Fatal("waited a minute for a line")
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := string(must(os.ReadFile(asked))); got != want {
			t.Errorf("from %q it asks for %q", from, got)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := sshhost.FollowJournal(t.Context(), "", make(chan sshhost.Line), logger(t)); err == nil {
		t.Error("without journalctl it waits for ever")
	}
}

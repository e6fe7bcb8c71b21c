package sshagent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshagent"
)

// fixedKey is the same in each process: what one of the fuzzer's found must be
// the same in another.
func fixedKey() *ecdsa.PrivateKey {
	return must(ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32)))
}

// Whatever a client says, it is answered message by message, and the card signs
// only for what reads as a login or an SSHSIG.
func FuzzServe(f *testing.F) {
	c := newCard()
	c.key = fixedKey()
	dir := must(os.MkdirTemp("", "agent-")) // a socket's path is bounded
	f.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l := must(sshagent.Listen(socket))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- sshagent.New(sshagent.Options{Card: c, Keys: []string{uri}, PIN: (&asked{pin: "123456"}).ask, Logger: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	f.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})

	sign := "\x0d" + str(string(c.ssh().Marshal()))
	bind := func(host *ecdsa.PrivateKey) string {
		signer := must(ssh.NewSignerFromSigner(host))
		return "\x1b" + str("session-bind@openssh.com") + str(string(signer.PublicKey().Marshal())) + str(session) +
			str(string(ssh.Marshal(must(signer.Sign(zeros{}, []byte(session)))))) + "\x00"
	}
	f.Add([]byte(str("\x0b")))
	f.Add([]byte(str(sign + str(string(authFor(c))) + "\x00\x00\x00\x00")))
	f.Add([]byte(str(bind(fixedKey())) + str(sign+str(string(authFor(c)))+"\x00\x00\x00\x00")))
	f.Add([]byte(str(sign + str(sshsig("git", "", "sha512", 64)) + "\x00\x00\x00\x00")))
	f.Add([]byte(str(sign + str(responseMessage()) + "\x00\x00\x00\x00")))
	f.Add([]byte(str("\x16"+str("x")) + str("\x17"+str("x")) + str("\x13")))
	f.Fuzz(func(t *testing.T, said []byte) {
		if len(said) > 64<<10 || bytes.Count(said, []byte{0x17}) > 3 && bytes.Contains(said, []byte{0x16}) {
			return // a wrong passphrase costs a second
		}
		before := c.signed.Load()
		conn := must(net.Dial("unix", socket))
		defer conn.Close()
		conn.Write(said) // it may have been dropped already
		conn.(*net.UnixConn).CloseWrite()
		all, _ := io.ReadAll(conn) // likewise
		for r := bufio.NewReader(bytes.NewReader(all)); ; {
			var length [4]byte
			if n, err := io.ReadFull(r, length[:]); n == 0 {
				break
			} else if err != nil {
				t.Fatalf("%d bytes of an answer", n)
			}
			if n, err := r.Discard(int(binary.BigEndian.Uint32(length[:]))); err != nil || n == 0 {
				t.Fatalf("an answer of %d bytes, %v", n, err)
			}
		}
		text := string(said)
		if c.signed.Load() != before && !strings.Contains(text, "ssh-connection") && !strings.Contains(text, "SSHSIG") {
			t.Fatalf("the card signed for %q", said)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// zeros is a source of bytes that aren't random.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

package sshagent_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/chancery-pki/chancery/internal/sshagent"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// dial is a client of x/crypto's, and its connection.
func dial(t *testing.T, socket string) (agent.ExtendedAgent, net.Conn) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agent.NewClient(conn), conn
}

func authFor(c *card) []byte { return []byte(auth(ssh.KeyAlgoECDSA256, c.ssh())) }

// The real ssh-add, ssh-keygen, ssh and sshd, with the user's own agent behind.
func TestRealPrograms(t *testing.T) {
	upstream, theirs := realAgent(t)
	c, folder := newCard(), t.TempDir()
	ca := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	caKey := must(ssh.NewPublicKey(ca.Public()))
	told := new(lines)
	socket := start(t, sshagent.Options{Card: c, Folder: folder, Upstream: upstream, Tell: told.add})
	env := []string{"SSH_AUTH_SOCK=" + socket}

	listed := command(t, env, "", "ssh-add", "-L")
	if !strings.Contains(listed, string(ssh.MarshalAuthorizedKey(c.ssh())[:60])) || !strings.Contains(listed, string(ssh.MarshalAuthorizedKey(theirs)[:60])) {
		t.Fatalf("listed: %s", listed)
	}

	// ssh-keygen -Y sign, as git does it.
	dir := t.TempDir()
	public := filepath.Join(dir, "id.pub")
	write(t, public, ssh.MarshalAuthorizedKey(c.ssh()))
	write(t, filepath.Join(dir, "signers"), []byte("alice "+string(ssh.MarshalAuthorizedKey(c.ssh()))))
	sig := command(t, env, "message", "ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", public)
	write(t, filepath.Join(dir, "sig"), []byte(sig))
	command(t, nil, "message", "ssh-keygen", "-Y", "verify", "-n", "git", "-I", "alice", "-f", filepath.Join(dir, "signers"), "-s", filepath.Join(dir, "sig"))
	if out, err := try(t, env, "message", "ssh-keygen", "-q", "-Y", "sign", "-n", "chancery-order@chancery-pki.github.io", "-f", public); err == nil {
		t.Fatalf("signed for an order: %s", out)
	}

	// A certificate that login has just put there lets ssh in.
	s := sshdtest.Start(t, "TrustedUserCAKeys %D/ca.pub", "AuthorizedKeysFile none")
	write(t, filepath.Join(s.Dir, "ca.pub"), ssh.MarshalAuthorizedKey(caKey))
	args := s.KnownHosts(t)
	if out, err := s.SSH(t, env, args...); err == nil {
		t.Fatalf("logged in without a certificate: %s", out)
	}
	before := c.signed.Load()
	write(t, filepath.Join(folder, "ssh-cert.pub"), ssh.MarshalAuthorizedKey(certify(t, ca, c.ssh(), time.Now().Add(time.Hour))))
	write(t, filepath.Join(folder, "old-cert.pub"), ssh.MarshalAuthorizedKey(certify(t, ca, c.ssh(), time.Now().Add(-time.Minute))))
	write(t, filepath.Join(folder, "other-cert.pub"), ssh.MarshalAuthorizedKey(certify(t, ca, theirs, time.Now().Add(time.Hour))))
	write(t, filepath.Join(folder, "bad-cert.pub"), []byte("ssh-ed25519-cert-v01@openssh.com AAAA"))
	if out, err := s.SSH(t, env, args...); err != nil {
		t.Fatalf("ssh: %v\n%s", err, out)
	}
	s.Wait(t, "ECDSA-CERT")
	if n := c.signed.Load() - before; n != 1 {
		t.Errorf("%d signatures for one login", n)
	}
	if !strings.Contains(told.String(), `ssh login as "root" at the host with key SHA256:`) {
		t.Errorf("the user was told: %s", told)
	}
	if n := strings.Count(command(t, env, "", "ssh-add", "-l"), "\n"); n != 3 { // certificate, key, theirs
		t.Errorf("%d keys are listed", n)
	}

	// A certificate in a file, for which ssh asks the plain key to sign.
	file := filepath.Join(folder, "ssh-cert.pub")
	moved := filepath.Join(dir, "id-cert.pub")
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	if out, err := s.SSH(t, env, append(args, "-o", "CertificateFile="+moved, "-o", "IdentityFile="+public, "-o", "IdentitiesOnly=yes")...); err != nil {
		t.Fatalf("ssh with a certificate in a file: %v\n%s", err, out)
	}
	if c.open.Load() != 0 {
		t.Error("the card is still open")
	}
}

// Whatever isn't about the card's key is the other agent's.
func TestPassesOn(t *testing.T) {
	upstream, theirs := realAgent(t)
	c := newCard()
	socket := start(t, sshagent.Options{Card: c, Upstream: upstream})
	env := []string{"SSH_AUTH_SOCK=" + socket}
	file := filepath.Join(t.TempDir(), "id")
	command(t, nil, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "added", "-f", file)
	command(t, env, "", "ssh-add", "-q", "-t", "600", file)
	if out := command(t, []string{"SSH_AUTH_SOCK=" + upstream}, "", "ssh-add", "-l"); !strings.Contains(out, "added") {
		t.Errorf("not added to the other agent: %s", out)
	}
	client, _ := dial(t, socket)
	sig, err := client.Sign(theirs, []byte("anything, as their agent likes"))
	if err != nil || theirs.Verify([]byte("anything, as their agent likes"), sig) != nil {
		t.Errorf("their key doesn't sign: %v", err)
	}
	command(t, env, "", "ssh-add", "-q", "-d", file)
	command(t, env, "", "ssh-add", "-q", "-D")
	if out := command(t, env, "", "ssh-add", "-l"); strings.Count(out, "\n") != 1 {
		t.Errorf("after ssh-add -D: %s", out)
	}
	if c.signed.Load() != 0 {
		t.Error("the card signed")
	}
}

// Nothing but SSH touches the card.
func TestRefusesBeforeTheCard(t *testing.T) {
	c := newCard()
	socket := start(t, sshagent.Options{Card: c})
	client, _ := dial(t, socket)
	for _, data := range []string{"", "anything", responseMessage(), auth(ssh.KeyAlgoECDSA256, newKey()), string(authFor(c)) + "x"} {
		if _, err := client.Sign(c.ssh(), []byte(data)); err == nil {
			t.Errorf("signed %q", data)
		}
	}
	if len(c.shown) != 0 {
		t.Error("the card was opened")
	}
	if _, err := client.Sign(newKey(), authFor(c)); err == nil {
		t.Error("a key that isn't there signed")
	}
	if sig, err := client.Sign(c.ssh(), authFor(c)); err != nil || c.ssh().Verify(authFor(c), sig) != nil {
		t.Errorf("a good request: %v", err)
	}
}

func TestPIN(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		c, pin := newCard(), &asked{pin: "123456"}
		client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask, KeepPIN: -1}))
		for range 3 {
			must(client.Sign(c.ssh(), authFor(c)))
		}
		if n := pin.n.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if err := client.RemoveAll(); err != nil {
			t.Fatal(err)
		}
		must(client.Sign(c.ssh(), authFor(c)))
		if n := pin.n.Load(); n != 2 {
			t.Errorf("asked %d times after ssh-add -D", n)
		}
	})
	t.Run("not kept", func(t *testing.T) {
		c, pin := newCard(), &asked{pin: "123456"}
		client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask}))
		must(client.Sign(c.ssh(), authFor(c)))
		must(client.Sign(c.ssh(), authFor(c)))
		if n := pin.n.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("for a time", func(t *testing.T) {
		c, pin := newCard(), &asked{pin: "123456"}
		client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask, KeepPIN: time.Millisecond}))
		for deadline := time.Now().Add(time.Minute); pin.n.Load() < 2; time.Sleep(5 * time.Millisecond) {
			must(client.Sign(c.ssh(), authFor(c)))
			if time.Now().After(deadline) {
				t.Fatal("the PIN is never forgotten")
			}
		}
	})
	t.Run("always", func(t *testing.T) {
		c, pin := newCard(), &asked{pin: "123456"}
		c.policy = yubikey.PINAlways
		client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask, KeepPIN: -1}))
		must(client.Sign(c.ssh(), authFor(c)))
		must(client.Sign(c.ssh(), authFor(c)))
		if n := pin.n.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		c, pin := newCard(), &asked{pin: "111111"}
		client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask, KeepPIN: -1}))
		for want := range int32(2) {
			if _, err := client.Sign(c.ssh(), authFor(c)); err == nil || pin.n.Load() != want+1 {
				t.Errorf("%v, asked %d times", err, pin.n.Load())
			}
		}
	})
}

func TestLock(t *testing.T) {
	upstream, _ := realAgent(t)
	for name, up := range map[string]string{"alone": "", "with another": upstream} {
		t.Run(name, func(t *testing.T) {
			c, pin := newCard(), &asked{pin: "123456"}
			client, _ := dial(t, start(t, sshagent.Options{Card: c, PIN: pin.ask, KeepPIN: -1, Upstream: up}))
			must(client.Sign(c.ssh(), authFor(c)))
			if err := client.Lock([]byte("secret")); err != nil {
				t.Fatal(err)
			}
			if keys, err := client.List(); err != nil || len(keys) != 0 {
				t.Errorf("locked, it lists %v, %v", keys, err)
			}
			if _, err := client.Sign(c.ssh(), authFor(c)); err == nil {
				t.Error("locked, it signs")
			}
			if client.Lock([]byte("other")) == nil || client.Unlock([]byte("other")) == nil {
				t.Error("another passphrase does")
			}
			if err := client.Unlock([]byte("secret")); err != nil {
				t.Fatal(err)
			}
			must(client.Sign(c.ssh(), authFor(c)))
			if n := pin.n.Load(); n != 2 {
				t.Errorf("the PIN was asked %d times; want it forgotten by the lock", n)
			}
		})
	}
}

// host signs sessions, as an SSH server does.
type host struct{ ssh.Signer }

func newHost() host {
	return host{must(ssh.NewSignerFromSigner(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))}
}

func (h host) bind(session string, forwarding byte) []byte {
	sig := must(h.Sign(rand.Reader, []byte(session)))
	return []byte(str(string(h.PublicKey().Marshal())) + str(session) + str(string(ssh.Marshal(sig))) + string(forwarding))
}

func TestSessionBind(t *testing.T) {
	c := newCard()
	sessionOf := func(s string) []byte {
		return []byte(strings.Replace(string(authFor(c)), str(session), str(s), 1))
	}
	first, second := newHost(), newHost()
	bound := func(h ssh.PublicKey) []byte { return []byte(hostbound(ssh.KeyAlgoECDSA256, c.ssh(), h)) }
	other := strings.Repeat("o", 32)
	bad := first.bind(session, 0)
	bad[len(bad)-5] ^= 1
	for name, x := range map[string]struct {
		forwarded bool // the option
		binds     [][]byte
		data      []byte
		ok        bool
		fails     bool // the last binding
	}{
		"none":                            {false, nil, authFor(c), true, false},
		"its own":                         {false, [][]byte{first.bind(session, 0)}, authFor(c), true, false},
		"its own, hostbound":              {false, [][]byte{first.bind(session, 0)}, bound(first.PublicKey()), true, false},
		"another session":                 {false, [][]byte{first.bind(session, 0)}, sessionOf(other), false, false},
		"another host":                    {false, [][]byte{first.bind(session, 0)}, bound(second.PublicKey()), false, false},
		"an SSHSIG":                       {false, [][]byte{first.bind(session, 0)}, []byte(sshsig("git", "", "sha512", 64)), true, false},
		"forwarded":                       {false, [][]byte{first.bind(other, 1), second.bind(session, 0)}, bound(second.PublicKey()), false, false},
		"forwarded, allowed":              {true, [][]byte{first.bind(other, 1), second.bind(session, 0)}, bound(second.PublicKey()), true, false},
		"forwarded, no second binding":    {true, [][]byte{first.bind(session, 1)}, authFor(c), false, false},
		"forwarded SSHSIG":                {false, [][]byte{first.bind(session, 1)}, []byte(sshsig("git", "", "sha512", 64)), false, false},
		"bound anew":                      {true, [][]byte{first.bind(session, 0), second.bind(other, 0)}, authFor(c), true, true},
		"one session, two hosts":          {true, [][]byte{first.bind(session, 1), second.bind(session, 0)}, authFor(c), false, true},
		"said twice":                      {false, [][]byte{first.bind(session, 0), first.bind(session, 0)}, authFor(c), false, true},
		"a bad signature":                 {false, [][]byte{bad}, authFor(c), false, true},
		"cut short":                       {false, [][]byte{first.bind(session, 0)[:50]}, authFor(c), false, true},
		"a forwarding flag of 2":          {false, [][]byte{first.bind(session, 2)}, authFor(c), false, true},
		"a failed one, and one that does": {false, [][]byte{bad, first.bind(session, 0)}, authFor(c), true, false},
	} {
		if name == "said twice" {
			x.ok = true // the first one stands
		}
		t.Run(name, func(t *testing.T) {
			client, _ := dial(t, start(t, sshagent.Options{Card: c, Forwarded: x.forwarded}))
			var err error
			for _, b := range x.binds {
				_, err = client.Extension("session-bind@openssh.com", b)
			}
			if (err != nil) != x.fails {
				t.Errorf("the last binding: %v", err)
			}
			if _, err := client.Sign(c.ssh(), x.data); (err == nil) != x.ok {
				t.Errorf("signed: %v", err)
			}
		})
	}
}

// The real thing: ssh -A, and on the other side ssh-keygen asks.
func TestRealForwarding(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		t.Run(fmt.Sprint("allowed ", allowed), func(t *testing.T) {
			c, told := newCard(), new(lines)
			socket := start(t, sshagent.Options{Card: c, Forwarded: allowed, Tell: told.add})
			s := sshdtest.Start(t, "AuthorizedKeysFile %D/authorized", "AllowAgentForwarding yes", "PermitUserEnvironment no")
			public := filepath.Join(s.Dir, "id.pub")
			write(t, public, ssh.MarshalAuthorizedKey(c.ssh()))
			write(t, filepath.Join(s.Dir, "authorized"), []byte(fmt.Sprintf("command=\"printf m | ssh-keygen -q -Y sign -n git -f %s\" %s", public, ssh.MarshalAuthorizedKey(c.ssh()))))
			out, err := s.SSH(t, []string{"SSH_AUTH_SOCK=" + socket}, append(s.KnownHosts(t), "-A")...)
			if got := err == nil && strings.Contains(out, "BEGIN SSH SIGNATURE"); got != allowed {
				t.Errorf("%v: %s", err, out)
			}
			if !strings.Contains(told.String(), "asked from the host with key SHA256:") {
				t.Errorf("the user was told: %s", told)
			}
		})
	}
}

// A card that is away fails what is asked of it, and nothing else.
func TestCardAway(t *testing.T) {
	c := newCard()
	c.away.Store(true)
	socket := start(t, sshagent.Options{Card: c})
	client, _ := dial(t, socket)
	if keys, err := client.List(); err != nil || len(keys) != 0 {
		t.Errorf("a card never seen: %v, %v", keys, err)
	}
	c.away.Store(false)
	must(client.Sign(c.ssh(), authFor(c)))
	c.away.Store(true)
	if keys, err := client.List(); err != nil || len(keys) != 1 {
		t.Errorf("a card pulled: %v, %v", keys, err)
	}
	if _, err := client.Sign(c.ssh(), authFor(c)); err == nil {
		t.Error("a card that is away signed")
	}
	c.away.Store(false)
	c.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) // another card, the same name
	keys := must(client.List())
	if _, err := client.Sign(keys[0], []byte(auth(ssh.KeyAlgoECDSA256, must(ssh.ParsePublicKey(keys[0].Blob))))); err == nil {
		t.Error("another key signed")
	}
}

// Clients that hang, flood or leave harm nobody else.
func TestBadClients(t *testing.T) {
	c := newCard()
	c.hang = make(chan struct{})
	socket := start(t, sshagent.Options{Card: c})
	for _, sent := range []string{"", "\x00", "\x00\x00\x00\x05\x0d", "\x00\x00\x00\x00", "\xff\xff\xff\xff\x0d", str("\x0d"), str("\xff"), str("\x1b" + str("x")), str("\x0d" + str("key"))} {
		_, conn := dial(t, socket)
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 { // more than are let in
		dial(t, socket)
	}
	client, _ := dial(t, socket)
	if keys, err := client.List(); err != nil || len(keys) != 1 {
		t.Fatalf("%v, %v", keys, err)
	}
	// One asks and leaves; the next one's turn comes.
	_, conn := dial(t, socket)
	if _, err := io.WriteString(conn, str("\x0d"+str(string(c.ssh().Marshal()))+str(string(authFor(c)))+"\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); c.open.Load() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asks the card")
		}
	}
	conn.Close()
	for deadline := time.Now().Add(time.Minute); c.open.Load() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the card is asked for a client that left")
		}
	}
	if c.signed.Load() != 0 {
		t.Error("it signed for nobody")
	}
	close(c.hang)
	must(client.Sign(c.ssh(), authFor(c)))
}

// The other agent dies while a client is connected: an unbound connection in the
// place of a bound one would let the client do more.
func TestUpstreamIsNotDialedAnew(t *testing.T) {
	dir := must(os.MkdirTemp("", "up-"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := must(net.Listen("unix", filepath.Join(dir, "s")))
	t.Cleanup(func() { l.Close() })
	dialed := make(chan struct{}, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			dialed <- struct{}{}
			conn.Close()
		}
	}()
	client, _ := dial(t, start(t, sshagent.Options{Card: newCard(), Upstream: filepath.Join(dir, "s")}))
	for range 3 {
		if keys, err := client.List(); err != nil || len(keys) != 1 {
			t.Errorf("%v, %v", keys, err)
		}
	}
	if len(dialed) != 1 {
		t.Errorf("dialed %d times", len(dialed))
	}
}

func TestListenRefuses(t *testing.T) {
	dir := must(os.MkdirTemp("", "listen-"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	write(t, file, []byte("precious"))
	link := filepath.Join(dir, "link")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(open, "s"), file, filepath.Join(link, "s"), filepath.Join(file, "s"), start(t, sshagent.Options{Card: newCard()})} {
		if l, err := sshagent.Listen(path); err == nil {
			l.Close()
			t.Errorf("listens at %s", path)
		}
	}
	// One that a dead agent left.
	left := filepath.Join(dir, "left")
	old := must(net.ListenUnix("unix", &net.UnixAddr{Name: left}))
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := sshagent.Listen(left)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info := must(os.Stat(left)); info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
}

package reader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// The driver of the virtual readers; the port of the first one, each further
// one takes two, of which it leaves the second unused.
const (
	driver    = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
	firstPort = 40000
)

// patience bounds each step of the harness: all take less than a second on an
// idle machine.
const patience = 20 * time.Second

// Reader is a running pcscd with one or more readers.
type Reader struct {
	socket string
	space  *namespace
	pcscd  *exec.Cmd
	exited chan struct{} // closed when pcscd has ended
	log    string        // path of what it wrote

	mu    sync.Mutex
	cards []*inserted // by reader; nil: empty
}

// inserted is a card in a reader.
type inserted struct {
	pull context.CancelFunc
	done chan struct{} // closed when the card is out,
	err  error         // because of this, if nobody pulled it
}

// Start runs pcscd with so many empty readers (1 to 8), all called YubiKey.
// dir is an empty folder for socket, configuration and log; its path must be
// short (a socket's is at most 107 bytes).
func Start(dir string, readers int) (*Reader, error) {
	if readers < 1 || readers > 8 { // pcscd has places for 16, and each takes two
		return nil, fmt.Errorf("reader: %d readers; 1 to 8", readers)
	}
	for _, file := range []string{"/usr/sbin/pcscd", driver} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("reader: %w: apt-get install pcscd vsmartcard-vpcd", err)
		}
	}
	if err := configure(dir, readers); err != nil {
		return nil, fmt.Errorf("reader: %w", err)
	}
	space, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("reader: a network namespace (run as root): %w", err)
	}
	r := &Reader{socket: filepath.Join(dir, "pcscd"), space: space, exited: make(chan struct{}), log: filepath.Join(dir, "log"), cards: make([]*inserted, readers)}
	if err := space.do(r.start); err != nil {
		space.close()
		return nil, fmt.Errorf("reader: starting pcscd: %w", err)
	}
	if err := r.wait(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// name is what a reader is called; pcscd adds " 00 00". ykcs11 wants Yubico in
// it, yubico-piv-tool YubiKey.
func name(reader int) string { return fmt.Sprintf("Yubico YubiKey OTP+FIDO+CCID #%d", reader) }

// configure writes a file per reader into the folder "conf". Each has its own
// copy of the driver, which keeps its slots in global variables.
func configure(dir string, readers int) error {
	conf := filepath.Join(dir, "conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return err
	}
	code, err := os.ReadFile(driver)
	if err != nil {
		return err
	}
	for i := range readers {
		port := firstPort + 2*i
		library := filepath.Join(dir, fmt.Sprintf("vpcd%d.so", i))
		if err := os.WriteFile(library, code, 0o755); err != nil {
			return err
		}
		text := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n", name(i), port, library, port)
		if err := os.WriteFile(filepath.Join(conf, fmt.Sprintf("reader%d", i)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// start runs pcscd with a socket that it is handed, as systemd does it: that
// is the only way to have it elsewhere than in /run.
func (r *Reader) start() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	log, err := os.Create(r.log)
	if err != nil {
		return err
	}
	defer log.Close()
	// Only the process itself knows its number in advance.
	r.pcscd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec /usr/sbin/pcscd --foreground --error --config "$0"`, filepath.Join(filepath.Dir(r.socket), "conf"))
	r.pcscd.Env = append(os.Environ(), "LISTEN_FDS=1")
	r.pcscd.ExtraFiles = []*os.File{socket}
	r.pcscd.Stdout, r.pcscd.Stderr = log, log
	r.pcscd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.pcscd.Start(); err != nil {
		return err
	}
	go func() {
		r.pcscd.Wait()
		close(r.exited)
	}()
	return nil
}

// wait returns when all readers listen.
func (r *Reader) wait() error {
	deadline := time.Now().Add(patience)
	for i := range r.cards {
		for {
			listening, err := r.space.listens(firstPort + 2*i)
			if err != nil {
				return fmt.Errorf("reader: %w", err)
			}
			if listening {
				break
			}
			if err := r.pause(deadline); err != nil {
				return err
			}
		}
	}
	return nil
}

// pause waits a moment, unless there is nothing to wait for.
func (r *Reader) pause(deadline time.Time) error {
	select {
	case <-r.exited:
	case <-time.After(10 * time.Millisecond):
		if time.Now().Before(deadline) {
			return nil
		}
	}
	text, _ := os.ReadFile(r.log)
	return fmt.Errorf("reader: pcscd doesn't get ready: %s", strings.TrimSpace(string(text)))
}

// Env returns what a program's environment needs for it to find the readers.
// A process looks once, so it sees one Reader in its life.
func (r *Reader) Env() []string { return []string{"PCSCLITE_CSOCK_NAME=" + r.socket} }

// Insert puts a card into an empty reader, and returns when programs can see
// it there, which takes about half a second.
func (r *Reader) Insert(reader int, card *softcard.Card) error {
	if err := r.put(reader, card); err != nil {
		return fmt.Errorf("reader %d: %w", reader, err)
	}
	return r.await(reader, true)
}

// put connects a card with a reader.
func (r *Reader) put(reader int, card *softcard.Card) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cards[reader] != nil {
		return errors.New("a card is in it")
	}
	conn, err := r.space.dial(firstPort + 2*reader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	in := &inserted{pull: cancel, done: make(chan struct{})}
	go func() {
		defer close(in.done)
		in.err = card.Serve(ctx, conn)
	}()
	r.cards[reader] = in
	return nil
}

// Pull takes the card out, whatever it is doing. Programs that ask it
// something are told at once, others when pcscd has looked: see Remove.
func (r *Reader) Pull(reader int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in := r.cards[reader]; in != nil {
		in.pull()
		<-in.done
		r.cards[reader] = nil
	}
}

// Remove pulls the card, and returns when pcscd has noticed, which takes up to
// half a second. The error may be an earlier one, of the card's side.
func (r *Reader) Remove(reader int) error {
	r.mu.Lock()
	in := r.cards[reader]
	r.mu.Unlock()
	if in == nil {
		return nil
	}
	r.Pull(reader)
	return errors.Join(in.err, r.await(reader, false))
}

// Close pulls all cards and ends pcscd.
func (r *Reader) Close() error {
	for i := range r.cards {
		r.Pull(i)
	}
	r.pcscd.Process.Kill() // it has nothing to lose
	<-r.exited
	return r.space.close()
}

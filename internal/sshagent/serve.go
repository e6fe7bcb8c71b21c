package sshagent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// Messages (draft-ietf-sshm-ssh-agent section 6.1).
const (
	msgFailure      = 5
	msgSuccess      = 6
	msgList         = 11
	msgIdentities   = 12
	msgSign         = 13
	msgSigned       = 14
	msgRemoveAll    = 19
	msgLock         = 22
	msgUnlock       = 23
	msgExtension    = 27
	extSessionBind  = "session-bind@openssh.com"
	maxIdentities   = 2048
	unlockPause     = time.Second // per wrong passphrase
	maxMessage      = 256 << 10   // as OpenSSH's agent (AGENT_MAX_LEN)
	maxConnections  = 128
	messageTime     = 10 * time.Second // for the rest of a message, and to take an answer
	upstreamTimeout = 2 * time.Minute  // its user may be asked, too
)

// Serve answers on a listener until the context ends. Then it closes all
// connections, forgets the PINs, and returns nil.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{agent: a, open: map[*client]struct{}{}}
	defer func() {
		cancel()
		l.Close()
		s.all.Wait()
		a.Close()
	}()
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		s.start(ctx, conn)
	}
}

// server is one Serve.
type server struct {
	agent *Agent
	all   sync.WaitGroup

	mu   sync.Mutex
	open map[*client]struct{}
}

// client is one connection to our socket.
type client struct {
	agent    *Agent
	conn     net.Conn
	r        *bufio.Reader
	upstream net.Conn // nil until it is needed
	cut      bool     // the upstream is gone for this client
	bound    bindings
	last     atomic.Int64 // when it said something last, in Unix nanoseconds; busy: it is being answered
}

const busy = 1<<63 - 1

// start serves a connection. At the bound the one that has been silent for longest
// makes room, so that nobody keeps the user out.
func (s *server) start(ctx context.Context, conn net.Conn) {
	c := &client{agent: s.agent, conn: conn, r: bufio.NewReader(conn)}
	c.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	if len(s.open) >= maxConnections {
		var oldest *client
		for other := range s.open {
			if oldest == nil || other.last.Load() < oldest.last.Load() {
				oldest = other
			}
		}
		s.agent.log.Warn("too many connections: the one silent for longest is closed", "bound", maxConnections)
		oldest.conn.Close()
		delete(s.open, oldest)
	}
	s.open[c] = struct{}{}
	s.mu.Unlock()
	s.all.Go(func() {
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer func() {
			stop()
			conn.Close()
			if c.upstream != nil {
				c.upstream.Close()
			}
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		}()
		c.serve(ctx)
	})
}

func (c *client) serve(ctx context.Context) {
	for {
		if _, err := c.r.Peek(1); err != nil { // silence may last
			return
		}
		c.conn.SetReadDeadline(time.Now().Add(messageTime))
		message, err := readMessage(c.r)
		if err != nil {
			c.agent.log.Debug("a client is dropped", "error", err)
			return
		}
		c.conn.SetReadDeadline(time.Time{})
		c.last.Store(busy)
		answer := c.answer(ctx, message)
		c.last.Store(time.Now().UnixNano())
		c.conn.SetWriteDeadline(time.Now().Add(messageTime))
		if err := writeMessage(c.conn, answer); err != nil {
			return
		}
	}
}

// readMessage reads a message, its type first.
func readMessage(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes; 1 to %d", n, maxMessage)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}

var failure, success = []byte{msgFailure}, []byte{msgSuccess}

// answer decides about one message. What isn't about the cards' keys is the
// user's own agent's, as it came.
func (c *client) answer(ctx context.Context, message []byte) []byte {
	body := cryptobyte.String(message[1:])
	switch message[0] {
	case msgList:
		return c.list(ctx)
	case msgSign:
		if answer := c.sign(ctx, body); answer != nil {
			return answer
		}
	case msgLock, msgUnlock:
		return c.lock(ctx, message)
	case msgRemoveAll:
		// The cards' keys can't be taken away, but what is known of them.
		c.agent.pins.forget()
		if c.agent.o.Upstream == "" {
			return success
		}
	case msgExtension:
		var name []byte
		if readString(&body, &name) && string(name) == extSessionBind {
			return c.bind(ctx, body, message)
		}
	}
	return c.relay(ctx, message)
}

// list is our identities, then the other agent's.
func (c *client) list(ctx context.Context) []byte {
	ours := c.agent.identities(ctx)
	seen := map[string]bool{}
	var lines []byte
	for _, id := range ours {
		seen[string(id.blob)] = true
		lines = appendString(appendString(lines, id.blob), []byte(id.comment))
	}
	count := len(ours)
	if c.agent.o.Upstream != "" {
		theirs := cryptobyte.String(c.relay(ctx, []byte{msgList}))
		var kind uint8
		var n uint32
		var blob, comment []byte
		if theirs.ReadUint8(&kind) && kind == msgIdentities && theirs.ReadUint32(&n) && n <= maxIdentities {
			for range n {
				if !readString(&theirs, &blob) || !readString(&theirs, &comment) {
					break
				}
				if !seen[string(blob)] && len(lines)+len(blob)+len(comment)+16 < maxMessage {
					lines = appendString(appendString(lines, blob), comment)
					count++
				}
			}
		}
	}
	return append(binary.BigEndian.AppendUint32([]byte{msgIdentities}, uint32(count)), lines...)
}

// sign answers for one of our keys; nil: it is none of ours.
func (c *client) sign(ctx context.Context, body cryptobyte.String) []byte {
	var blob, data []byte
	var flags uint32
	if !readString(&body, &blob) || !readString(&body, &data) || !body.ReadUint32(&flags) || !body.Empty() {
		return failure
	}
	k, public := c.agent.find(ctx, blob)
	if k == nil {
		return nil
	}
	ctx, stop := c.present(ctx)
	defer stop()
	signature, err := c.agent.sign(ctx, k, public, &c.bound, data, flags)
	if err != nil {
		c.agent.log.Warn("not signed", "key", k.uri, "error", err)
		c.agent.o.Tell("not signed: " + err.Error())
		return failure
	}
	return appendString([]byte{msgSigned}, ssh.Marshal(signature))
}

// errHungUp ends what was done for a client that left: nobody shall touch a key
// for no one.
var errHungUp = errors.New("who asked hung up")

// present gives a context that ends when the client hangs up. stop must be called
// before the client is read again.
func (c *client) present(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, err := c.r.Peek(1); err != nil {
			cancel(errHungUp)
		}
	}()
	return ctx, func() {
		c.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the watcher
		<-watched
		c.conn.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}

// lock locks and unlocks both agents.
func (c *client) lock(ctx context.Context, message []byte) []byte {
	body := cryptobyte.String(message[1:])
	var passphrase []byte
	if !readString(&body, &passphrase) || !body.Empty() {
		return failure
	}
	change := c.agent.setLock
	if message[0] == msgUnlock {
		change = c.agent.clearLock
	}
	if !change(passphrase) {
		if message[0] == msgUnlock {
			select {
			case <-time.After(unlockPause):
			case <-ctx.Done():
			}
		}
		return failure
	}
	if c.agent.o.Upstream != "" {
		// Ours is done, whatever the other says: an agent that isn't there
		// needs no lock.
		if answer := c.relay(ctx, message); answer[0] != msgSuccess {
			c.agent.log.Warn("the other agent was not locked or unlocked", "upstream", c.agent.o.Upstream)
		}
	}
	return success
}

// bind notes to which session the connection belongs, and tells the other agent.
func (c *client) bind(ctx context.Context, body cryptobyte.String, message []byte) []byte {
	err := c.bound.add(body)
	if err != nil {
		c.agent.log.Warn("not bound to a session", "error", err)
	}
	if c.agent.o.Upstream != "" {
		c.relay(ctx, message)
	}
	if err != nil {
		return failure
	}
	return success
}

// relay asks the user's own agent, on a connection of this client's own: what an
// agent knows of a client it knows by the connection. One that breaks isn't made
// anew: the other agent would have forgotten to which session it is bound, and
// lets an unbound one do more.
func (c *client) relay(ctx context.Context, message []byte) []byte {
	if c.agent.o.Upstream == "" || c.cut {
		return failure
	}
	answer, err := c.relayed(ctx, message)
	if err != nil {
		c.agent.log.Warn("your own agent doesn't answer", "upstream", c.agent.o.Upstream, "error", err)
		c.cut = true
		return failure
	}
	return answer
}

func (c *client) relayed(ctx context.Context, message []byte) ([]byte, error) {
	if c.upstream == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.agent.o.Upstream)
		if err != nil {
			return nil, err
		}
		c.upstream = conn
	}
	conn := c.upstream
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(upstreamTimeout))
	if err := writeMessage(conn, message); err != nil {
		return nil, err
	}
	return readMessage(conn)
}

// appendString appends RFC 4251 section 5's string.
func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

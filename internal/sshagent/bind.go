package sshagent

import (
	"bytes"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// binding ties a connection to an SSH session (PROTOCOL.agent section 1): ssh
// sends it before it asks for a signature, and when it hands the agent on to the
// other side.
type binding struct {
	host       ssh.PublicKey
	session    []byte
	forwarding bool
}

// maxBindings bounds the hosts that a connection may have been handed through,
// as OpenSSH's agent does.
const maxBindings = 16

// readBinding reads the contents of a session-bind@openssh.com extension, and
// checks that the host signed the session's identifier.
func readBinding(contents []byte) (*binding, error) {
	s := cryptobyte.String(contents)
	var host, session, signature []byte
	var forwarding uint8
	if !readString(&s, &host) || !readString(&s, &session) || !readString(&s, &signature) || !s.ReadUint8(&forwarding) || !s.Empty() ||
		forwarding > 1 || len(session) == 0 || len(session) > 128 {
		return nil, errors.New("session-bind: cut short or damaged")
	}
	key, err := ssh.ParsePublicKey(host)
	if err != nil {
		return nil, errors.New("session-bind: a host key that can't be read")
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(signature, &sig); err != nil || len(sig.Rest) > 0 {
		return nil, errors.New("session-bind: a signature that can't be read")
	}
	plain := key
	if cert, ok := key.(*ssh.Certificate); ok {
		plain = cert.Key
	}
	if err := plain.Verify(session, &sig); err != nil {
		return nil, errors.New("session-bind: the host didn't sign this session")
	}
	return &binding{key, bytes.Clone(session), forwarding == 1}, nil
}

// bindings are a connection's, the latest last. attempted stays true where one
// couldn't be taken: nothing is known then of who asks.
type bindings struct {
	list      []*binding
	attempted bool
}

func (b *bindings) add(contents []byte) error {
	b.attempted = true
	next, err := readBinding(contents)
	if err != nil {
		return err
	}
	for _, old := range b.list {
		switch {
		case !old.forwarding:
			return errors.New("session-bind: the connection is bound to a session that isn't handed on")
		case !bytes.Equal(old.session, next.session):
		case !bytes.Equal(old.host.Marshal(), next.host.Marshal()):
			return errors.New("session-bind: one session with two host keys")
		default:
			return nil // said before
		}
	}
	if len(b.list) == maxBindings {
		return errors.New("session-bind: too many sessions on one connection")
	}
	b.list = append(b.list, next)
	return nil
}

// forwarded reports whether whoever asks may be on the other side of a session,
// and the host where the connection left this machine.
func (b *bindings) forwarded() (through ssh.PublicKey, ok bool) {
	for _, l := range b.list {
		if l.forwarding {
			return l.host, true
		}
	}
	return nil, b.attempted && len(b.list) == 0
}

// allow says why a request doesn't belong to the session that the connection is
// bound to. One that is bound to none belongs to any.
func (b *bindings) allow(r *Request) error {
	if r.Namespace != "" || len(b.list) == 0 {
		return nil
	}
	last := b.list[len(b.list)-1]
	switch {
	case last.forwarding:
		return errors.New("the connection was handed on to another host, and that one's ssh didn't say where it goes")
	case !bytes.Equal(last.session, r.SessionID):
		return errors.New("the request is of another session than the one that the connection is bound to")
	case r.Host != nil && !bytes.Equal(last.host.Marshal(), r.Host.Marshal()):
		return errors.New("the request names another host than the one that the connection is bound to")
	}
	if r.Host == nil {
		r.Host = last.host // for people to see; the session's binding vouches for it
	}
	return nil
}

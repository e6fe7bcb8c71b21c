// Package sshagent is an ssh-agent for keys on security keys: it lists them
// with their certificates, signs by touch, and passes all else on to the
// user's own agent.
//
// A key that also answers the CA's challenges must not sign what a stranger
// chose, so the agent signs two things only, and looks at every byte of them
// before the card is opened: requests of SSH user authentication ([Parse], RFC
// 4252 section 7, and PROTOCOL section 3.1 of OpenSSH for those that name the
// host), and SSHSIGs (PROTOCOL.sshsig) outside our own namespaces. The
// hashes are those that SSH uses for the key; the challenges use others
// (internal/yubikey, challenge.go).
//
// The card is opened for one signature and closed again. A PIN is kept in memory
// where the key's policy is to ask for it once, until the agent is locked or
// ends, or a time has passed; where it is to ask always, it isn't kept.
//
// Clients of the socket are any program of the user, and through a forwarded
// agent anyone who is root on the other side: messages, connections and times are
// bounded, and what comes through a forwarded connection is refused unless the
// user said otherwise (PROTOCOL.agent section 1 tells which are).
//
// It may import the standard library, golang.org/x/crypto, and this project's
// yubikey and sshca. Sources: draft-ietf-sshm-ssh-agent (the protocol), OpenSSH's
// PROTOCOL.agent, PROTOCOL and PROTOCOL.sshsig; RFC 4251 section 5 (encoding),
// RFC 4252 section 7, RFC 5656, RFC 8332.
package sshagent

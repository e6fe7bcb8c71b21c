package login

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// The places for SSH certificates that are login's own, in held.json.
const (
	inAgent = "ssh-agent"       // in the user's agent, with its key
	inOurs  = "ssh-certificate" // where `chancery ssh agent` looks
)

// placeSSH puts an SSH certificate into "agent" or "files".
func (r *run) placeSSH(into string, a *attempt) (place.Placed, error) {
	switch {
	case into == "agent" && a.key != nil:
		return addToAgent(a.want.Name, a)
	case into == "agent":
		return r.State.beside(a) // the key is in the device, where the user's agent can't sign
	case into == "files":
		return place.PutSSH(r.Places, place.SSHPair{Name: a.want.Name, Certificate: []byte(a.line), Key: a.key})
	}
	return place.Placed{}, fmt.Errorf("an SSH certificate goes into agent or files, not into %q", into)
}

// beside puts the certificate of a device's key where `chancery ssh agent` finds
// it, with the public key as ssh-keygen names the files.
func (s State) beside(a *attempt) (place.Placed, error) {
	name := a.want.Name
	placed := place.Placed{Target: inOurs, Name: name, Serial: a.serial}
	parsed, err := ssh.ParsePublicKey(a.wire)
	if err != nil {
		return placed, err
	}
	public, err := sshca.KeyLine(parsed.(*ssh.Certificate).Key, "chancery "+name)
	if err != nil {
		return placed, err
	}
	base := filepath.Join(s.runtimeDir(), "ssh", name)
	for _, f := range [][2]string{{base + ".pub", public}, {base + "-cert.pub", a.line}} {
		if err := writeFile(f[0], []byte(f[1])); err != nil {
			return placed, err
		}
		placed.Where = append(placed.Where, f[0])
	}
	return placed, nil
}

// addToAgent hands key and certificate to the user's ssh-agent, which forgets
// them when the certificate ends.
func addToAgent(name string, a *attempt) (place.Placed, error) {
	parsed, err := ssh.ParsePublicKey(a.wire)
	if err != nil {
		return place.Placed{}, err
	}
	life := time.Until(a.notAfter).Truncate(time.Second)
	if life < time.Second {
		return place.Placed{}, errors.New("the certificate has ended already")
	}
	err = withAgent(func(c agent.ExtendedAgent) error {
		return c.Add(agent.AddedKey{
			PrivateKey: a.key, Certificate: parsed.(*ssh.Certificate),
			Comment: "chancery " + name, LifetimeSecs: uint32(life / time.Second),
		})
	})
	if err != nil {
		return place.Placed{}, err
	}
	return place.Placed{Target: inAgent, Name: name, Where: []string{base64.StdEncoding.EncodeToString(a.wire)}, Serial: a.serial}, nil
}

// agentPatience bounds a talk with the agent, which may ask its user.
const agentPatience = time.Minute

// withAgent calls the user's ssh-agent.
func withAgent(do func(agent.ExtendedAgent) error) error {
	conn, err := dialAgent()
	if err != nil {
		return fmt.Errorf("no ssh-agent answers (%w): start one (eval $(ssh-agent)), or put the certificate into files", err)
	}
	defer conn.Close()
	stuck := time.AfterFunc(agentPatience, func() { conn.Close() })
	defer stuck.Stop()
	if err := do(agent.NewClient(conn)); err != nil {
		return fmt.Errorf("ssh-agent: %w", err)
	}
	return nil
}

// removeFromAgent takes keys out of the user's agent. What is gone already is no
// error.
func removeFromAgent(p place.Placed) error {
	if !agentThere() {
		return nil // and its keys are gone with it
	}
	return withAgent(func(c agent.ExtendedAgent) error {
		for _, text := range p.Where {
			i, err := inAgentNow(c, text)
			if err != nil {
				return err
			}
			if i == nil {
				continue
			}
			if err := c.Remove(i); err != nil {
				return err
			}
		}
		return nil
	})
}

// inAgentNow finds a key by its bytes; nil: it isn't there.
func inAgentNow(c agent.ExtendedAgent, text string) (*agent.Key, error) {
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	keys, err := c.List()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if string(k.Blob) == string(blob) {
			return k, nil
		}
	}
	return nil, nil
}

func removeFiles(names []string) error {
	var errs []error
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// places finds the places for TLS certificates, and takes away from all.
type places struct {
	place.Options
	slot place.Slot
}

func (p places) named(name string) (place.Target, error) {
	o := p.Options
	o.Slot = p.slot
	return place.Named(name, o)
}

// remove takes a certificate away from one place.
func (p places) remove(ctx context.Context, placed place.Placed) error {
	switch placed.Target {
	case inAgent:
		return removeFromAgent(placed)
	case inOurs:
		for _, name := range placed.Where { // they come from a file
			if !strings.HasSuffix(name, ".pub") || filepath.Base(filepath.Dir(name)) != "ssh" {
				return fmt.Errorf("%s isn't where a certificate is put: it is left alone", name)
			}
		}
		return removeFiles(placed.Where)
	}
	t, err := p.named(placed.Target)
	if err != nil {
		return err
	}
	return t.Remove(ctx, placed)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// secretFlags say where the password or the PIN of a key comes from.
type secretFlags struct {
	PINFile      string `name:"pin-file" help:"A file with the token's PIN (mode 0600); asked on the terminal unless given." placeholder:"FILE"`
	PasswordFile string `help:"A file with the password of an encrypted key file (mode 0600); asked on the terminal unless given." placeholder:"FILE"`
}

func (s secretFlags) key(uri string, cards *yubikey.Cards) ceremony.Key {
	return ceremony.Key{URI: uri, PINFile: s.PINFile, PasswordFile: s.PasswordFile, Cards: cards, Ask: askSecret}
}

// parentFlags name the CA that certifies. Their names begin with "parent".
type parentFlags struct {
	Parent string      `help:"The certificate of the CA that signs." placeholder:"FILE"`
	Key    string      `name:"parent-key" help:"Its key, as a URI." placeholder:"URI"`
	Secret secretFlags `embed:"" prefix:"parent-"`
}

func (p parentFlags) parent(cards *yubikey.Cards) ceremony.Parent {
	return ceremony.Parent{Certificate: p.Parent, Key: p.Secret.key(p.Key, cards)}
}

// given says what is missing.
func (p parentFlags) given() error {
	if p.Parent == "" || p.Key == "" {
		return usageError("missing flags: --parent=FILE and --parent-key=URI say who signs")
	}
	return nil
}

// usageError is a mistake on the command line.
type usageError string

func (u usageError) Error() string { return string(u) }

// errNoTerminal is askSecret's answer where nobody can type.
var errNoTerminal = errors.New("there is no terminal to ask on: name a file with --pin-file or --password-file")

// askSecret asks for a secret on the terminal, which doesn't show it.
func askSecret(ctx context.Context, what string) ([]byte, error) {
	t, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer t.Close()
	secret, err := t.readHidden(ctx, what+": ")
	if err == nil && len(secret) == 0 {
		err = errors.New("nothing was typed")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return secret, nil
}

// confirm asks a yes or no on the terminal; only "yes" is one.
func confirm(ctx context.Context, question string) error {
	t, err := openTerminal()
	if err != nil {
		return errors.New("there is no terminal to ask on: look at what is signed, then say --yes")
	}
	defer t.Close()
	answer, err := t.read(ctx, question+" Type yes to sign: ")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(answer)) != "yes" {
		return errors.New("not signed")
	}
	return nil
}

package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

type keyCommand struct {
	Generate keyGenerateCommand `cmd:"" help:"Make a key in a file or on a token."`
	Show     keyShowCommand     `cmd:"" help:"Say what is known of keys."`
}

// generateFlags say what key is made.
type generateFlags struct {
	Type              string `help:"What key: P-256, P-384, P-521, Ed25519, RSA-2048, RSA-3072 or RSA-4096, as far as the token has it." default:"P-256" enum:"P-256,P-384,P-521,Ed25519,RSA-2048,RSA-3072,RSA-4096"`
	Attestation       string `help:"YubiKey: a file for its evidence that it made the key and keeps it." placeholder:"FILE"`
	ManagementKeyFile string `help:"YubiKey: a file with its management key in hex (mode 0600); the one it keeps under its PIN, or the factory's, unless given." placeholder:"FILE"`
	PINPolicy         string `name:"pin-policy" help:"YubiKey: when it asks for the PIN: never, once (a session) or always; once unless given." enum:",never,once,always" default:""`
	TouchPolicy       string `help:"YubiKey: when it wants to be touched: never, always or cached; never unless given, as a server has no finger." enum:",never,always,cached" default:""`
}

func (g generateFlags) generation() ceremony.Generation {
	return ceremony.Generation{
		Type: cert.KeyType(g.Type), ManagementKeyFile: g.ManagementKeyFile, PINPolicy: g.PINPolicy, TouchPolicy: g.TouchPolicy,
		Attestation: g.Attestation,
	}
}

type keyGenerateCommand struct {
	URI string `arg:"" help:"Where: file:ca/servers.key, pkcs11:token=ca;object=servers?module-path=/usr/lib/…/module.so, yubikey:serial=12345678;slot=9c." placeholder:"URI"`
	secretFlags
	generateFlags
	Destroy bool `name:"destroy-present-key" help:"YubiKey: replace the key that the slot holds, which is lost for good."`
}

func (k *keyGenerateCommand) Run(ctx context.Context, c console) error {
	g := k.generation()
	g.Overwrite = k.Destroy
	key, err := k.key(k.URI, new(yubikey.Cards)).Generate(ctx, g)
	if err != nil {
		return err
	}
	defer ceremony.Close(key)
	facts, err := ceremony.Facts(k.URI, key)
	if err != nil {
		return err
	}
	if k.Attestation != "" {
		fmt.Fprintf(c.err, "wrote the attestation to %s: keep it as evidence\n", k.Attestation)
	}
	return printKey(c.out, facts)
}

func printKey(w io.Writer, f ceremony.KeyFacts) error {
	_, err := fmt.Fprintf(w, "%s\n  type         %s\n  key id       %s\n  fingerprint  %s\n", f.URI, f.Type, f.KeyID, f.Fingerprint)
	if err == nil && f.Token != "" {
		_, err = fmt.Fprintf(w, "  token        %s\n", f.Token)
	}
	return err
}

type keyShowCommand struct {
	URIs []string `arg:"" name:"uri" help:"The keys." placeholder:"URI"`
	secretFlags
	JSON bool `name:"json" help:"Print JSON." xor:"form"`
	SSH  bool `name:"ssh" help:"Print each public key as SSH writes it, for an SSH issuer's public_key." xor:"form"`
}

func (k *keyShowCommand) Run(ctx context.Context, c console) error {
	cards := new(yubikey.Cards)
	var all []ceremony.KeyFacts
	for _, uri := range k.URIs {
		key, err := k.forKind(uri).key(uri, cards).Open(ctx)
		if err != nil {
			return err
		}
		facts, err := ceremony.Facts(uri, key)
		ceremony.Close(key)
		if err != nil {
			return err
		}
		if k.SSH {
			line, err := ceremony.SSHLine(key.Public(), "")
			if err != nil {
				return err
			}
			fmt.Fprint(c.out, line)
			continue
		}
		if all = append(all, facts); k.JSON {
			continue
		}
		if err := printKey(c.out, facts); err != nil {
			return err
		}
	}
	if k.JSON {
		return printJSON(c.out, all)
	}
	return nil
}

// forKind leaves of the files the one that goes with the URI, where keys of
// several kinds are named.
func (s secretFlags) forKind(uri string) secretFlags {
	if ceremony.InFile(uri) {
		s.PINFile = ""
	} else {
		s.PasswordFile = ""
	}
	return s
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// ownKeyFlags name the key that a CA command is about.
type ownKeyFlags struct {
	Key string `help:"The CA's key, as a URI." required:"" placeholder:"URI"`
	secretFlags
	Generate bool `help:"Make the key first."`
	generateFlags
}

// AfterApply refuses what would be ignored; kong calls it.
func (o *ownKeyFlags) AfterApply() error {
	g := o.generateFlags
	if g.Type = ""; !o.Generate && g != (generateFlags{}) {
		return errors.New("--attestation, --management-key-file, --pin-policy and --touch-policy go with --generate")
	}
	return nil
}

// source opens the key, or makes it where that is asked for.
func (o ownKeyFlags) source(cards *yubikey.Cards) ceremony.Source {
	return func(ctx context.Context) (crypto.Signer, error) {
		if !o.Generate {
			return o.key(o.Key, cards).Open(ctx)
		}
		return o.key(o.Key, cards).Generate(ctx, o.generation())
	}
}

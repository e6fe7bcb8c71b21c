package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"

	"github.com/chancery-pki/chancery/internal/setup"
)

type demoCommand struct {
	Listen   string   `help:"Address of the server; 127.0.0.1:4430 or any free port unless given." placeholder:"ADDR"`
	Dir      string   `help:"Folder for the CA; a temporary one, removed at the end, unless given." placeholder:"DIR"`
	Database string   `help:"PostgreSQL instead of SQLite, as postgres://…" placeholder:"DSN"`
	HTTPPort int      `name:"http-port" help:"Where http-01 connects; 5002 or any free port unless given." placeholder:"PORT"`
	TLSPort  int      `name:"tls-port" help:"Where tls-alpn-01 connects; 5001 or any free port unless given." placeholder:"PORT"`
	Resolver string   `help:"DNS server for validation; one that answers every name with 127.0.0.1 unless given." placeholder:"ADDR"`
	Allow    []string `help:"Network that validation may reach; loopback unless given." placeholder:"CIDR"`
	JSON     bool     `name:"json" help:"Print one line of JSON when ready, and nothing else."`
	Once     bool     `help:"End after the transcript."`
	Log      string   `help:"Log level of the server: debug, info, warn or error." default:"warn" enum:"debug,info,warn,error"`
}

func (d *demoCommand) Run(ctx context.Context, c console) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.Log)); err != nil {
		return err
	}
	return setup.Demo{
		Listen: d.Listen, Dir: d.Dir, Database: d.Database, HTTPPort: d.HTTPPort, TLSPort: d.TLSPort, Resolver: d.Resolver,
		Allow: d.Allow, JSON: d.JSON, Once: d.Once, Out: c.out, Version: version(),
		Logger: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level})),
	}.Run(ctx)
}

type initCommand struct {
	Dir              string `arg:"" help:"The folder to make the CA in." placeholder:"DIR"`
	Name             string `help:"What the CA is called, as in \"Example\"." required:""`
	DNS              string `name:"dns" help:"The server's own name, as in ca.internal; it issues for names in the same domain." required:""`
	KeyType          string `help:"Keys of the CAs: ecdsa, rsa for the few that know no ECDSA chain, or both side by side." default:"ecdsa" enum:"ecdsa,rsa,both"`
	RootCert         string `help:"A root certificate to use instead of a new one." placeholder:"FILE"`
	RootKey          string `help:"The key of that root." placeholder:"FILE"`
	RootPasswordFile string `help:"A file with the password of the root's key; for a new root a passphrase is made up and printed unless given." placeholder:"FILE"`
	Kubernetes       string `help:"The server is to run in the Kubernetes cluster with this domain, and certifies its pods (deploy/kubernetes)." placeholder:"cluster.local"`
	SSH              bool   `name:"ssh" help:"Make SSH CA keys for users and hosts, and a directory for people with YubiKeys."`
	Constrain        bool   `help:"Let the issuing CAs name only what lies in the server's domain (name constraints)."`
}

func (i *initCommand) Run(ctx context.Context, c console) error {
	in := setup.Init{
		Dir: i.Dir, Name: i.Name, DNS: i.DNS, KeyType: setup.KeyChoice(i.KeyType),
		RootCert: i.RootCert, RootKey: i.RootKey, Kubernetes: i.Kubernetes, SSH: i.SSH, Constrain: i.Constrain,
	}
	if i.RootPasswordFile != "" {
		password, err := os.ReadFile(i.RootPasswordFile)
		if err != nil {
			return err
		}
		in.RootPassword = bytes.TrimRight(password, "\r\n")
	}
	made, err := in.Run(ctx)
	if err != nil {
		return err
	}
	made.Explain(c.out, in)
	return nil
}

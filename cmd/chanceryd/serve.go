package main

import (
	"context"
	"fmt"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
)

// configArg is the configuration file, which most commands take.
type configArg struct {
	Config string `arg:"" help:"The configuration file." default:"/etc/chancery/chancery.yaml" placeholder:"FILE"`
}

// load reads the file and refuses what Check finds; warnings go to standard
// error.
func (a configArg) load(c console) (*config.Config, error) {
	loaded, err := config.Load(a.Config)
	if err != nil {
		return nil, err
	}
	found := config.Check(loaded)
	if bad := found.Errors(); len(bad) > 0 {
		return nil, bad
	}
	for _, w := range found {
		fmt.Fprintln(c.err, w.Error())
	}
	return loaded, nil
}

type serveCommand struct {
	configArg
	PublishOnly bool `help:"Open no keys and issue nothing: serve OCSP responses, CRLs and issuer certificates from the shared database, near those who ask."`
}

func (s *serveCommand) Run(ctx context.Context, c console) error {
	loaded, err := s.load(c)
	if err != nil {
		return err
	}
	return server.Run(ctx, server.Options{
		Config: loaded, Version: version(), Logger: logger(c.err, loaded.Log), PublishOnly: s.PublishOnly,
		Reload: func() (*config.Config, error) { return s.load(c) },
	})
}

type checkCommand struct {
	configArg
	PublishOnly bool `help:"Check it for serve --publish-only, which opens no keys."`
}

func (s *checkCommand) Run(ctx context.Context, c console) error {
	loaded, err := s.load(c)
	if err != nil {
		return err
	}
	warn := func(err error) { fmt.Fprintf(c.err, "warning: %v\n", err) }
	if err := server.Check(ctx, loaded, s.PublishOnly, warn); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s is in order\n", s.Config)
	return err
}

type bundleCommand struct {
	Roots string `arg:"" help:"The file with this CA's roots, roots.pem beside the configuration." placeholder:"FILE"`
}

func (b *bundleCommand) Run(c console) error { return setup.TrustBundle(c.out, b.Roots) }

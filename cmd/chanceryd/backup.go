package main

import (
	"context"
	"fmt"

	"github.com/chancery-pki/chancery/internal/setup"
)

type backupCommand struct {
	configArg
	Out string `short:"o" required:"" help:"The file to write; it must not be there yet." placeholder:"FILE"`
}

func (b *backupCommand) Run(ctx context.Context, c console) error {
	loaded, err := b.load(c)
	if err != nil {
		return err
	}
	size, err := setup.Backup(ctx, loaded, b.Out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "wrote %s, %d bytes; keys and configuration are not in it\n", b.Out, size)
	return err
}

type restoreCommand struct {
	configArg
	From string `name:"from" required:"" help:"The backup." placeholder:"FILE"`
}

func (r *restoreCommand) Run(ctx context.Context, c console) error {
	loaded, err := r.load(c)
	if err != nil {
		return err
	}
	report, err := setup.Restore(ctx, loaded, r.From)
	if err != nil {
		return err
	}
	report.Print(c.out)
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/api"
)

type revokeCommand struct {
	fleetFlags `embed:""`
	Person     string `required:"" help:"Whose devices' certificates, TLS and SSH, are revoked. The devices stay: retire them, or call them lost."`
	Reason     string `help:"Why, as for admin certs revoke." enum:"unspecified,keyCompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn" default:"unspecified"`
}

func (c *revokeCommand) Run(ctx context.Context, fl *fleet, f format, w output) error {
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Withdrawn, error) {
		return ca.RevokePerson(ctx, c.Person, api.Revocation{Reason: reasons[c.Reason]})
	})
	if err != nil {
		return err
	}
	return withdrawals(w, f, all, "done")
}

// withdrawals shows what was revoked at each CA, and what can't be.
func withdrawals(w output, f format, all []outcome[api.Withdrawn], done string) error {
	failed := report(w, f, all, done, func(a api.Withdrawn) string {
		what := fmt.Sprintf("%d certificates revoked", len(a.Revoked))
		if len(a.Revoked) == 1 {
			what = "1 certificate revoked"
		}
		if len(a.Devices) > 0 {
			var names []string
			for _, d := range a.Devices {
				names = append(names, deviceName(d))
			}
			what = strings.Join(names, ", ") + "; " + what
		}
		if n := len(a.Irrevocable); n > 0 {
			what += fmt.Sprintf("; %d can't be", n)
		}
		return what
	})
	if f.json || !slices.ContainsFunc(all, func(o outcome[api.Withdrawn]) bool { return o.Answer != nil && len(o.Answer.Irrevocable) > 0 }) {
		return failed
	}
	fmt.Fprintln(w, "\nNobody can revoke these; relying parties take them until they end:")
	err := f.show(w, nil, "CA SERIAL PROFILE NAMES GOOD-UNTIL", func(add func(...any)) {
		for _, o := range all {
			if o.Answer == nil {
				continue
			}
			for _, c := range o.Answer.Irrevocable {
				add(o.CA, c.Serial, c.Profile, strings.Join(c.Names, ","), day(c.NotAfter))
			}
		}
	})
	return errors.Join(err, failed)
}

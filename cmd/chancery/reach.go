package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/login/pin"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// reachFlags say which CAs' admin APIs an operator's verb calls, and as whom.
type reachFlags struct {
	Socket      string `help:"One CA's admin API in place of the settings' CAs: its socket, or https://HOST:PORT." aliases:"admin" env:"CHANCERY_ADMIN" placeholder:"ADDRESS"`
	Config      string `help:"The settings; ~/.config/chancery/config.yaml, else /etc/chancery/client.yaml, unless given." placeholder:"FILE"`
	Roots       string `help:"With --socket https://… or enroll --directory: a PEM file of the CA's roots; the system's unless given." placeholder:"FILE"`
	Certificate string `name:"operator-certificate" help:"The operator's certificate (PEM); the settings' unless given." placeholder:"FILE"`
	Key         string `name:"operator-key" help:"Its key: a PEM file (mode 0600) or a yubikey: URI; the settings' unless given." placeholder:"KEY"`
	PINStdin    bool   `name:"pin-stdin" help:"Read the PIN from standard input, one line, in place of asking."`
	JSON        bool   `name:"json" help:"Print JSON, for machines."`
}

// fleetFlags are those of verbs that reach all CAs.
type fleetFlags struct {
	reachFlags `embed:""`
	CA         []string `name:"ca" help:"Only these CAs of the settings." placeholder:"NAME"`
}

// AfterApply hands the CAs and the format to the verb's Run.
func (c *fleetFlags) AfterApply(ctx *kong.Context, n notices, end *ending) error {
	f := newFleet(c.reachFlags, c.CA, n)
	end.defers(f.close)
	ctx.Bind(f, format{c.JSON})
	return nil
}

// usualSocket is where a server's package puts its admin socket.
const usualSocket = "/run/chancery/admin.sock"

// fleet are the CAs of one command line. They are found at the first use, so
// that help and usage need none.
type fleet struct {
	flags    reachFlags
	names    []string // only these of the settings
	cards    *yubikey.Cards
	notices  notices
	piped    string // whose PIN standard input gave
	operator *client.Operator
	found    []target
}

// target is one CA.
type target struct {
	name string
	*client.Client
}

func newFleet(flags reachFlags, names []string, n notices) *fleet {
	return &fleet{flags: flags, names: names, cards: &yubikey.Cards{Person: true}, notices: n}
}

// close lets go of connections and of the operator's card.
func (f *fleet) close() {
	for _, t := range f.found {
		t.Close()
	}
	_ = f.operator.Close() // of a card that doesn't answer any more
}

// pin asks for a card's PIN. Standard input has one, which no other card is
// shown.
func (f *fleet) pin(whose string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		if !f.flags.PINStdin {
			return pin.Ask(ctx, "PIN of "+whose)
		}
		if f.piped != "" {
			return nil, fmt.Errorf("standard input gave the PIN of %s, and that of %s is wanted too: leave out --pin-stdin", f.piped, whose)
		}
		f.piped = whose
		return pin.Read(os.Stdin)
	}
}

// tell says something while the command goes on.
func (f *fleet) tell(format string, args ...any) {
	fmt.Fprintln(f.notices, printable(fmt.Sprintf(format, args...)))
}

// all are the CAs that a verb for all of them reaches.
func (f *fleet) all() ([]target, error) {
	if f.found != nil {
		return f.found, nil
	}
	cas, operator, err := f.cas()
	if err != nil {
		return nil, err
	}
	f.operator = &client.Operator{
		Certificate: cmp.Or(f.flags.Certificate, operator.Certificate), Key: cmp.Or(f.flags.Key, operator.Key), Cards: f.cards,
		PIN:   f.pin("the operator's security key"),
		Touch: func() { f.tell("touch the operator's key now") },
	}
	for _, ca := range cas {
		roots, err := settings.Roots(ca.Roots)
		if err != nil {
			return nil, err
		}
		who := f.operator
		if ca.Operator != (settings.Operator{}) {
			who = who.At(cmp.Or(f.flags.Certificate, ca.Operator.Certificate, operator.Certificate), cmp.Or(f.flags.Key, ca.Operator.Key, operator.Key))
		}
		c, err := client.New(client.Options{Address: ca.Admin, Roots: roots, Operator: who})
		if err != nil {
			return nil, err
		}
		f.found = append(f.found, target{cmp.Or(ca.Name, ca.Admin), c})
	}
	return f.found, nil
}

// cas are those of the flags, the settings, or the one on this machine.
func (f *fleet) cas() ([]settings.CA, settings.Operator, error) {
	if f.flags.Socket != "" && len(f.names) == 0 {
		s, _ := findSettings(f.flags.Config) // for the operator; what is wrong with it doesn't matter here
		if s == nil {
			s = new(settings.Settings)
		}
		return []settings.CA{{Admin: f.flags.Socket, Roots: f.flags.Roots}}, s.Operator, nil
	}
	s, err := findSettings(f.flags.Config)
	if errors.Is(err, fs.ErrNotExist) && f.flags.Config == "" && len(f.names) == 0 {
		return []settings.CA{{Admin: usualSocket}}, settings.Operator{}, nil
	}
	if err != nil {
		return nil, settings.Operator{}, err
	}
	var cas []settings.CA
	for _, ca := range s.CAs {
		if len(f.names) == 0 && ca.Admin != "" || slices.Contains(f.names, ca.Name) {
			cas = append(cas, ca)
		}
	}
	for _, name := range f.names {
		i := slices.IndexFunc(cas, func(ca settings.CA) bool { return ca.Name == name })
		switch {
		case i < 0:
			return nil, s.Operator, fmt.Errorf("the settings know no CA called %q", name)
		case cas[i].Admin == "":
			return nil, s.Operator, fmt.Errorf("the settings don't say where the admin API of %q is: set admin there", name)
		}
	}
	if len(cas) == 0 {
		cas = []settings.CA{{Admin: usualSocket}}
	}
	return cas, s.Operator, nil
}

// findSettings reads the settings of a path, else the user's, else the
// machine's. Where there are none the error is about the user's.
func findSettings(path string) (*settings.Settings, error) {
	if path != "" {
		return settings.Load(path)
	}
	user, err := settings.Path()
	if err != nil {
		return nil, err
	}
	s, err := settings.Load(user)
	if errors.Is(err, fs.ErrNotExist) {
		if all, err := settings.Load(machine); !errors.Is(err, fs.ErrNotExist) {
			return all, err
		}
	}
	return s, err
}

// single is the one CA of verbs about what each CA has of its own.
type single struct{ *fleet }

// do calls its admin API.
func (s single) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	cas, err := s.all()
	if err != nil {
		return err
	}
	if len(cas) > 1 {
		var names []string
		for _, ca := range cas {
			names = append(names, ca.name)
		}
		return fmt.Errorf("the settings have several CAs: say --ca with one of %s", strings.Join(names, ", "))
	}
	return cas[0].Do(ctx, method, path, query, in, out)
}

// outcome is what came of a verb at one CA.
type outcome[T any] struct {
	CA      string `json:"ca"`
	Done    bool   `json:"done"`
	Already bool   `json:"already,omitzero"` // so before
	Error   string `json:"error,omitzero"`
	Answer  *T     `json:"answer,omitempty"`

	refused bool // the CA answered, and said no
}

// errAlready is what a verb returns, with the answer, where nothing was left to
// do.
var errAlready = errors.New("so already")

// each does something at every CA, one after the other: a person may have to
// touch a key for each.
func each[T any](ctx context.Context, f *fleet, do func(context.Context, target) (T, error)) ([]outcome[T], error) {
	cas, err := f.all()
	if err != nil {
		return nil, err
	}
	var all []outcome[T]
	for _, ca := range cas {
		answer, err := do(ctx, ca)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		o := outcome[T]{CA: ca.name, Done: err == nil || errors.Is(err, errAlready), Already: errors.Is(err, errAlready)}
		if o.Done {
			o.Answer = &answer
		} else {
			_, o.refused = errors.AsType[*api.Problem](err)
			o.Error = printable(err.Error())
		}
		all = append(all, o)
	}
	return all, nil
}

// result is the outcome in a word or two.
func (o outcome[T]) result(done string) string {
	switch {
	case o.Already:
		return done + " before"
	case o.Done:
		return done
	case o.refused:
		return "refused"
	}
	return "not reached"
}

// trouble says why a CA didn't do it.
func (o outcome[T]) trouble() string { return o.CA + ": " + o.result("") + ": " + o.Error }

// lag is the error where CAs lag behind: each verb is safe to say again.
func lag[T any](all []outcome[T]) error {
	var late, no []string
	for _, o := range all {
		switch {
		case o.Done:
		case o.refused:
			no = append(no, o.CA)
		default:
			late = append(late, o.CA)
		}
	}
	switch {
	case len(late)+len(no) == 0:
		return nil
	case len(all) == 1:
		return errors.New(all[0].Error)
	case len(late) == 0:
		return fmt.Errorf("refused by %s", strings.Join(no, ", "))
	}
	behind := strings.Join(late, ", ") + " lags behind: say the same again when it is reached, which is safe"
	if len(late) > 1 {
		behind = strings.Join(late, ", ") + " lag behind: say the same again when they are reached, which is safe"
	}
	if len(no) > 0 {
		behind += "; refused by " + strings.Join(no, ", ")
	}
	return errors.New(behind)
}

// report shows a change at all CAs, with what rows add, and returns who lags.
func report[T any](w output, f format, all []outcome[T], done string, detail func(T) string) error {
	if len(all) == 1 && !all[0].Done && !f.json { // the error's line says it all
		return lag(all)
	}
	err := f.show(w, all, "CA RESULT WHAT", func(add func(...any)) {
		for _, o := range all {
			what := o.Error
			if o.Answer != nil {
				what = detail(*o.Answer)
			}
			add(o.CA, o.result(done), what)
		}
	})
	return errors.Join(err, lag(all))
}

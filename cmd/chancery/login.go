package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/login/pin"
	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

type loginCommand struct {
	Only     []string      `help:"Only these certificates of the settings, by kind (tls, ssh) or name." placeholder:"tls,ssh"`
	As       []string      `help:"Only those for this name, or called so in the settings; another dns name of mine is got as the settings' first for TLS." placeholder:"NAME"`
	For      time.Duration `help:"How long they shall be good, as 30m; 16h unless the settings say otherwise."`
	CA       string        `name:"ca" help:"Only this CA of the settings." placeholder:"NAME"`
	Serial   uint32        `help:"The key's serial number, where several are plugged in."`
	Slot     string        `help:"The key's slot, as 9a."`
	PINStdin bool          `name:"pin-stdin" help:"Read the PIN from standard input, one line, in place of asking."`
	JSON     bool          `name:"json" help:"Print what is held as JSON, for machines."`
	Config   string        `help:"The settings; ~/.config/chancery/config.yaml, else /etc/chancery/client.yaml, unless given." placeholder:"FILE"`

	Directory  string   `help:"Without settings: the ACME directory's URL." placeholder:"URL"`
	Roots      string   `help:"With --directory: a PEM file of the CA's roots; the system's unless given." placeholder:"FILE"`
	Name       []string `help:"With --directory: a TLS certificate for this dns name; each costs a touch."`
	SSH        string   `name:"ssh" help:"With --directory: an SSH certificate for this person." placeholder:"PERSON"`
	Profile    string   `help:"With --directory: the TLS certificate's profile; the directory's own unless given."`
	SSHProfile string   `name:"ssh-profile" help:"With --directory: the SSH certificate's profile; ssh-user unless given."`
	Challenge  string   `help:"With --directory: yubikey-01 certifies the key in the device, yubikey-02 a new one." enum:"yubikey-01,yubikey-02" default:"yubikey-01"`
}

// Validate refuses flags that would do nothing.
func (c *loginCommand) Validate() error {
	switch {
	case c.Directory == "" && (c.Roots != "" || len(c.Name) > 0 || c.SSH != "" || c.Profile != "" || c.SSHProfile != ""):
		return errors.New("--roots, --name, --ssh and the profiles go with --directory; without it the settings say all that")
	case c.Directory != "" && (c.CA != "" || c.Config != ""):
		return errors.New("--directory is without settings: leave out --ca and --config")
	case c.Directory != "" && len(c.Name) == 0 && c.SSH == "":
		return errors.New("--directory wants --name, --ssh or both")
	case c.For < 0:
		return errors.New("--for wants a time from now on, as 30m")
	}
	return nil
}

func (c *loginCommand) Run(ctx context.Context, w output, n notices) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	state, err := stateOf()
	if err != nil {
		return err
	}
	l := &login.Login{
		CAs: s.CAs, Certificates: s.Certificates, Device: s.Device, State: state,
		Cards:  &yubikey.Cards{Person: true},
		PIN:    pin.Ask,
		Tell:   func(line string) { fmt.Fprintln(n, printable(line)) },
		Places: places(state),
	}
	if c.PINStdin {
		l.PIN = func(context.Context, string) ([]byte, error) { return pin.Read(os.Stdin) }
	}
	held, err := l.Run(ctx)
	if len(held) > 0 {
		var all []login.Standing
		for _, h := range held {
			all = append(all, login.Standing{Held: h})
		}
		if err := showHeld(w, format{c.JSON}, all); err != nil {
			return err
		}
	}
	return oneLine(err)
}

// settings are the user's, the machine's or the flags', and of them what is
// wanted.
func (c *loginCommand) settings() (*settings.Settings, error) {
	s, err := c.source()
	if err != nil {
		return nil, err
	}
	if c.Serial != 0 {
		s.Device.Serial = c.Serial
	}
	if c.Slot != "" {
		s.Device.Slot = c.Slot
	}
	if c.CA != "" {
		s.CAs = slices.DeleteFunc(s.CAs, func(ca settings.CA) bool { return ca.Name != c.CA })
		if len(s.CAs) == 0 {
			return nil, fmt.Errorf("the settings know no CA called %q", c.CA)
		}
		s.Certificates = slices.DeleteFunc(s.Certificates, func(x settings.Certificate) bool { return x.CA != "" && x.CA != c.CA })
	}
	for _, what := range c.Only {
		if !slices.ContainsFunc(s.Certificates, func(x settings.Certificate) bool { return isOnly(x, what) }) {
			return nil, fmt.Errorf("the settings have no certificate of kind or name %q", what)
		}
	}
	for _, name := range c.As {
		addAs(s, name)
		if !slices.ContainsFunc(s.Certificates, func(x settings.Certificate) bool { return isAs(x, name) }) {
			return nil, fmt.Errorf("the settings have no certificate for or called %q", name)
		}
	}
	s.Certificates = slices.DeleteFunc(s.Certificates, func(x settings.Certificate) bool {
		return len(c.Only) > 0 && !slices.ContainsFunc(c.Only, func(what string) bool { return isOnly(x, what) }) ||
			len(c.As) > 0 && !slices.ContainsFunc(c.As, func(name string) bool { return isAs(x, name) })
	})
	if c.For != 0 {
		for i := range s.Certificates {
			s.Certificates[i].For = settings.Duration(c.For)
		}
	}
	return s, nil
}

func isOnly(c settings.Certificate, what string) bool {
	return string(c.Kind) == what || c.Name == what
}

func isAs(c settings.Certificate, name string) bool {
	return c.Name == name || slices.Contains(c.Identifiers, name)
}

// addAs makes a wanted certificate of a name that the settings don't have: as
// their first for TLS, called by the name.
func addAs(s *settings.Settings, name string) {
	if !strings.Contains(name, ".") || slices.ContainsFunc(s.Certificates, func(c settings.Certificate) bool { return isAs(c, name) }) {
		return
	}
	if i := slices.IndexFunc(s.Certificates, func(c settings.Certificate) bool { return c.Kind == settings.TLS }); i >= 0 {
		another := s.Certificates[i]
		another.Name, another.Identifiers = name, []string{name}
		s.Certificates = append(s.Certificates, another)
	}
}

// machine is where a machine's settings are, for all its users.
const machine = "/etc/chancery/client.yaml"

func (c *loginCommand) source() (*settings.Settings, error) {
	if c.Directory != "" {
		return c.flags(), nil
	}
	s, err := findSettings(c.Config)
	if missing, ok := errors.AsType[*fs.PathError](err); ok && c.Config == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no settings at %s: chancery devices enroll writes them, or give --directory", missing.Path)
	}
	return s, err
}

// flags are settings for once.
func (c *loginCommand) flags() *settings.Settings {
	s := &settings.Settings{CAs: []settings.CA{{Directory: c.Directory, Roots: c.Roots}}}
	challenge := protocol.ChallengeType(c.Challenge)
	if len(c.Name) > 0 {
		s.Certificates = append(s.Certificates, settings.Certificate{Name: "tls", Kind: settings.TLS, Profile: c.Profile, Identifiers: c.Name, Challenge: challenge})
	}
	if c.SSH != "" {
		s.Certificates = append(s.Certificates, settings.Certificate{Name: "ssh", Kind: settings.SSH, Profile: c.SSHProfile, Identifiers: []string{c.SSH}, Challenge: challenge})
	}
	return s
}

func stateOf() (login.State, error) {
	dir, err := login.StateDir()
	return login.State{Dir: dir}, err
}

// places is this machine and its user, as the environment tells.
func places(state login.State) place.Options {
	home, _ := os.UserHomeDir() // place says what to do where there is none
	return place.Options{
		Home: home, StateDir: filepath.Dir(state.Dir), RuntimeDir: os.Getenv("XDG_RUNTIME_DIR"),
		ConfigDir: os.Getenv("XDG_CONFIG_HOME"), DataDir: os.Getenv("XDG_DATA_HOME"),
	}
}

type heldCommand struct {
	JSON bool `name:"json" help:"Print JSON, for machines."`
}

func (c *heldCommand) Run(w output) error {
	state, err := stateOf()
	if err != nil {
		return err
	}
	all, err := state.Look()
	if err != nil {
		return err
	}
	if len(all) > 0 || c.JSON {
		if err := showHeld(w, format{c.JSON}, all); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(all, func(s login.Standing) bool { return s.Trouble == "" }) {
		return errors.New("nothing valid is held: chancery login gets it")
	}
	return nil
}

// held is a certificate for people and machines: without the account's key.
type held struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	For       string    `json:"for"`
	CA        string    `json:"ca"`
	Challenge string    `json:"challenge"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Where     string    `json:"where"`
	Files     []string  `json:"files,omitempty"`
	Trouble   string    `json:"trouble,omitempty"`
}

func showHeld(w output, f format, standing []login.Standing) error {
	all := []held{}
	for _, s := range standing {
		h := held{s.Name, string(s.Kind), s.For, s.CA.Name, string(s.Challenge), s.Serial, s.NotBefore, s.NotAfter, s.Where(), nil, s.Trouble}
		for _, p := range s.Placed {
			for _, where := range p.Where {
				if filepath.IsAbs(where) {
					h.Files = append(h.Files, where)
				}
			}
		}
		all = append(all, h)
	}
	return f.show(w, all, "NAME KIND FOR CA UNTIL LEFT WHERE", func(add func(...any)) {
		for _, h := range all {
			left := "expired"
			if d := time.Until(h.NotAfter); d > 0 {
				left = span(d)
			}
			where := h.Where
			if h.Trouble != "" {
				where = h.Trouble
			}
			add(h.Name, h.Kind, h.For, h.CA, h.NotAfter.Local().Format("2006-01-02 15:04"), left, where)
		}
	})
}

// span is a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "under 1 min"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

type logoutCommand struct {
	Revoke bool `help:"Have the CAs revoke the certificates, too."`
	JSON   bool `name:"json" help:"Print what was taken away as JSON, for machines."`
}

func (c *logoutCommand) Run(ctx context.Context, w output, n notices) error {
	state, err := stateOf()
	if err != nil {
		return err
	}
	gone, err := login.Logout{
		State: state, Places: places(state), Cards: &yubikey.Cards{Person: true}, PIN: pin.Ask, Revoke: c.Revoke,
		Tell: func(line string) { fmt.Fprintln(n, printable(line)) },
	}.Run(ctx)
	if c.JSON {
		names := []string{}
		for _, h := range gone {
			names = append(names, h.Name)
		}
		return errors.Join(format{true}.show(w, map[string][]string{"gone": names}, "", nil), oneLine(err))
	}
	if err == nil && len(gone) == 0 {
		_, err = io.WriteString(w, "nothing is held\n")
		return err
	}
	for _, h := range gone {
		fmt.Fprintf(w, "%s (%s for %s) is gone\n", h.Name, h.Kind, h.For)
	}
	return oneLine(err)
}

// printable keeps what servers said from talking to the terminal.
func printable(s string) string { return strings.Map(plain, strings.ReplaceAll(s, "\n", "; ")) }

// oneLine is an error on one line.
func oneLine(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "\n") {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

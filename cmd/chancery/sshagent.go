package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/login/pin"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/sshagent"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

type sshAgentCommand struct {
	Socket    string        `help:"Where it listens; agent.sock in chancery's own folder unless given." placeholder:"PATH"`
	Upstream  string        `help:"My own agent's socket, which gets all that isn't about the security keys." env:"SSH_AUTH_SOCK" placeholder:"PATH"`
	Key       []string      `help:"A slot to serve, as yubikey:serial=4711;slot=9a; the settings' device unless given." placeholder:"URI" sep:"none"`
	Config    string        `help:"The settings; ~/.config/chancery/config.yaml, else /etc/chancery/client.yaml, unless given." placeholder:"FILE"`
	Folder    string        `help:"Where certificates lie; login's folder unless given." placeholder:"DIR"`
	Forwarded bool          `help:"Let other machines ask for signatures, over ssh -A."`
	KeepPIN   time.Duration `name:"keep-pin" help:"How long the PIN is remembered where the key's policy is to ask once; 0 asks each time." default:"8h"`
	Csh       bool          `short:"c" help:"Print lines for csh in place of sh."`
	Notify    string        `help:"A command of the shell that shows CHANCERY_TEXT when a touch is wanted, as notify-send \"$CHANCERY_TEXT\"." placeholder:"COMMAND"`
	Command   []string      `arg:"" optional:"" passthrough:"" help:"A command to run with the agent, which ends with it."`
}

// Validate refuses flags that make no sense.
func (c *sshAgentCommand) Validate() error {
	if c.KeepPIN < 0 {
		return errors.New("--keep-pin wants a time, as 8h")
	}
	for _, uri := range c.Key {
		if _, err := yubikey.ParseURI(uri); err != nil {
			return err
		}
	}
	return nil
}

func (c *sshAgentCommand) Run(ctx context.Context, w output, n notices) error {
	keys, err := c.keys()
	if err != nil {
		return err
	}
	dir, err := agentDir()
	if err != nil {
		return err
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(dir, "agent.sock")
	}
	if c.Folder == "" {
		c.Folder = filepath.Join(dir, "ssh")
	}
	if c.Upstream == c.Socket { // a shell that knows this agent starts it anew
		c.Upstream = ""
	}
	l, err := sshagent.Listen(c.Socket)
	if err != nil {
		return err
	}
	agent := sshagent.New(sshagent.Options{
		Keys: keys, Card: new(sshagent.Cards), Folder: c.Folder, Upstream: c.Upstream, Forwarded: c.Forwarded, KeepPIN: c.KeepPIN,
		PIN:    func(ctx context.Context, prompt string) ([]byte, error) { return pin.Ask(ctx, printable(prompt)) },
		Tell:   c.tell(ctx, n),
		Logger: logTo(n),
	})
	if len(c.Command) == 0 {
		c.print(w)
		return agent.Serve(ctx, l)
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- agent.Serve(ctx, l) }()
	defer func() { stop(); <-ended }()
	return c.run(ctx)
}

// keys are the flags', or the settings' device, or the only one plugged in.
func (c *sshAgentCommand) keys() ([]string, error) {
	if len(c.Key) > 0 {
		return c.Key, nil
	}
	s, err := findSettings(c.Config)
	if errors.Is(err, fs.ErrNotExist) && c.Config == "" {
		s, err = new(settings.Settings), nil
	}
	if err != nil {
		return nil, err
	}
	u := yubikey.URI{Serial: s.Device.Serial, Slot: yubikey.Authentication}
	if s.Device.Slot != "" {
		if u.Slot, err = yubikey.ParseSlot(s.Device.Slot); err != nil {
			return nil, err
		}
	}
	return []string{u.String()}, nil
}

// agentDir is where login puts what the agent serves.
func agentDir() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "chancery"), nil
	}
	return login.StateDir()
}

// print says how other programs find the agent, as ssh-agent does. Then
// standard output is closed, for which eval "$(chancery ssh agent &)" waits.
func (c *sshAgentCommand) print(w output) {
	quoted := "'" + strings.ReplaceAll(c.Socket, "'", `'\''`) + "'"
	set := "%[1]s=%[2]v; export %[1]s;\n"
	if c.Csh {
		set = "setenv %s %v;\n"
	}
	fmt.Fprintf(w, set, "SSH_AUTH_SOCK", quoted)
	fmt.Fprintf(w, set, "SSH_AGENT_PID", os.Getpid())
	if f, ok := w.Writer.(*os.File); ok {
		f.Close()
	}
}

// tell shows lines on the terminal, and by the command.
func (c *sshAgentCommand) tell(ctx context.Context, n notices) func(string) {
	return func(line string) {
		fmt.Fprintln(n, printable(line))
		if c.Notify == "" {
			return
		}
		go func() { // nobody waits for a window to appear
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.Notify)
			cmd.Env = append(os.Environ(), "CHANCERY_TEXT="+printable(line))
			if err := cmd.Run(); err != nil {
				fmt.Fprintln(n, "chancery: --notify:", err)
			}
		}()
	}
}

// run runs the command, whose exit code is ours.
func (c *sshAgentCommand) run(ctx context.Context) error {
	args := c.Command
	if args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("no command behind --")
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+c.Socket)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() > 0 {
		return exitCode(e.ExitCode())
	}
	return err
}

// exitCode is the error of a command that was run and has said itself what is
// wrong.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

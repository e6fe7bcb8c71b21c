package place

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// toolTime bounds one run of another program. NSS's wait some ten seconds for a
// database that is locked; those of macOS may ask a person.
const toolTime = 2 * time.Minute

// tool runs a program to its end. It gets nothing to ask a person with but what
// its own system shows him: standard input is in, and no terminal.
func tool(ctx context.Context, env []string, in string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &out
	cmd.Env = append(os.Environ(), append(env, "LC_ALL=C")...)
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("%s: no answer within %v: %w", filepath.Base(name), toolTime, ctx.Err())
	case err != nil:
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, lastLine(out.String()))
	}
	return out.String(), err
}

// lastLine is where tools say what went wrong.
func lastLine(out string) string {
	out = strings.TrimSpace(out)
	if i := strings.LastIndexByte(out, '\n'); i >= 0 {
		out = out[i+1:]
	}
	if len(out) > 300 {
		out = out[:300]
	}
	return out
}

// Package environment reads what a workload's surroundings tell it: the
// variables CHANCERY_…, which package mtls's comment describes, the files they
// name, and the program's own name.
//
// It imports the standard library and package acme's words.
package environment

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// The variables.
const (
	Directory = "CHANCERY_DIRECTORY"
	Roots     = "CHANCERY_ROOTS"
	Names     = "CHANCERY_NAMES"
	Token     = "CHANCERY_TOKEN"
	EAB       = "CHANCERY_EAB"
)

const (
	// podToken is where our manifests mount the token.
	podToken = "/var/run/secrets/chancery/token"
	// maxFile bounds the files that variables name.
	maxFile = 64 << 10
)

// Env looks variables up; os.Getenv is one.
type Env func(string) string

// CA is a directory that the environment names.
type CA struct {
	Directory string
	Usage     string // "server", "client", "" for both
	Tier      int
	EAB       *acme.ExternalAccount
}

// CAs reads the directories, tier by tier, and their EAB keys.
func (env Env) CAs() ([]CA, error) {
	var cas []CA
	for tier, urls := range strings.Split(env(Directory), "|") {
		for _, word := range strings.Fields(urls) {
			usage, url, ok := strings.Cut(word, "=")
			if !ok || usage != "server" && usage != "client" { // a URL may have an "=", too
				usage, url = "", word
			}
			cas = append(cas, CA{Directory: url, Usage: usage, Tier: tier})
		}
	}
	file := env(EAB)
	if file == "" || len(cas) == 0 {
		return cas, nil
	}
	text, err := readSmall(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EAB, err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != len(cas) {
		return nil, fmt.Errorf("%s: %s has %d lines for %d directories of %s: there is to be one each, \"-\" for none", EAB, file, len(lines), len(cas), Directory)
	}
	for i, line := range lines {
		if cas[i].EAB, err = parseEAB(line); err != nil {
			return nil, fmt.Errorf("%s: line %d of %s: %w", EAB, i+1, file, err)
		}
	}
	return cas, nil
}

// parseEAB reads "ID MACKEY", or "-" for none.
func parseEAB(line string) (*acme.ExternalAccount, error) {
	fields := strings.Fields(line)
	if len(fields) == 1 && fields[0] == "-" {
		return nil, nil
	}
	if len(fields) != 2 {
		return nil, errors.New("that is not a key id and a MAC key with a blank between")
	}
	mac, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(fields[1], "="))
	if err != nil {
		return nil, errors.New("the MAC key is not base64url")
	}
	return &acme.ExternalAccount{KeyID: fields[0], MACKey: mac}, nil
}

// Names reads the names, none if there are none.
func (env Env) Names() []string {
	return strings.FieldsFunc(env(Names), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

// InPod reports whether the program runs in a Kubernetes pod.
func (env Env) InPod() bool { return env("KUBERNETES_SERVICE_HOST") != "" }

// Tokens returns the token file for all CAs, or one for each of n, "" for
// none.
func (env Env) Tokens(n int) (all string, each []string, err error) {
	switch files := strings.Fields(env(Token)); {
	case len(files) == 1:
		return files[0], nil, nil
	case len(files) == 0:
		if _, err := os.Stat(podToken); err == nil {
			return podToken, nil, nil
		}
		return "", nil, nil
	case len(files) != n:
		return "", nil, fmt.Errorf("%s names %d files for %d CAs: name one, or one for each, \"-\" for none", Token, len(files), n)
	default:
		for i, file := range files {
			if file == "-" {
				files[i] = ""
			}
		}
		return "", files, nil
	}
}

func readSmall(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	return string(data), err
}

// ProgramName is what a CA's operator sees of us: the binary and its version.
func ProgramName() string {
	name, version := filepath.Base(os.Args[0]), ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Path != "" {
			name = path.Base(info.Path)
		}
		version = strings.Trim(info.Main.Version, "()")
	}
	if version != "" {
		name += "/" + version
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, name)
}

package examples_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/mtlsgrpc"
)

// startDemo builds and runs the real `chanceryd demo`, and returns what its
// env file says.
func startDemo(t *testing.T) (env []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir()
	server := filepath.Join(dir, "chanceryd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", server, "./cmd/chanceryd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, server, "demo", "--listen", "127.0.0.1:0", "--dir", filepath.Join(dir, "ca"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	// The line to copy is what people go by.
	line := regexp.MustCompile(`Go +\. (\S+) && go run \./examples/http`)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := line.FindStringSubmatch(lines.Text()); m != nil {
			go func() {
				for lines.Scan() {
				}
			}()
			return readEnv(t, m[1])
		}
	}
	t.Fatal("the demo names no env file")
	return nil
}

func readEnv(t *testing.T, file string) (env []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^export (\w+)='([^']*)'$`).FindAllStringSubmatch(string(text), -1) {
		env = append(env, m[1]+"="+m[2])
	}
	return env
}

// Each example works against the demo.
func TestExamples(t *testing.T) {
	env := startDemo(t)
	for name, wants := range map[string][]string{
		"http":    {"server certificate for localhost", "good for 23h59m0s, renewed in 1", `HTTP/2.0 200 OK, "hello localhost"`, "403 Forbidden", "without a certificate is refused"},
		"grpc":    {"client certificate for localhost", "Health/Check: SERVING", "Health/List is refused", "without a certificate is refused"},
		"tcp":     {`hello localhost, you say "good day"`, "without a certificate is refused"},
		"outside": {"client certificate for outside.demo.internal", `200 OK, "hello outside.demo.internal"`},
		"signer":  {"a new key in the token", "localhost and localhost have met"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("softhsm2-util"); name == "signer" && err != nil {
				t.Fatal("this example needs SoftHSM: apt install softhsm2")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", "run", "./"+name)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					t.Errorf("it doesn't say %q: %s", want, out)
				}
			}
		})
	}
}

// A program without a demo is told what is missing.
func TestWithoutDemo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./tcp")
	cmd.Env = append(os.Environ(), "DEMO_LISTEN=")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "chanceryd demo") {
		t.Errorf("%v: %s", err, out)
	}
}

// The real CA finds its answers on the programs' own listeners, which serve
// already when the first certificate is asked for.
func TestOwnListeners(t *testing.T) {
	env := startDemo(t)
	listen := ""
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
		if name == "DEMO_LISTEN" {
			listen = value
		}
	}
	rules := acl.Allow("localhost")
	for what, serve := range map[string]func(id *mtls.Identity, l net.Listener) (stop func()){
		"net/http": func(id *mtls.Identity, l net.Listener) func() {
			srv := &http.Server{TLSConfig: id.Server(rules), ErrorLog: id.ErrorLog()}
			go srv.ServeTLS(l, "", "")
			return func() { srv.Close() }
		},
		"gRPC": func(id *mtls.Identity, l net.Listener) func() {
			srv := grpc.NewServer(mtlsgrpc.ServerOptions(id, rules)...)
			go srv.Serve(l)
			return srv.Stop
		},
		"raw TCP": func(id *mtls.Identity, l net.Listener) func() {
			addr := l.Addr().String()
			l.Close()
			ours, err := id.Listen("tcp", addr, rules)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					conn, err := ours.Accept()
					if err != nil {
						return
					}
					conn.Close()
				}
			}()
			return func() { ours.Close() }
		},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			id, err := mtls.Start(mtls.Config{Names: []string{"localhost", "127.0.0.1"}})
			if err != nil {
				t.Fatal(err)
			}
			defer id.Close()
			defer serve(id, l)()
			if err := id.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			for _, host := range []string{"localhost", "127.0.0.1"} {
				_, port, _ := net.SplitHostPort(listen)
				conn, err := id.Dial(ctx, "tcp", net.JoinHostPort(host, port))
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

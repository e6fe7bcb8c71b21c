package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/challenge/loopdns"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/server"
)

// Demo is a whole CA on loopback: made, shown in a transcript, and then left
// running for real clients. Its zero value works.
type Demo struct {
	Listen   string   // address of the ACME listener; "" is 127.0.0.1:4430, or any free port
	Dir      string   // where the CA is made; "" is a temporary folder, removed at the end
	Database string   // DSN; "" is SQLite in Dir
	HTTPPort int      // where http-01 connects; 0 is 5002, or any free port
	TLSPort  int      // where tls-alpn-01 connects; 0 is 5001, or any free port
	Resolver string   // DNS server; "" starts one that answers every name with 127.0.0.1
	Allow    []string // networks that validation may reach; none: loopback
	JSON     bool     // print one line when ready, and no transcript
	Once     bool     // end after the transcript
	Out      io.Writer
	Logger   *slog.Logger
	Version  string
}

// ready is the line that --json prints.
type ready struct {
	Directories map[string]string `json:"directories"`
	Root        string            `json:"root"`
	Admin       string            `json:"admin"`
	Metrics     string            `json:"metrics"`
	Env         string            `json:"env"` // a file for shells: what Go programs want to know
	PID         int               `json:"pid"`
}

// Run runs the demo until ctx ends, or the transcript does with Once.
func (d Demo) Run(ctx context.Context) (err error) {
	begun := time.Now()
	if d.Dir == "" {
		if d.Dir, err = os.MkdirTemp("", "chancery-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(d.Dir)
	}
	if d.Dir, err = filepath.Abs(d.Dir); err != nil {
		return err
	}
	if err := d.choosePorts(); err != nil {
		return err
	}
	if d.Resolver == "" {
		dns, err := loopdns.Start()
		if err != nil {
			return err
		}
		defer dns.Close()
		d.Resolver = dns.Addr()
	}
	made, err := d.make(ctx)
	if err != nil {
		return err
	}
	c, err := config.Load(made.Config)
	if err != nil {
		return err
	}
	if bad := config.Check(c).Errors(); len(bad) > 0 {
		return bad
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running, stopped := make(chan server.Running, 1), make(chan error, 1)
	go func() {
		stopped <- server.Run(ctx, server.Options{
			Config: c, Version: d.Version, Logger: d.Logger, Ready: func(r server.Running) { running <- r },
		})
	}()
	select {
	case err := <-stopped:
		return err
	case r := <-running:
		err = d.show(ctx, made, c, r, begun)
	}
	if err != nil || d.Once {
		stop()
	}
	return errors.Join(err, <-stopped)
}

// choosePorts settles every port that was left open, preferring the ones in
// the documentation.
func (d *Demo) choosePorts() error {
	if d.Listen == "" {
		d.Listen = freeAddress("127.0.0.1:4430")
	}
	if d.HTTPPort == 0 {
		d.HTTPPort = portOf(freeAddress("127.0.0.1:5002"))
	}
	if d.TLSPort == 0 {
		d.TLSPort = portOf(freeAddress("127.0.0.1:5001"))
	}
	host, port, err := net.SplitHostPort(d.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if port == "0" {
		d.Listen = freeAddress(net.JoinHostPort(host, "0"))
	}
	return nil
}

// freeAddress is the address itself where it is free, else one with a port
// that is.
func freeAddress(address string) string {
	l, err := net.Listen("tcp", address)
	if err != nil {
		host, _, _ := net.SplitHostPort(address)
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return address // the listener itself will say what is wrong
		}
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return n
}

// make makes the CA, or finds the one of an earlier run in the same folder.
func (d Demo) make(ctx context.Context) (*Made, error) {
	in := Init{Dir: d.Dir, Name: "Demo", DNS: "127.0.0.1"}
	if host, _, _ := net.SplitHostPort(d.Listen); host != "" && host != "0.0.0.0" && host != "::" {
		in.DNS = host
	}
	in.Overrides = func(e *config.Example) {
		e.ExternalURL, e.Listen = "https://"+net.JoinHostPort(in.DNS, strconv.Itoa(portOf(d.Listen))), d.Listen
		e.Database = "chancery.db"
		if d.Database != "" {
			e.Database = d.Database
		}
		e.AdminSocket, e.Metrics = "admin.sock", freeAddress("127.0.0.1:0")
		e.Allow, e.Wildcards = []string{"*"}, true
		e.HTTPPort, e.TLSPort, e.Resolvers = d.HTTPPort, d.TLSPort, []string{d.Resolver}
		if e.Networks = d.Allow; len(e.Networks) == 0 {
			e.Networks = []string{"127.0.0.0/8", "::1/128"}
		}
		e.NoRateLimits, e.OpenClients, e.Workloads = true, true, true
	}
	made, err := in.Run(ctx)
	if err == nil {
		return made, nil
	}
	configFile := filepath.Join(d.Dir, "chancery.yaml")
	if _, statErr := os.Stat(configFile); statErr != nil {
		return nil, err
	}
	// A demo that was started before in this folder goes on with its CA and
	// database, under today's ports.
	return d.again(in, configFile)
}

func (d Demo) again(in Init, configFile string) (*Made, error) {
	made := &Made{Config: configFile, Bundle: filepath.Join(d.Dir, "roots.pem"), Roots: []string{filepath.Join(d.Dir, "root", "root.pem")}}
	example := in.example(in.domain())
	for _, usage := range usages {
		example.Issuers = append(example.Issuers, exampleIssuer(kind{}, usage))
	}
	in.Overrides(&example)
	if err := os.Remove(configFile); err != nil {
		return nil, err
	}
	return made, writeConfig(configFile, example)
}

// show prints the transcript and the lines to try, or the JSON line.
func (d Demo) show(ctx context.Context, made *Made, c *config.Config, r server.Running, begun time.Time) error {
	line := ready{
		Directories: map[string]string{}, Root: made.Roots[0], Admin: c.Path(c.Admin.Socket),
		Metrics: "http://" + r.Metrics.String() + "/metrics", PID: os.Getpid(), Env: filepath.Join(d.Dir, "env"),
	}
	for _, name := range []string{"servers", "clients", "workloads"} {
		line.Directories[name] = c.ExternalURL + "/acme/" + name + "/directory"
	}
	if err := d.writeEnv(ctx, made, line); err != nil {
		return err
	}
	if d.JSON {
		return json.NewEncoder(d.Out).Encode(line)
	}
	s := &story{out: d.Out, demo: d, ready: line, begun: begun}
	if err := s.tell(ctx, made); err != nil {
		return err
	}
	if !d.Once {
		s.invite()
	}
	return nil
}

// outsideName is what an EAB key of the demo approves, so that a client
// without a listener gets it.
const outsideName = "outside.demo.internal"

// writeEnv writes the file that the library's examples are started with: where
// to get certificates, whom to trust, where to listen so that challenges are
// found; and for people an EAB key.
func (d Demo) writeEnv(ctx context.Context, made *Made, line ready) error {
	values := [][2]string{
		{"CHANCERY_DIRECTORY", line.Directories["workloads"]},
		{"CHANCERY_ROOTS", made.Bundle},
		{"DEMO_LISTEN", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.TLSPort))},
	}
	if !d.JSON { // programs make their own keys, and count them
		file := filepath.Join(d.Dir, "outside.eab")
		if err := writeEABKey(ctx, line.Admin, file); err != nil {
			return fmt.Errorf("an EAB key: %w", err)
		}
		values = append(values, [2]string{"DEMO_EAB", file})
	}
	var text strings.Builder
	for _, v := range values {
		fmt.Fprintf(&text, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return os.WriteFile(line.Env, []byte(text.String()), 0o600)
}

// writeEABKey makes a key that approves outsideName, for the library to read.
func writeEABKey(ctx context.Context, socket, file string) error {
	key, err := newEABKey(ctx, socket, api.NewEABKey{
		Directory: "workloads", Label: "demo", Names: []string{outsideName}, PreApproved: true, Accounts: new(int),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(key.ID+" "+key.HMACKey+"\n"), 0o600)
}

// newEABKey asks the admin API on its socket, as chancery admin does.
func newEABKey(ctx context.Context, socket string, wanted api.NewEABKey) (key api.EABKey, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(wanted)
	if err != nil {
		return key, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/v1/eab-keys", bytes.NewReader(body))
	if err != nil {
		return key, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return key, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return key, fmt.Errorf("the admin API answered %s", resp.Status)
	}
	return key, json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&key)
}

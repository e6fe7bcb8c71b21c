package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one contender, running.
type server struct {
	name       string
	directory  string
	roots      *x509.CertPool // of its own HTTPS certificate
	processes  []*process     // the first is the server itself, then what it stands on
	metrics    string         // URL, "" for none
	maxClients int            // 0 for no limit
	dataBytes  func() int64   // size of its database now; nil where it has none on disk
	emptyBytes int64          // of its database before the first certificate

	idleCommits float64 // a second

	next    int // job
	callers []*caller
}

const (
	chancerySQLite   = "chanceryd, SQLite"
	chanceryPostgres = "chanceryd, PostgreSQL"
	chanceryMillion  = "chanceryd, SQLite, filled"
	pebbleName       = "Pebble"
	stepName         = "step-ca"
	floorName        = "floor"
)

// startTime bounds how long a server may take until it answers.
const startTime = 60 * time.Second

func (s *server) pid() int { return s.processes[0].pid() }

func (s *server) cpu() time.Duration {
	var pids []int
	for _, p := range s.processes {
		pids = append(pids, p.pid())
	}
	return cpuTime(pids...)
}

// stop ends the server and returns how large it leaves its database, or 0.
// What the server itself keeps is measured once it has ended, for SQLite puts
// its write-ahead log in order then.
func (s *server) stop() (int64, error) {
	for _, c := range s.callers {
		c.wire.close()
	}
	errs := []error{s.processes[0].stop(syscall.SIGTERM)}
	var size int64
	if s.dataBytes != nil {
		size = s.dataBytes()
	}
	for _, p := range s.processes[1:] {
		errs = append(errs, p.stop(syscall.SIGINT)) // PostgreSQL's fast shutdown
	}
	return size, errors.Join(errs...)
}

// lab is what all servers share.
type lab struct {
	root      string // of the repository
	dir       string // scratch, on a disk
	answers   *answers
	authority *authority
	chanceryd string // the binary
	peers     string // folder with the peers' binaries
}

// mkdir makes a scratch folder for one server.
func (l *lab) mkdir(name string) (string, error) {
	dir := filepath.Join(l.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

// start starts a contender by name.
func (l *lab) start(ctx context.Context, name string) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var srv *server
	var err error
	switch name {
	case chancerySQLite:
		srv, err = l.startChanceryd(ctx, "sqlite", "")
	case chanceryMillion:
		srv, err = l.startChanceryd(ctx, "filled", "")
	case chanceryPostgres:
		srv, err = l.startWithPostgres(ctx)
	case pebbleName:
		srv, err = l.startPebble(ctx)
	case stepName:
		srv, err = l.startStep(ctx)
	case floorName:
		srv, err = l.startFloor(ctx)
	default:
		err = errors.New("no such server")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	srv.name = name
	return srv, nil
}

// buildChanceryd builds the server under test.
func (l *lab) buildChanceryd() error {
	l.chanceryd = filepath.Join(l.root, "bench", "bin", "chanceryd")
	return goBuild(l.root, l.chanceryd, nil, "./cmd/chanceryd")
}

// buildPeers builds Pebble and step-ca, cold in about two minutes of CPU.
// Without cgo, so that no C compiler is needed.
func (l *lab) buildPeers() error {
	l.peers = filepath.Join(l.root, "bench", "bin")
	return goBuild(filepath.Join(l.root, "bench", "peers"), l.peers+"/", []string{"CGO_ENABLED=0"},
		"github.com/letsencrypt/pebble/v2/cmd/pebble", "github.com/smallstep/certificates/cmd/step-ca")
}

func goBuild(dir, out string, env []string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", out}, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", strings.Join(packages, " "), err, text)
	}
	return nil
}

// startChanceryd starts the demo, which is the very server, and reads the
// line it prints when it is ready. Its database is empty unless the folder
// holds one already.
func (l *lab) startChanceryd(ctx context.Context, folder, dsn string) (*server, error) {
	dir, err := l.mkdir(folder)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"demo", "--json", "--log", "info", "--listen", "127.0.0.1:" + strconv.Itoa(port), "--dir", dir,
		"--http-port", strconv.Itoa(l.answers.httpPort), "--tls-port", "1",
		"--resolver", l.answers.dns, "--allow", "127.0.0.0/8"}
	if dsn != "" {
		args = append(args, "--database", dsn)
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(l.chanceryd, args...)
	cmd.Stdout = in
	p, err := start(cmd, filepath.Join(l.dir, folder+".log"))
	_ = in.Close() // the child has its own
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	var line struct {
		Directories map[string]string
		Root        string
		Metrics     string
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = out.SetReadDeadline(deadline)
	}
	text, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &line)
	}
	if err != nil {
		_ = p.stop(syscall.SIGKILL)
		return nil, fmt.Errorf("no ready line: %w; it printed %q\n%s", err, text, tail(p.log))
	}
	roots, err := readRoots(line.Root)
	if err != nil {
		_ = p.stop(syscall.SIGTERM)
		return nil, err
	}
	srv := &server{directory: line.Directories["servers"], roots: roots, processes: []*process{p}, metrics: line.Metrics}
	if dsn == "" {
		srv.dataBytes = func() int64 { return databaseBytes(dir) }
	}
	return srv, nil
}

// databaseBytes is the size that the SQLite database below a demo's folder
// has, what still waits in its write-ahead log included. The log itself is as
// long as the last busy moment made it and is used again and again.
func databaseBytes(dir string) int64 {
	file := databaseFile(dir)
	if file == "" {
		return 0
	}
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return max(info.Size(), logBytes(file+"-wal"))
}

// logBytes reads in a write-ahead log how large the database is after its last
// commit (SQLite's file format, section 4.1 and 4.2); 0 if there is no log.
func logBytes(file string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	var head [32]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return 0
	}
	page := int64(binary.BigEndian.Uint32(head[8:]))
	pages := int64(0)
	for at := int64(len(head)); ; at += 24 + page {
		var frame [24]byte
		if _, err := f.ReadAt(frame[:], at); err != nil || !bytes.Equal(frame[8:16], head[16:24]) {
			return pages * page // the salts differ: the rest is of an earlier turn
		}
		if n := binary.BigEndian.Uint32(frame[4:]); n != 0 {
			pages = int64(n)
		}
	}
}

// databaseFile finds the file by what every SQLite database starts with.
func databaseFile(dir string) string {
	found := ""
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		var magic [16]byte
		if _, err := f.Read(magic[:]); err == nil && string(magic[:]) == "SQLite format 3\x00" {
			found = path
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

package cluster

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Variable, set to 1, makes tests run against PostgreSQL too; they
// then fail, never skip, where it isn't installed.
const Variable = "CHANCERY_TEST_POSTGRES"

// bin is where Debian 12 puts PostgreSQL's programs.
const bin = "/usr/lib/postgresql/15/bin"

// Postgres is a PostgreSQL server in a temporary folder, on loopback, run by
// an ordinary user, since PostgreSQL refuses root. Make one in TestMain.
type Postgres struct {
	dir       string
	port      int
	settings  []string
	command   *exec.Cmd
	databases atomic.Int64
}

// Want reports whether tests are to use PostgreSQL.
func Want() bool { return os.Getenv(Variable) == "1" }

// Run initialises a cluster and starts a server on a free port with
// the given settings, such as "fsync=off". It takes two seconds; Stop ends it.
func Run(settings ...string) (*Postgres, error) {
	dir, err := os.MkdirTemp("", "chancery-postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, settings: settings}
	if err := p.initialise(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.Start(); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Main is a package's TestMain: it starts PostgreSQL if the tests are to use
// it, hands it to use, runs them, and ends it. Nothing there ends the machine,
// so that the disk isn't waited for. It exits the process.
func Main(m *testing.M, use func(*Postgres)) {
	if !Want() {
		os.Exit(m.Run())
	}
	p, err := Run("fsync=off", "full_page_writes=off")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	use(p)
	code := m.Run()
	if err := p.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// asPostgres makes a command run as the user postgres when we are root.
func asPostgres(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("root can't run PostgreSQL, and there is no user for it (apt-get install postgresql-15): %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

func (p *Postgres) initialise() error {
	c := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(p.dir, "data"),
		"-U", "ca", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if err := asPostgres(c); err != nil {
		return err
	}
	if cred := c.SysProcAttr.Credential; cred != nil {
		if err := os.Chown(p.dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return err
		}
	}
	c.Dir = p.dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// Start starts the server, on the same port as before after a Kill.
func (p *Postgres) Start() error {
	if p.port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		p.port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	settings := append([]string{"listen_addresses=127.0.0.1", fmt.Sprintf("port=%d", p.port), "unix_socket_directories=" + p.dir}, p.settings...)
	args := []string{"-D", filepath.Join(p.dir, "data")}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	p.command = exec.Command(filepath.Join(bin, "postgres"), args...)
	if err := asPostgres(p.command); err != nil {
		return err
	}
	var log bytes.Buffer
	p.command.Dir, p.command.Stdout, p.command.Stderr = p.dir, io.Discard, &log
	if err := p.command.Start(); err != nil {
		return err
	}
	db, err := sql.Open("pgx", p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for range 300 { // 15 s: a busy machine recovers slowly
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err = db.PingContext(ctx)
		cancel()
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.Kill()
	return fmt.Errorf("PostgreSQL didn't start: %w\n%s", err, log.String())
}

// Kill ends the server at once, as a power cut would (SIGQUIT to the
// postmaster: its children end too, and nothing is written).
func (p *Postgres) Kill() error { return p.end(syscall.SIGQUIT) }

// Stop ends the server and deletes its files.
func (p *Postgres) Stop() error {
	return errors.Join(p.end(syscall.SIGINT), os.RemoveAll(p.dir))
}

func (p *Postgres) end(signal syscall.Signal) error {
	if p.command == nil || p.command.Process == nil {
		return nil
	}
	if err := p.command.Process.Signal(signal); err != nil {
		return err
	}
	p.command.Wait() // its exit code says how it was ended, which we know
	p.command = nil
	return nil
}

func (p *Postgres) dsn(database string) string {
	return fmt.Sprintf("postgres://ca@127.0.0.1:%d/%s?sslmode=disable", p.port, database)
}

// Database makes an empty database for a test and returns its DSN.
func (p *Postgres) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", p.databases.Add(1))
	db, err := sql.Open("pgx", p.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return p.dsn(name)
}

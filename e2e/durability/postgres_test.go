package durability

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

const postgresAddr = "127.0.0.1:5432"

// postgres is a PostgreSQL server with its data in a folder.
type postgres struct {
	w   *harness.World
	dir string
	log string
	as  *syscall.Credential
	*process
}

// newPostgres makes the data and doesn't start the server.
func newPostgres(w *harness.World, dir string) *postgres {
	w.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		w.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid) // numbers on Linux
	gid, _ := strconv.Atoi(u.Gid)
	p := &postgres{w: w, dir: dir, log: w.Path("postgres.log"), as: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		w.Fatal(err)
	}
	initdb := spawn(w, w.Write("initdb.log", ""), p.as, p.bin("initdb"), "-D", p.data(), "-U", "ca", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if code := initdb.wait(time.Minute); code != 0 {
		w.Fatalf("initdb: %s", initdb.output())
	}
	w.Cleanup(func() {
		if p.process != nil {
			p.kill()
		}
		if w.Failed() {
			w.Logf("PostgreSQL's log:\n%s", tail(p.log))
		}
	})
	return p
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *postgres) bin(name string) string {
	p.w.Helper()
	return p.w.Glob("/usr/lib/postgresql/*/bin/" + name)
}

func (p *postgres) dsn() string { return "postgres://ca@" + postgresAddr + "/postgres?sslmode=disable" }

// start starts it, with settings as "name=value", and waits until it takes
// connections.
func (p *postgres) start(settings ...string) {
	p.w.Helper()
	args := []string{"-D", p.data(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	p.process = spawn(p.w, p.log, p.as, p.bin("postgres"), args...)
	until(p.w, startLimit, "PostgreSQL takes connections", func() bool {
		if p.ended() {
			p.w.Fatalf("PostgreSQL ended instead of starting\n%s", p.output())
		}
		return p.accepts()
	})
}

// accepts asks as a client would: while it recovers it refuses.
func (p *postgres) accepts() bool {
	check := spawn(p.w, p.w.Path("ready.log"), nil, p.bin("pg_isready"), "-q", "-h", "127.0.0.1", "-U", "ca")
	return check.wait(startLimit) == 0
}

// stop ends it as SIGINT does: connections are cut, the data is in order.
func (p *postgres) stop() {
	p.w.Helper()
	p.signal(os.Interrupt)
	p.wait(stopLimit)
}

// kill ends it and all its children at once.
func (p *postgres) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // the postmaster kills its children, and recovers at the next start
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.process.kill()
	}
}

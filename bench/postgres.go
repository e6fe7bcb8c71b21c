package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// postgresBin is where Debian's package postgresql-15 puts its programs.
const postgresBin = "/usr/lib/postgresql/15/bin"

// startWithPostgres starts a PostgreSQL of our own, with every setting that
// matters to durability as it comes (fsync, synchronous_commit and
// full_page_writes on), and chanceryd on it.
func (l *lab) startWithPostgres(ctx context.Context) (*server, error) {
	if _, err := os.Stat(filepath.Join(postgresBin, "postgres")); err != nil {
		return nil, errors.New("PostgreSQL is missing: apt-get install postgresql-15, or leave it out with --servers")
	}
	dir, err := l.mkdir("postgres")
	if err != nil {
		return nil, err
	}
	credential, err := ordinaryUser(dir)
	if err != nil {
		return nil, err
	}
	as := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(postgresBin, name), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := as("initdb", "-D", data, "-U", "ca", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	db, err := start(as("postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(port),
		"-c", "unix_socket_directories="+dir), filepath.Join(l.dir, "postgres.log"))
	if err != nil {
		return nil, err
	}
	query := func(sql string) (string, error) {
		out, err := exec.Command(filepath.Join(postgresBin, "psql"), "-h", "127.0.0.1", "-p", strconv.Itoa(port),
			"-U", "ca", "-d", "postgres", "-qtAXc", sql).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	err = db.ready(ctx, func() error { _, err := query("SELECT 1"); return err })
	var srv *server
	if err == nil {
		srv, err = l.startChanceryd(ctx, "on-postgres", fmt.Sprintf("postgres://ca@127.0.0.1:%d/postgres?sslmode=disable", port))
	}
	if err != nil {
		return nil, errors.Join(err, db.stop(syscall.SIGINT))
	}
	srv.processes = append(srv.processes, db)
	srv.dataBytes = func() int64 {
		out, _ := query("SELECT pg_database_size('postgres')")
		n, _ := strconv.ParseInt(out, 10, 64)
		return n
	}
	srv.emptyBytes = srv.dataBytes() // PostgreSQL's own catalogue: 7 MB
	return srv, nil
}

// ordinaryUser gives dir to the user that Debian's package made, for
// PostgreSQL refuses to run as root. Who isn't root runs it as himself.
func ordinaryUser(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

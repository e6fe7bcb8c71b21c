// Files measures what TLS costs a file server: the processor time of a
// net/http file server for each GiB it sends, in clear (where the kernel's
// sendfile copies) and over TLS 1.3. Each kind of server is a process of its
// own, and they take turns, so that a busy machine is busy for all of them.
//
//	cd bench && GOWORK=off go run ./files
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	fileSize = 256 << 20 // stays in the page cache
	fetches  = 4         // a GiB a turn
	turns    = 9
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 {
		log.Fatal(serve(os.Args[1], os.Args[2]))
	}
	if err := compare(); err != nil {
		log.Fatal(err)
	}
}

// serve is the child: it prints its address and serves the folder, by TLS if
// the kind says so, until its standard input ends.
func serve(kind, dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	// HTTP/1.1 for both: HTTP/2 has costs of its own.
	s := &http.Server{Handler: http.FileServer(http.Dir(dir)), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	if kind == "clear" {
		return s.Serve(l)
	}
	c, err := certificate()
	if err != nil {
		return err
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS13}
	return s.ServeTLS(l, "", "")
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// server is a running child.
type server struct {
	url    string
	pid    int
	client *http.Client
}

func start(ctx context.Context, kind, dir string) (*server, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", kind, dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // it ends with us
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the %s server didn't start: %w", kind, err)
	}
	s := &server{url: "http://", pid: cmd.Process.Pid, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ReadBufferSize: 64 << 10}}} // the machine's own child
	if kind != "clear" {
		s.url = "https://"
	}
	s.url += strings.TrimSpace(address) + "/file"
	return s, nil
}

// fetch gets the file some times and returns the server's processor time for
// a GiB.
func (s *server) fetch() (time.Duration, error) {
	before, err := processorTime(s.pid)
	if err != nil {
		return 0, err
	}
	for range fetches {
		res, err := s.client.Get(s.url)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || n != fileSize {
			return 0, fmt.Errorf("%d bytes of %d: %w", n, fileSize, err)
		}
	}
	after, err := processorTime(s.pid)
	return (after - before) * (1 << 30) / (fileSize * fetches), err
}

// processorTime is a process's user and system time so far.
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:])) // the third field on
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * time.Second / 100, nil // USER_HZ
}

func compare() error {
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, fileSize), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kinds := []string{"clear", "tls"}
	servers, took := map[string]*server{}, map[string][]time.Duration{}
	for _, kind := range kinds {
		if servers[kind], err = start(ctx, kind, dir); err != nil {
			return err
		}
	}
	var ratios []float64
	for range turns {
		for _, kind := range kinds {
			d, err := servers[kind].fetch()
			if err != nil {
				return err
			}
			took[kind] = append(took[kind], d)
		}
		last := len(took["tls"]) - 1
		ratios = append(ratios, float64(took["tls"][last])/float64(max(took["clear"][last], 10*time.Millisecond)))
	}
	for _, kind := range kinds {
		slices.Sort(took[kind])
		fmt.Printf("%-6s %6d ms of the server's processor time for a GiB (median of %d)\n", kind, took[kind][turns/2].Milliseconds(), turns)
	}
	slices.Sort(ratios)
	fmt.Printf("ratio  %6.1f (median of the turns)\n", ratios[turns/2])
	return nil
}

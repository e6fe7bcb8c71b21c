// Tcp is a server and its client on raw TCP: mutual TLS 1.3 with certificates
// that last a day and are renewed by themselves.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"

	"github.com/chancery-pki/chancery/examples/demo"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() { demo.Main(run) }

func run(ctx context.Context, listen string) error {
	id, err := mtls.New(ctx, mtls.Config{
		Names: []string{"localhost"},
		Proof: mtls.Proof{ListenALPN: listen}, // until our own listener is up, which does it from then on
	})
	if err != nil {
		return err
	}
	defer id.Close()
	demo.Show(id)

	l, err := id.Listen("tcp", listen, acl.Allow("localhost"))
	if err != nil {
		return err
	}
	defer l.Close()
	go serve(l)

	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	conn, err := id.Dial(ctx, "tcp", "localhost:"+port)
	if err != nil {
		return err
	}
	if err := greet(conn); err != nil {
		return err
	}
	nobody := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	if conn, err = nobody.DialContext(ctx, "tcp", "localhost:"+port); err != nil {
		return err
	}
	return demo.MustFail("somebody without a certificate", greet(conn))
}

// serve answers each line with a greeting. Whoever comes out of Accept is
// allowed.
func serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			peer, _ := mtls.PeerOf(conn)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if _, err := fmt.Fprintf(conn, "hello %s, you say %q\n", peer.Name(), lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

// greet says a line and prints the answer.
func greet(conn net.Conn) error {
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "good day"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	log.Print("the server answers: ", answer)
	return nil
}

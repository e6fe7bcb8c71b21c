package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// answers is what the names in the certificates point at: a DNS server that
// says 127.0.0.1 to everything, and the web server there that answers http-01.
// Both are bare, since their CPU time is taken from the same two cores that
// the servers want.
type answers struct {
	dns      string // address of the DNS server, UDP and TCP
	httpPort int
	tokens   sync.Map // token → key authorization

	closers []io.Closer
}

func listenAnswers() (*answers, error) {
	a := new(answers)
	tcp, err := listenLow() // Pebble asks by TCP
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, tcp)
	a.dns = tcp.Addr().String()
	udp, err := net.ListenPacket("udp", a.dns)
	if err != nil {
		a.close()
		return nil, err
	}
	a.closers = append(a.closers, udp)
	web, err := listenLow()
	if err != nil {
		a.close()
		return nil, err
	}
	a.closers = append(a.closers, web)
	a.httpPort = web.Addr().(*net.TCPAddr).Port
	go serveUDP(udp)
	go serveTCP(tcp, serveDNS)
	go serveTCP(web, a.serveHTTP)
	return a, nil
}

func (a *answers) close() {
	for _, c := range a.closers {
		_ = c.Close()
	}
}

// serveTCP serves each connection and, once the client has closed it, ends it
// by a reset: else thousands of them would wait out their minute in TIME-WAIT,
// and each connect would search longer for a free port than the last.
func serveTCP(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			serve(conn)
			_ = conn.(*net.TCPConn).SetLinger(0)
		}()
	}
}

func serveUDP(conn net.PacketConn) {
	query := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(query)
		if err != nil {
			return
		}
		if answer := resolve(query[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from)
		}
	}
}

// serveDNS answers queries on one TCP connection (RFC 7766).
func serveDNS(conn net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := resolve(query)
		if answer == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// resolve answers a query for an A record with 127.0.0.1 and any other with
// no record of that type (RFC 1035 section 4.1); nil if it is no query.
func resolve(query []byte) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // root label, type, class
	if end > len(query) || query[2]&0x80 != 0 {
		return nil
	}
	answer := make([]byte, end, end+16)
	copy(answer, query)
	answer[2], answer[3] = 0x84|query[2]&1, 0x80 // an authoritative answer; recursion is available
	copy(answer[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if binary.BigEndian.Uint16(query[end-4:]) == 1 {
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}

// serveHTTP answers one validation request for each connection, as every
// workload is another host to a CA in real life.
func (a *answers) serveHTTP(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 2048)
	request, err := in.ReadString('\n')
	if err != nil {
		return
	}
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) <= 2 {
			break
		}
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(request, "GET "), " ")
	status, body := http.StatusNotFound, ""
	if keyAuth, ok := a.tokens.Load(strings.TrimPrefix(path, "/.well-known/acme-challenge/")); ok {
		status, body = http.StatusOK, keyAuth.(string)
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
	_, _ = in.ReadByte() // until the client has read it and closes
}

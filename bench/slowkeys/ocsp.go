package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ocspRequest is what a relying party sends that asks for one certificate
// (RFC 6960 section 4.1.1).
func ocspRequest(issuer *x509.Certificate, serial string) ([]byte, error) {
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return nil, err
	}
	number, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return nil, fmt.Errorf("%q is no serial", serial)
	}
	type certID struct {
		Hash      pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}
	type request struct{ ID certID }
	type tbs struct{ List []request }
	name, bits := sha1.Sum(issuer.RawSubject), sha1.Sum(key.Bits.Bytes)
	sha := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, Parameters: asn1.NullRawValue}
	return asn1.Marshal(struct{ TBS tbs }{tbs{[]request{{certID{sha, name[:], bits[:], number}}}}})
}

// ocspPost is the whole HTTP request.
func ocspPost(der []byte) []byte {
	return fmt.Appendf(nil, "POST /ocsp HTTP/1.1\r\nHost: ocsp.internal\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(der), der)
}

// The states of an OCSP response (RFC 6960 section 4.2.1).
const (
	successful = 0
	tryLater   = 3
)

// ocspStatus reads how an answer begins: SEQUENCE, ENUMERATED.
func ocspStatus(der []byte) (int, error) {
	var head struct {
		Status asn1.Enumerated
		Rest   asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(der, &head); err != nil {
		return 0, fmt.Errorf("%d bytes that are no OCSP answer: %w", len(der), err)
	}
	return int(head.Status), nil
}

// wire is one connection of a relying party: HTTP/1.1, one request at a time,
// without what net/http's client costs on the server's own two cores.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte // of the last answer
}

func dialWire(addr string) (*wire, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, in: newReader(conn)}, nil
}

func newReader(conn net.Conn) *bufio.Reader { return bufio.NewReaderSize(conn, 8<<10) }

var lengthHeader = []byte("Content-Length: ")

// ask sends a whole request and reads the answer into body.
func (w *wire) ask(request []byte) error {
	if _, err := w.conn.Write(request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("%s", bytes.TrimSpace(line))
		}
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, lengthHeader); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 || length > 1<<20 {
		return errors.New("an answer without a length")
	}
	if cap(w.body) < length {
		w.body = make([]byte, length)
	}
	w.body = w.body[:length]
	_, err := io.ReadFull(w.in, w.body)
	return err
}

// storm asks for many certificates at once.
type storm struct {
	addr     string
	requests [][]byte // HTTP, by certificate

	mu      sync.Mutex // guards what follows
	answers []([sha256.Size]byte)
	fresh   []bool // a successful answer was seen
	others  int    // successful answers that differed from an earlier one
	asked   int
	refused int // answers that weren't tryLater either
}

// newStorm prepares to ask for certificates of an issuer.
func newStorm(addr string, issuer *x509.Certificate, serials []string) (*storm, error) {
	s := &storm{addr: addr, answers: make([][sha256.Size]byte, len(serials)), fresh: make([]bool, len(serials))}
	for _, serial := range serials {
		der, err := ocspRequest(issuer, serial)
		if err != nil {
			return nil, err
		}
		s.requests = append(s.requests, ocspPost(der))
	}
	return s, nil
}

// connections that relying parties have open at once.
const connections = 64

// all asks for every certificate once, or those not seen fresh yet, as fast as
// the server answers.
func (s *storm) all(everyone bool) (took time.Duration, err error) {
	begun := time.Now()
	var next atomic.Int64
	var running sync.WaitGroup
	var faults [connections]error
	for i := range connections {
		running.Go(func() {
			w, err := dialWire(s.addr)
			if err != nil {
				faults[i] = err
				return
			}
			defer w.conn.Close()
			for {
				at := int(next.Add(1) - 1)
				if at >= len(s.requests) {
					return
				}
				if !everyone && s.seen(at) {
					continue
				}
				if err := s.one(w, at); err != nil {
					faults[i] = err
					return
				}
			}
		})
	}
	running.Wait()
	return time.Since(begun), errors.Join(faults[:]...)
}

func (s *storm) seen(at int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh[at]
}

func (s *storm) one(w *wire, at int) error {
	if err := w.ask(s.requests[at]); err != nil {
		return err
	}
	status, err := ocspStatus(w.body)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(w.body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	switch {
	case status == tryLater:
	case status != successful:
		s.refused++
	case s.fresh[at] && s.answers[at] != hash:
		s.others++
	default:
		s.fresh[at], s.answers[at] = true, hash
	}
	return nil
}

// count is how many certificates were seen to have a fresh answer, and how
// many different answers these were.
func (s *storm) count() (fresh, different int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := map[[sha256.Size]byte]bool{}
	for at, ok := range s.fresh {
		if ok {
			fresh++
			set[s.answers[at]] = true
		}
	}
	return fresh, len(set) + s.others
}

package challenge

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// proof is what a right certificate bears; the tests change one thing each.
func proof(names []string, ips ...net.IP) *x509.Certificate {
	digest := sha256.Sum256([]byte(testToken + "." + testThumb))
	value, _ := asn1.Marshal(digest[:])
	return &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		Subject:         pkix.Name{CommonName: "ACME challenge"},
		NotBefore:       time.Now().Add(-time.Hour),
		NotAfter:        time.Now().Add(time.Hour),
		DNSNames:        names,
		IPAddresses:     ips,
		ExtraExtensions: []pkix.Extension{{Id: oidACMEIdentifier, Critical: true, Value: value}},
	}
}

func selfSigned(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveALPN answers as a server with that configuration, and fails the test
// when the validator sends data.
func serveALPN(t *testing.T, l net.Listener, config *tls.Config) int {
	return serveTCP(t, l, func(c net.Conn) {
		s := tls.Server(c, config)
		if s.Handshake() != nil {
			return
		}
		if n, _ := s.Read(make([]byte, 1)); n > 0 {
			t.Error("the validator sent application data")
		}
	})
}

func TestTLSALPN01(t *testing.T) {
	z, r := serveDNS(t)
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var hello *tls.ClientHelloInfo
		cert := selfSigned(t, proof([]string{"WWW.example.TEST"}))
		l := listen(t, "127.0.0.1:0")
		p := serveALPN(t, l, &tls.Config{NextProtos: []string{acmeTLS}, MaxVersion: version, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			hello = h
			return &cert, nil
		}})
		e, err := TLSALPN01{&Network{Resolver: r, TLSPort: p, Allow: loopback()}}.Validate(t.Context(), testValidation())
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != protocol.TLSALPN01 || e.Target != l.Addr().String() {
			t.Errorf("evidence %+v", e)
		}
		if hello.ServerName != testName || fmt.Sprint(hello.SupportedProtos) != "["+acmeTLS+"]" {
			t.Errorf("the hello names %q and offers %q", hello.ServerName, hello.SupportedProtos)
		}
	}
}

// RFC 8738 section 6: the SNI of an address is its name in the reverse tree.
func TestTLSALPN01Address(t *testing.T) {
	for ip, want := range map[string]string{
		"127.0.0.1": "1.0.0.127.in-addr.arpa",
		"::1":       "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
	} {
		var got string
		cert := selfSigned(t, proof(nil, net.ParseIP(ip)))
		p := serveALPN(t, listen(t, net.JoinHostPort(ip, "0")), &tls.Config{NextProtos: []string{acmeTLS}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			got = h.ServerName
			return &cert, nil
		}})
		v := testValidation()
		v.Identifier = protocol.Identifier{Type: protocol.IP, Value: ip}
		if _, err := (TLSALPN01{&Network{TLSPort: p, Allow: loopback()}}).Validate(t.Context(), v); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
		if got != want {
			t.Errorf("%s: SNI %q, want %q", ip, got, want)
		}
		_, err := TLSALPN01{&Network{TLSPort: p}}.Validate(t.Context(), v)
		wantNo(t, err, protocol.ConnectionFailed, false, "loopback")
	}
}

// RFC 8737 section 3, one fault each.
func TestTLSALPN01Certificates(t *testing.T) {
	digest := sha256.Sum256([]byte(testToken + "." + testThumb))
	extension := func(critical bool, value any) []pkix.Extension {
		der, _ := asn1.Marshal(value)
		return []pkix.Extension{{Id: oidACMEIdentifier, Critical: critical, Value: der}}
	}
	san := func(names ...asn1.RawValue) pkix.Extension {
		der, _ := asn1.Marshal(names)
		return pkix.Extension{Id: oidSubjectAltName, Value: der}
	}
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(testName)}
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		ok     bool
		words  string
	}{
		{"right", func(*x509.Certificate) {}, true, ""},
		{"no name", func(c *x509.Certificate) { c.DNSNames = nil }, false, "subject alternative name"},
		{"another name", func(c *x509.Certificate) { c.DNSNames = []string{"example.test"} }, false, "subject alternative name"},
		{"a wildcard", func(c *x509.Certificate) { c.DNSNames = []string{"*.example.test"} }, false, "subject alternative name"},
		{"one name more", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.test") }, false, "no other"},
		{"the name twice", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, testName) }, false, "no other"},
		{"an address more", func(c *x509.Certificate) { c.IPAddresses = []net.IP{{192, 0, 2, 1}} }, false, "no other"},
		{"a mail address more", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} }, false, "no other"},
		{"a URI more", func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "a"}} }, false, "no other"},
		{"another kind of name more", func(c *x509.Certificate) { // which crypto/x509 doesn't show
			c.ExtraExtensions = append(c.ExtraExtensions, san(name, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{42}}))
		}, false, "no other"},
		{"the name as a mail address", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte(testName)}))
		}, false, "subject alternative name"},
		{"the name only in the subject", func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, testName }, false, "subject alternative name"},
		{"no proof", func(c *x509.Certificate) { c.ExtraExtensions = nil }, false, "exactly one acmeIdentifier"},
		{"not critical", func(c *x509.Certificate) { c.ExtraExtensions = extension(false, digest[:]) }, false, "not critical"},
		{"another digest", func(c *x509.Certificate) { c.ExtraExtensions = extension(true, make([]byte, 32)) }, false, "another key authorization"},
		{"a short digest", func(c *x509.Certificate) { c.ExtraExtensions = extension(true, digest[:31]) }, false, "octet string"},
		{"not an octet string", func(c *x509.Certificate) {
			c.ExtraExtensions = extension(true, asn1.BitString{Bytes: digest[:], BitLength: 256})
		}, false, "octet string"},
		{"the digest bare", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = digest[:] }, false, "octet string"},
		{"more behind it", func(c *x509.Certificate) { c.ExtraExtensions[0].Value = append(c.ExtraExtensions[0].Value, 5, 0) }, false, "octet string"},
		{"an old OID", func(c *x509.Certificate) {
			c.ExtraExtensions[0].Id = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 30, 1}
		}, false, "exactly one acmeIdentifier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := proof([]string{testName})
			c.change(template)
			cert := selfSigned(t, template)
			z, r := serveDNS(t)
			z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
			p := serveALPN(t, listen(t, "127.0.0.1:0"), &tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{cert}})
			_, err := TLSALPN01{&Network{Resolver: r, TLSPort: p, Allow: loopback()}}.Validate(t.Context(), testValidation())
			if c.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantNo(t, err, protocol.Unauthorized, false, c.words)
		})
	}
	t.Run("an address in 16 bytes for 4", func(t *testing.T) {
		id := protocol.Identifier{Type: protocol.IP, Value: "192.0.2.1"}
		der := san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: net.ParseIP("192.0.2.1").To16()}).Value
		if namesOnly(der, id) {
			t.Error("taken")
		}
	})
	t.Run("issued by another", func(t *testing.T) {
		_, caKey, _ := ed25519.GenerateKey(rand.Reader)
		_, key, _ := ed25519.GenerateKey(rand.Reader)
		template := proof([]string{testName})
		for _, c := range []struct {
			issuer string
			signer ed25519.PrivateKey
		}{{"Some CA", caKey}, {template.Subject.CommonName, caKey}, {"Some CA", key}} {
			public := key.Public().(ed25519.PublicKey)
			der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: c.issuer}}, public, c.signer)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if why := certificateFault(cert, testValidation()); why != "is not self-signed" {
				t.Errorf("issuer %q, its own key %v: %q", c.issuer, c.signer.Equal(key), why)
			}
		}
	})
	t.Run("the proof twice", func(t *testing.T) {
		template := proof([]string{testName})
		e := template.ExtraExtensions[0]
		if _, ok := only([]pkix.Extension{e, e}, oidACMEIdentifier); ok {
			t.Error("taken")
		}
		// crypto/x509 doesn't parse such a certificate either.
		template.ExtraExtensions = append(template.ExtraExtensions, e)
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return
		}
		p := serveALPN(t, listen(t, "127.0.0.1:0"), &tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		z, r := serveDNS(t)
		z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
		_, err = TLSALPN01{&Network{Resolver: r, TLSPort: p, Allow: loopback()}}.Validate(t.Context(), testValidation())
		wantNo(t, err, protocol.TLSFailed, false)
	})
}

func TestTLSALPN01Servers(t *testing.T) {
	cert := selfSigned(t, proof([]string{testName}))
	certs := []tls.Certificate{cert}
	alpn := func(config *tls.Config) func(net.Conn) {
		return func(c net.Conn) { s := tls.Server(c, config); s.Handshake(); hold(s) }
	}
	for _, c := range []struct {
		name      string
		serve     func(net.Conn)
		typ       protocol.ProblemType
		retryable bool
		words     string
	}{
		{"no ALPN at all", alpn(&tls.Config{Certificates: certs}), protocol.TLSFailed, false, "doesn't speak acme-tls/1"},
		{"other protocols", alpn(&tls.Config{Certificates: certs, NextProtos: []string{"h2", "http/1.1"}}), protocol.TLSFailed, false, "no application protocol"},
		{"TLS 1.1", alpn(&tls.Config{Certificates: certs, NextProtos: []string{acmeTLS}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), protocol.TLSFailed, false, ""},
		{"no certificate", alpn(&tls.Config{NextProtos: []string{acmeTLS}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}), protocol.TLSFailed, false, "refused"},
		{"garbage for a certificate", alpn(&tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{{Certificate: [][]byte{[]byte(secret)}, PrivateKey: cert.PrivateKey}}}), protocol.TLSFailed, false, ""},
		{"not TLS", func(c net.Conn) { io.WriteString(c, "220 "+secret+"\r\n"); hold(c) }, protocol.TLSFailed, false, ""},
		{"closed at once", func(net.Conn) {}, protocol.ConnectionFailed, true, ""},
		{"silence", hold, protocol.ConnectionFailed, true, "timed out"},
		{"slow drip", func(c net.Conn) {
			c.Write([]byte{22, 3, 3, 0x40, 0}) // a handshake record of 16 KiB
			for {
				if _, err := c.Write([]byte{2}); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		}, protocol.ConnectionFailed, true, "timed out"},
		{"a long chain", alpn(&tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{{Certificate: slices.Repeat(cert.Certificate, 200), PrivateKey: cert.PrivateKey}}}), protocol.TLSFailed, false, ""},
		{"a huge certificate", alpn(&tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Certificate[0], make([]byte, 200<<10)}, PrivateKey: cert.PrivateKey}}}), protocol.TLSFailed, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := testValidation()
			v.Identifier = protocol.Identifier{Type: protocol.DNS, Value: testName}
			z, r := serveDNS(t)
			z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
			p := serveTCP(t, listen(t, "127.0.0.1:0"), c.serve)
			start := time.Now()
			_, err := TLSALPN01{&Network{Resolver: r, TLSPort: p, Allow: loopback(), Timeout: 800 * time.Millisecond}}.Validate(t.Context(), v)
			wantNo(t, err, c.typ, c.retryable, c.words)
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the problem repeats what the target sent: %v", err)
			}
			if time.Since(start) > 6*time.Second {
				t.Errorf("took %v", time.Since(start))
			}
		})
	}
	t.Run("wildcard", func(t *testing.T) {
		v := testValidation()
		v.Wildcard = true
		_, err := TLSALPN01{&Network{}}.Validate(t.Context(), v)
		wantNo(t, err, protocol.Malformed, false, "dns-01")
	})
}

// Five instances share a name and one of them knows the key authorization
// (validation.probe: any).
func TestProbeAnyTLS(t *testing.T) {
	z, r := serveDNS(t)
	ls := instances(t, 5)
	var records []string
	other := proof([]string{testName})
	other.ExtraExtensions[0].Value, _ = asn1.Marshal(make([]byte, 32))
	for i, l := range ls {
		records = append(records, fmt.Sprintf("%s. 1 IN A 127.0.0.%d", testName, i+1))
		config := &tls.Config{NextProtos: []string{acmeTLS}, Certificates: []tls.Certificate{selfSigned(t, other)}}
		switch i {
		case 1:
			config.NextProtos = []string{"h2"}
		case 4:
			config.Certificates = []tls.Certificate{selfSigned(t, proof([]string{testName}))}
		}
		if i == 2 {
			serveTCP(t, l, hold)
		} else {
			serveALPN(t, l, config)
		}
	}
	z.set(testName+". A", records...)
	n := &Network{Resolver: r, TLSPort: port(ls[0]), Allow: loopback(), ProbeAny: 5, Timeout: 20 * time.Second}
	for range 4 { // the order is random
		start := time.Now()
		e, err := TLSALPN01{n}.Validate(t.Context(), testValidation())
		if err != nil {
			t.Fatal(err)
		}
		if e.Target != ls[4].Addr().String() || time.Since(start) > 5*time.Second {
			t.Errorf("%s answered after %v", e.Target, time.Since(start))
		}
	}
	z.set(testName+". A", records[0], records[3])
	_, err := TLSALPN01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.Unauthorized, false, "2 addresses were asked")
	// The bound counts; what wasn't asked may be asked the next time, since the
	// order is random.
	n.ProbeAny = 1
	_, err = TLSALPN01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.Unauthorized, true)
	z.set(testName+". A", records[0], records[4])
	yes, noes := 0, 0
	for range 60 {
		if _, err := (TLSALPN01{n}).Validate(t.Context(), testValidation()); err != nil {
			noes++
		} else {
			yes++
		}
	}
	if yes == 0 || noes == 0 {
		t.Errorf("one of two addresses: %d times the right one, %d times the wrong one", yes, noes)
	}
	// An address that may not be reached isn't one of them.
	n.Deny = []netip.Prefix{netip.MustParsePrefix("127.0.0.5/32")}
	z.set(testName+". A", records[4])
	_, err = TLSALPN01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.ConnectionFailed, false, "127.0.0.5")
}

// FuzzCertificate: no certificate makes the check panic, and none passes
// without the digest in it.
func FuzzCertificate(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	template := proof([]string{testName})
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	digest := sha256.Sum256([]byte(testToken + "." + testThumb))
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if certificateFault(cert, testValidation()) == "" && !strings.Contains(string(der), string(digest[:])) {
			t.Fatal("taken without the digest")
		}
	})
}

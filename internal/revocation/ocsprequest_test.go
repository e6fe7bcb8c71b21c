package revocation_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// tlv encodes one element of DER.
func tlv(tag byte, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	switch n := len(content); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, content...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, content...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// The object identifiers of RFC 6960, RFC 3370 and RFC 5754 in DER.
var (
	sha1OID    = tlv(0x06, unhex("2b0e03021a"))         // 1.3.14.3.2.26
	sha256OID  = tlv(0x06, unhex("608648016503040201")) // 2.16.840.1.101.3.4.2.1
	sha384OID  = tlv(0x06, unhex("608648016503040202")) // 2.16.840.1.101.3.4.2.2
	nonceOID   = tlv(0x06, unhex("2b0601050507300102")) // 1.3.6.1.5.5.7.48.1.2
	locatorOID = tlv(0x06, unhex("2b0601050507300107")) // 1.3.6.1.5.5.7.48.1.7, service locator
	asn1Null   = []byte{0x05, 0x00}
	asn1True   = []byte{0x01, 0x01, 0xff}
	hash20     = tlv(0x04, bytes.Repeat([]byte{0xaa}, 20))
	hash20b    = tlv(0x04, bytes.Repeat([]byte{0xbb}, 20))
	hash32     = tlv(0x04, bytes.Repeat([]byte{0xaa}, 32))
	hash32b    = tlv(0x04, bytes.Repeat([]byte{0xbb}, 32))
	serial7f   = tlv(0x02, []byte{0x7f})
	certID     = tlv(0x30, tlv(0x30, sha1OID, asn1Null), hash20, hash20b, serial7f)
	requestor  = tlv(0xa1, tlv(0x82, []byte("web.internal"))) // [1] GeneralName dNSName
	signature  = tlv(0xa0, tlv(0x30, tlv(0x30, sha256OID), tlv(0x03, []byte{0, 1, 2, 3})))
	critNonce  = func(n int) []byte { return tlv(0x30, nonceOID, asn1True, tlv(0x04, tlv(0x04, make([]byte, n)))) }
	plainNonce = func(n int) []byte { return tlv(0x30, nonceOID, tlv(0x04, tlv(0x04, make([]byte, n)))) }
	locator    = tlv(0x30, locatorOID, tlv(0x04, tlv(0x30)))
)

// request wraps a CertID.
func request(id []byte, rest ...[]byte) []byte {
	return tlv(0x30, tlv(0x30, append([][]byte{tlv(0x30, tlv(0x30, id))}, rest...)...))
}

// withExtensions puts them among the requestExtensions.
func withExtensions(extensions ...[]byte) []byte {
	return request(certID, tlv(0xa2, tlv(0x30, extensions...)))
}

func withSerial(content ...byte) []byte {
	return request(tlv(0x30, tlv(0x30, sha1OID, asn1Null), hash20, hash20b, tlv(0x02, content)))
}

// RFC 6960 section 4.1.1: every part that a request may have.
func TestRequestsTaken(t *testing.T) {
	long := append([]byte{0xff}, bytes.Repeat([]byte{0x11}, 19)...)
	for name, c := range map[string]struct {
		der    []byte
		hash   crypto.Hash
		serial []byte
		nonce  int // length, -1: none
	}{
		"smallest":                    {request(certID), crypto.SHA1, []byte{0x7f}, -1},
		"parameters absent":           {request(tlv(0x30, tlv(0x30, sha1OID), hash20, hash20b, serial7f)), crypto.SHA1, []byte{0x7f}, -1},
		"SHA-256":                     {request(tlv(0x30, tlv(0x30, sha256OID, asn1Null), hash32, hash32b, serial7f)), crypto.SHA256, []byte{0x7f}, -1},
		"SHA-256 without parameters":  {request(tlv(0x30, tlv(0x30, sha256OID), hash32, hash32b, serial7f)), crypto.SHA256, []byte{0x7f}, -1},
		"serial with a sign octet":    {withSerial(0x00, 0x80, 0x00), crypto.SHA1, []byte{0x80, 0x00}, -1},
		"serial of 20 octets":         {withSerial(append([]byte{0}, long...)...), crypto.SHA1, long, -1},
		"version written out":         {tlv(0x30, tlv(0x30, tlv(0xa0, tlv(0x02, []byte{0})), tlv(0x30, tlv(0x30, certID)))), crypto.SHA1, []byte{0x7f}, -1},
		"requestor's name":            {tlv(0x30, tlv(0x30, requestor, tlv(0x30, tlv(0x30, certID)))), crypto.SHA1, []byte{0x7f}, -1},
		"signed":                      {tlv(0x30, tlv(0x30, requestor, tlv(0x30, tlv(0x30, certID))), signature), crypto.SHA1, []byte{0x7f}, -1},
		"nonce of 1 octet":            {withExtensions(plainNonce(1)), crypto.SHA1, []byte{0x7f}, 1},
		"nonce of 32 octets":          {withExtensions(plainNonce(32)), crypto.SHA1, []byte{0x7f}, 32},
		"nonce of 128 octets":         {withExtensions(plainNonce(128)), crypto.SHA1, []byte{0x7f}, 128},
		"critical nonce":              {withExtensions(critNonce(16)), crypto.SHA1, []byte{0x7f}, 16},
		"unknown extension and nonce": {withExtensions(locator, plainNonce(16)), crypto.SHA1, []byte{0x7f}, 16},
		"written out as not critical": {withExtensions(tlv(0x30, locatorOID, []byte{1, 1, 0}, tlv(0x04))), crypto.SHA1, []byte{0x7f}, -1},
		"single extension":            {tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID, tlv(0xa0, tlv(0x30, locator)))))), crypto.SHA1, []byte{0x7f}, -1},
		// RFC 9654 section 2.1 has the nonce among the requestExtensions only.
		"nonce in the wrong place": {tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID, tlv(0xa0, tlv(0x30, plainNonce(999))))))), crypto.SHA1, []byte{0x7f}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := revocation.OCSPRequest{Nonce: []byte{1}, HasNonce: true} // of a request before
			if err := revocation.ParseOCSPRequest(c.der, &r); err != nil {
				t.Fatalf("%v: %x", err, c.der)
			}
			size := c.hash.Size()
			if r.Hash != c.hash || !bytes.Equal(r.IssuerNameHash, bytes.Repeat([]byte{0xaa}, size)) || !bytes.Equal(r.IssuerKeyHash, bytes.Repeat([]byte{0xbb}, size)) {
				t.Errorf("hash %v %x %x", r.Hash, r.IssuerNameHash, r.IssuerKeyHash)
			}
			if !bytes.Equal(r.Serial, c.serial) || r.CertSerial() != cert.SerialOf(new(big.Int).SetBytes(c.serial)) {
				t.Errorf("serial %x %s, want %x", r.Serial, r.CertSerial(), c.serial)
			}
			if r.HasNonce != (c.nonce >= 0) || len(r.Nonce) != max(c.nonce, 0) {
				t.Errorf("nonce %v %x, want %d octets", r.HasNonce, r.Nonce, c.nonce)
			}
			for n := range c.der { // truncated anywhere
				if err := revocation.ParseOCSPRequest(c.der[:n], &r); !errors.Is(err, revocation.ErrMalformed) {
					t.Errorf("first %d octets: %v", n, err)
				}
			}
			if err := revocation.ParseOCSPRequest(append(slices.Clone(c.der), 0), &r); !errors.Is(err, revocation.ErrMalformed) {
				t.Errorf("an octet too many: %v", err)
			}
		})
	}
}

// RFC 6960 section 2.3 and 4.2.1: malformedRequest for what isn't a request.
// RFC 5019 section 2.2.3: unauthorized for what a responder won't answer.
func TestRequestsRefused(t *testing.T) {
	malformed, unauthorized := revocation.ErrMalformed, revocation.ErrUnauthorized
	single := tlv(0x30, certID)
	idWith := func(algorithm, name, key []byte) []byte { return request(tlv(0x30, algorithm, name, key, serial7f)) }
	sha1ID := tlv(0x30, sha1OID, asn1Null)
	for name, c := range map[string]struct {
		der  []byte
		want error
	}{
		"nothing":                     {nil, malformed},
		"not DER":                     {[]byte("GET / HTTP/1.1\r\n\r\n"), malformed},
		"empty sequence":              {tlv(0x30), malformed},
		"no list":                     {tlv(0x30, tlv(0x30)), malformed},
		"empty list":                  {tlv(0x30, tlv(0x30, tlv(0x30))), malformed},
		"indefinite length":           {slices.Concat([]byte{0x30, 0x80}, request(certID)[2:], []byte{0, 0}), malformed},
		"length too long for itself":  {slices.Concat([]byte{0x30, 0x81, byte(len(request(certID)) - 2)}, request(certID)[2:]), malformed},
		"element after the list":      {request(certID, asn1Null), malformed},
		"element after its Request":   {tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID, asn1Null)))), malformed},
		"two lists of extensions":     {request(certID, tlv(0xa2, tlv(0x30, locator), tlv(0x30, locator))), malformed},
		"element in the CertID":       {request(tlv(0x30, sha1ID, hash20, hash20b, serial7f, asn1Null)), malformed},
		"version 2":                   {tlv(0x30, tlv(0x30, tlv(0xa0, tlv(0x02, []byte{1})), tlv(0x30, single))), malformed},
		"version of two octets":       {tlv(0x30, tlv(0x30, tlv(0xa0, tlv(0x02, []byte{0, 0})), tlv(0x30, single))), malformed},
		"two requestors":              {tlv(0x30, tlv(0x30, tlv(0xa1, requestor[2:], requestor[2:]), tlv(0x30, single))), malformed},
		"signature isn't a sequence":  {tlv(0x30, tlv(0x30, tlv(0x30, single)), tlv(0xa0, asn1Null)), malformed},
		"two signatures":              {tlv(0x30, tlv(0x30, tlv(0x30, single)), signature, signature), malformed},
		"two certificates":            {tlv(0x30, tlv(0x30, tlv(0x30, single, single))), unauthorized},
		"fifty certificates":          {tlv(0x30, tlv(0x30, tlv(0x30, bytes.Repeat(tlv(0x30, certID), 50)))), unauthorized},
		"SHA-384":                     {idWith(tlv(0x30, sha384OID), tlv(0x04, make([]byte, 48)), tlv(0x04, make([]byte, 48))), unauthorized},
		"no hash algorithm":           {idWith(tlv(0x30), hash20, hash20b), malformed},
		"odd parameters":              {idWith(tlv(0x30, sha1OID, tlv(0x02, []byte{1})), hash20, hash20b), malformed},
		"NULL and more":               {idWith(tlv(0x30, sha1OID, asn1Null, asn1Null), hash20, hash20b), malformed},
		"name hash of another length": {idWith(sha1ID, hash32, hash20b), malformed},
		"key hash of another length":  {idWith(sha1ID, hash20, hash32b), malformed},
		"no name hash":                {idWith(sha1ID, tlv(0x04), hash20b), malformed},
		"SHA-256 with SHA-1's hashes": {idWith(tlv(0x30, sha256OID), hash20, hash20b), malformed},
		// X.690 section 8.3; RFC 5280 section 4.1.2.2.
		"serial without octets":       {withSerial(), malformed},
		"serial with a needless zero": {withSerial(0, 0x7f), malformed},
		"serial with a needless sign": {withSerial(0xff, 0x80), malformed},
		"serial 0":                    {withSerial(0), unauthorized},
		"serial -1":                   {withSerial(0xff), unauthorized},
		"serial -32768":               {withSerial(0x80, 0), unauthorized},
		"serial of 21 octets":         {withSerial(bytes.Repeat([]byte{0x7f}, 21)...), unauthorized},
		"serial of 900 octets":        {withSerial(bytes.Repeat([]byte{0x7f}, 900)...), unauthorized},
		// RFC 9654 section 2.1.
		"nonce of 0 octets":        {withExtensions(plainNonce(0)), malformed},
		"nonce of 129 octets":      {withExtensions(plainNonce(129)), malformed},
		"nonce of 1000 octets":     {withExtensions(plainNonce(1000)), malformed},
		"two nonces":               {withExtensions(plainNonce(16), plainNonce(16)), malformed},
		"nonce without its string": {withExtensions(tlv(0x30, nonceOID, tlv(0x04, []byte("0123456789abcdef")))), malformed},
		"octets after the nonce":   {withExtensions(tlv(0x30, nonceOID, tlv(0x04, tlv(0x04, make([]byte, 16)), []byte{0}))), malformed},
		// RFC 5280 section 4.1: SEQUENCE SIZE (1..MAX).
		"no extension":            {withExtensions(), malformed},
		"extension without value": {withExtensions(tlv(0x30, locatorOID)), malformed},
		"odd critical flag":       {withExtensions(tlv(0x30, locatorOID, tlv(0x01), tlv(0x04))), malformed},
		// RFC 6960 section 4.1.2: critical ones must not be ignored.
		"critical unknown extension":        {withExtensions(tlv(0x30, locatorOID, asn1True, tlv(0x04))), unauthorized},
		"critical unknown single extension": {tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID, tlv(0xa0, tlv(0x30, tlv(0x30, locatorOID, asn1True, tlv(0x04)))))))), unauthorized},
		"huge":                              {tlv(0x30, tlv(0x30, tlv(0x30, single)), tlv(0xa0, tlv(0x30, make([]byte, revocation.MaxOCSPRequest)))), malformed},
	} {
		t.Run(name, func(t *testing.T) {
			var r revocation.OCSPRequest
			if err := revocation.ParseOCSPRequest(c.der, &r); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v: %.200x", err, c.want, c.der)
			}
		})
	}
}

// The largest that is taken is what the doc says.
func TestLargestRequest(t *testing.T) {
	padded := func(n int) []byte {
		return tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID))), tlv(0xa0, tlv(0x30, make([]byte, n))))
	}
	n := revocation.MaxOCSPRequest - len(padded(1000)) + 1000
	var r revocation.OCSPRequest
	if der := padded(n); len(der) != revocation.MaxOCSPRequest || revocation.ParseOCSPRequest(der, &r) != nil {
		t.Errorf("%d octets refused", len(der))
	}
	if err := revocation.ParseOCSPRequest(padded(n+1), &r); !errors.Is(err, revocation.ErrMalformed) {
		t.Errorf("one more: %v", err)
	}
}

// fixture is a CA and a certificate of it.
func fixture(t testing.TB, key crypto.Signer, serial cert.Serial) (ca, leaf *x509.Certificate) {
	t.Helper()
	ca = newCA(t, key, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "web.internal"}, NotBefore: begin, NotAfter: begin.AddDate(0, 0, 7),
	}, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return ca, leaf
}

// x/crypto as a relying party, and who its request is about.
func TestRequestOfXCrypto(t *testing.T) {
	serial := cert.NewSerial()
	ca, leaf := fixture(t, newKey(t), serial)
	mine := revocation.HashIssuer(ca)
	sameName := revocation.HashIssuer(newCA(t, newKey(t), nil)) // another key
	sameKey := *ca
	sameKey.RawSubject = tlv(0x30)
	otherName := revocation.HashIssuer(&sameKey)
	var none revocation.IssuerHashes
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		der, err := ocsp.CreateRequest(leaf, ca, &ocsp.RequestOptions{Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		var r revocation.OCSPRequest
		if err := revocation.ParseOCSPRequest(der, &r); err != nil {
			t.Fatal(err)
		}
		if r.Hash != hash || r.CertSerial() != serial || r.HasNonce {
			t.Errorf("%v: %+v", hash, r)
		}
		if !mine.Match(&r) {
			t.Errorf("%v: the issuer isn't recognised", hash)
		}
		if sameName.Match(&r) || otherName.Match(&r) || none.Match(&r) {
			t.Errorf("%v: another issuer matches", hash)
		}
	}
	if mine.Match(&revocation.OCSPRequest{}) || none.Match(&revocation.OCSPRequest{}) ||
		none.Match(&revocation.OCSPRequest{Hash: crypto.SHA1, IssuerNameHash: make([]byte, 20), IssuerKeyHash: make([]byte, 20)}) {
		t.Error("nothing matches an issuer")
	}
	if h := revocation.HashIssuer(&x509.Certificate{}); h != none {
		t.Error("a certificate without a key has hashes")
	}
	// Section 2.2.3 of RFC 5019: SHA-384 isn't in it, so it goes unanswered.
	der, err := ocsp.CreateRequest(leaf, ca, &ocsp.RequestOptions{Hash: crypto.SHA384})
	if err != nil {
		t.Fatal(err)
	}
	if err := revocation.ParseOCSPRequest(der, new(revocation.OCSPRequest)); !errors.Is(err, revocation.ErrUnauthorized) {
		t.Errorf("SHA-384: %v", err)
	}
}

func TestRequestsCostNoMemory(t *testing.T) {
	ca, leaf := fixture(t, newKey(t), cert.NewSerial())
	issuer := revocation.HashIssuer(ca)
	plain, err := ocsp.CreateRequest(leaf, ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	var r revocation.OCSPRequest
	for name, der := range map[string][]byte{
		"plain": plain, "nonce": withExtensions(locator, plainNonce(32)), "malformed": plain[:len(plain)-1], "many": tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID), tlv(0x30, certID)))),
	} {
		if n := testing.AllocsPerRun(100, func() {
			if revocation.ParseOCSPRequest(der, &r) == nil {
				issuer.Match(&r)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Whatever strangers send: no panic, one of two errors, or a request whose
// fields are within their bounds, that says the same when it is written anew,
// and in which x/crypto reads the same.
func FuzzParseOCSPRequest(f *testing.F) {
	for _, der := range [][]byte{
		request(certID), withSerial(0, 0x80), withExtensions(critNonce(16), locator), withExtensions(plainNonce(0)),
		request(tlv(0x30, tlv(0x30, sha256OID), hash32, hash32b, serial7f)),
		tlv(0x30, tlv(0x30, tlv(0xa0, tlv(0x02, []byte{0})), requestor, tlv(0x30, tlv(0x30, certID, tlv(0xa0, tlv(0x30, locator)))), tlv(0xa2, tlv(0x30, plainNonce(1)))), signature),
		tlv(0x30, tlv(0x30, tlv(0x30, tlv(0x30, certID), tlv(0x30, certID)))),
	} {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var r revocation.OCSPRequest
		if err := revocation.ParseOCSPRequest(der, &r); err != nil {
			if !errors.Is(err, revocation.ErrMalformed) && !errors.Is(err, revocation.ErrUnauthorized) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		size := r.Hash.Size()
		if (r.Hash != crypto.SHA1 && r.Hash != crypto.SHA256) || len(r.IssuerNameHash) != size || len(r.IssuerKeyHash) != size {
			t.Fatalf("hashes: %+v", r)
		}
		if len(r.Serial) < 1 || len(r.Serial) > 20 || r.Serial[0] == 0 {
			t.Fatalf("serial %x", r.Serial)
		}
		if s, err := cert.ParseSerial(string(r.CertSerial())); err != nil || !bytes.Equal(s.Big().Bytes(), r.Serial) {
			t.Fatalf("serial %x is stored as %s: %v", r.Serial, s, err)
		}
		if r.HasNonce != (len(r.Nonce) > 0) || len(r.Nonce) > 128 {
			t.Fatalf("nonce %v of %d", r.HasNonce, len(r.Nonce))
		}
		oid := sha1OID
		if r.Hash == crypto.SHA256 {
			oid = sha256OID
		}
		number := r.Serial
		if number[0] >= 0x80 {
			number = append([]byte{0}, number...)
		}
		again := request(tlv(0x30, tlv(0x30, oid, asn1Null), tlv(0x04, r.IssuerNameHash), tlv(0x04, r.IssuerKeyHash), tlv(0x02, number)))
		second, err := ocsp.ParseRequest(again)
		if err != nil || second.HashAlgorithm != r.Hash || !bytes.Equal(second.IssuerNameHash, r.IssuerNameHash) ||
			!bytes.Equal(second.IssuerKeyHash, r.IssuerKeyHash) || !bytes.Equal(second.SerialNumber.Bytes(), r.Serial) {
			t.Fatalf("written anew: %v %+v, was %+v", err, second, r)
		}
		// x/crypto takes more and less than we do, but never something else.
		if second, err := ocsp.ParseRequest(der); err == nil && (second.HashAlgorithm != r.Hash || !bytes.Equal(second.SerialNumber.Bytes(), r.Serial) ||
			!bytes.Equal(second.IssuerKeyHash, r.IssuerKeyHash)) {
			t.Fatalf("x/crypto reads %+v, we %+v", second, r)
		}
	})
}

func BenchmarkParseOCSPRequest(b *testing.B) {
	ca, leaf := fixture(b, newKey(b), cert.Serial(strings.Repeat("7f", 16)))
	issuer := revocation.HashIssuer(ca)
	der, err := ocsp.CreateRequest(leaf, ca, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var r revocation.OCSPRequest
	for b.Loop() {
		if revocation.ParseOCSPRequest(der, &r) != nil || !issuer.Match(&r) {
			b.Fatal("no match")
		}
	}
}

package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// furnish puts something into every table.
func furnish(t *testing.T, db *store.DB) *storetest.Issuance {
	t.Helper()
	if err := storetest.Fill(t.Context(), db, 60); err != nil {
		t.Fatal(err)
	}
	i := storetest.NewIssuance(1000, time.Now())
	i.Certificate.CRLShard, i.Authorization.BoundTo, i.Authorization.Subject = 3, "cluster/pod/0", "cluster/pod/1"
	if err := issue(t.Context(), db, i); err != nil {
		t.Fatal(err)
	}
	part := bytes.Repeat([]byte{0, 255}, store.CRLPartSize/2)
	for n := range 3 {
		update(t, db, func(tx *store.Tx) error { return tx.PutCRLPart("0a", 3, 7, n, part) })
	}
	update(t, db, func(tx *store.Tx) error {
		_, err := tx.PublishCRL(store.CRL{IssuerKeyID: "0a", Shard: 3, Number: 7, Size: 3 * store.CRLPartSize, Parts: 3})
		_, put := tx.PutOCSP(store.OCSPResponse{Serial: i.Certificate.Serial, Hash: "sha1", IssuerKeyID: "0a", DER: []byte("good"), NextUpdate: tx.Now()})
		return errors.Join(err, put)
	})
	update(t, db, func(tx *store.Tx) error {
		_, ended := tx.EndAccount(i.Account.ID, protocol.AccountRevoked)
		_, revoked := tx.RevokeCertificate(i.Certificate.Serial, cert.Revoked{At: tx.Now(), Reason: cert.Superseded})
		_, taken := tx.Take("key", store.Limit{Count: 2, Per: time.Hour})
		_, number := tx.NextNumber("crl", 41)
		return errors.Join(ended, revoked, taken, number,
			tx.InsertEABKey(protocol.EABKey{ID: "key", Label: "a \"label\"\n", MACKey: []byte{0, 1, 255}, PreApproved: true}),
			tx.BlockKey("00ff", "lost"), tx.PutSecret("s", []byte{0, 255}),
			tx.Audit(audit.Entry{Action: "last", Actor: "x"}))
	})
	return i
}

func dump(t *testing.T, db *store.DB) string {
	t.Helper()
	var b bytes.Buffer
	if err := db.Dump(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rows are a dump's lines without its header and trailer, and without the
// table that only PostgreSQL has.
func rows(dump string) string {
	_, body, _ := strings.Cut(dump, "\n")
	body, _, _ = strings.Cut(body, `{"rows":`)
	body, _, _ = strings.Cut(body, `{"table":"audit_unsequenced"`)
	return body
}

// A dump carries everything from each engine to each.
func TestDumpAndLoad(t *testing.T) {
	for _, from := range storetest.Engines() {
		source := open(t, store.Options{DSN: dsn(t, from)})
		i := furnish(t, source)
		update(t, source, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 1<<20); return err })
		text := dump(t, source)
		for _, to := range storetest.Engines() {
			t.Run(from+" to "+to, func(t *testing.T) {
				target := open(t, store.Options{DSN: dsn(t, to)})
				if err := target.Load(t.Context(), strings.NewReader(text)); err != nil {
					t.Fatal(err)
				}
				got, want := strings.Split(rows(dump(t, target)), "\n"), strings.Split(rows(text), "\n")
				for n := range want {
					if n >= len(got) || got[n] != want[n] {
						t.Fatalf("what was loaded isn't what was dumped: row %d\n%s\n%s", n, want[n], got[min(n, len(got)-1)])
					}
				}
				if n, err := target.VerifyAudit(t.Context()); n != 306 || err != nil {
					t.Errorf("%d audit entries, want 306: %v", n, err)
				}
				c, err := target.Certificate(t.Context(), i.Certificate.Serial)
				if err != nil || !bytes.Equal(c.DER, i.DER) || c.Revoked.Reason != cert.Superseded {
					t.Errorf("the certificate: %+v, %v", c, err)
				}
				if z, err := target.Authorization(t.Context(), i.Authorization.ID); err != nil || z.Subject != "cluster/pod/1" || z.BoundTo != "cluster/pod/0" {
					t.Errorf("the authorization: %+v, %v", z, err)
				}
				if c.CRLShard != 3 {
					t.Errorf("its shard is %d, want 3", c.CRLShard)
				}
				// An old list would be served until there is a new one, with a
				// number below what relying parties saw (RFC 5280 section 5.2.3).
				if l, err := target.CRL(t.Context(), "0a", 3); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("a list was restored: %+v, %v", l, err)
				}
				// A backup's answers may be older than a revocation.
				if _, r, err := target.OCSP(t.Context(), i.Certificate.Serial, "sha1"); err != nil || r.DER != nil || !r.WantedAt.IsZero() {
					t.Errorf("an OCSP answer, or its want, was restored: %+v, %v", r, err)
				}
				// The chain and the numbers go on where they were.
				update(t, target, func(tx *store.Tx) error {
					n, err := tx.NextNumber("crl", 0)
					if n != 42 {
						t.Errorf("the next CRL number is %d, want 42", n)
					}
					return errors.Join(err, tx.Audit(audit.Entry{Action: "next", Actor: "x"}))
				})
				update(t, target, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 10); return err })
				if n, err := target.VerifyAudit(t.Context()); n != 307 || err != nil {
					t.Errorf("%d audit entries, want 307: %v", n, err)
				}
				if err := target.Load(t.Context(), strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "isn't empty") {
					t.Errorf("loaded twice: %v", err)
				}
			})
		}
	}
}

// Entries that PostgreSQL hasn't sequenced yet aren't lost on the way.
func TestDumpUnsequenced(t *testing.T) {
	for _, to := range storetest.Engines() {
		source := open(t, store.Options{DSN: dsn(t, storetest.Engines()[len(storetest.Engines())-1])})
		for n := range 3 {
			update(t, source, func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: fmt.Sprint("a", n), Actor: "x"}) })
			if n == 1 {
				update(t, source, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 10); return err })
			}
		}
		target := open(t, store.Options{DSN: dsn(t, to)})
		if err := target.Load(t.Context(), strings.NewReader(dump(t, source))); err != nil {
			t.Fatal(err)
		}
		update(t, target, func(tx *store.Tx) error { _, err := tx.SequenceAudit(tx.Now(), "test", 10); return err })
		if n, err := target.VerifyAudit(t.Context()); n != 3 || err != nil {
			t.Errorf("to %s: %d audit entries, want 3: %v", to, n, err)
		}
	}
}

// What an older version dumped, which knew fewer columns, can be loaded.
func TestLoadOlder(t *testing.T) {
	text := `{"format":"chancery dump","version":1,"engine":"sqlite","at":"2026-11-21T12:00:00Z","migrations":["0001_first.sql"]}
{"table":"certificates","columns":["serial","state","order_id","account","directory","profile","issuer","issuer_key_id","names","der","key_hash","not_before","not_after","planned_at","revoked_at","revoked_reason","replaced_by","claimed_until"]}
["AQI=","issued","o","a","servers","server","issuing","CgsM","dns:a.example","MAA=","AA==",1,2,1,0,0,"",0]
`
	text += fmt.Sprintf(`{"rows":1,"sha256":"%x"}`+"\n", sha256.Sum256([]byte(text)))
	for _, to := range storetest.Engines() {
		db := open(t, store.Options{DSN: dsn(t, to)})
		if err := db.Load(t.Context(), strings.NewReader(text)); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		c, err := db.Certificate(t.Context(), "0102")
		if err != nil || c.IssuerKeyID != "0a0b0c" || c.State != cert.Issued || c.CRLShard != 0 || c.Client != "" {
			t.Errorf("%s: %+v, %v", to, c, err)
		}
	}
}

// A dump that was cut, altered or is of the future is refused, and leaves
// nothing behind.
func TestLoadRefuses(t *testing.T) {
	source := open(t, store.Options{DSN: dsn(t, "sqlite")})
	furnish(t, source)
	good := dump(t, source)
	lines := strings.SplitAfter(good, "\n")
	db := open(t, store.Options{DSN: dsn(t, "sqlite")})
	for name, test := range map[string]struct{ dump, want string }{
		"empty":          {"", "too early"},
		"not a dump":     {"hello\n", "not a dump"},
		"newer format":   {strings.Replace(good, `"version":1`, `"version":2`, 1), "newer version"},
		"newer schema":   {strings.Replace(good, `"0001_first.sql"`, `"0001_first.sql","9999_future.sql"`, 1), "newer version"},
		"cut":            {good[:len(good)/2], ""},
		"trailer gone":   {strings.Join(lines[:len(lines)-2], ""), "too early"},
		"row gone":       {strings.Join(append(append([]string{}, lines[:20]...), lines[21:]...), ""), "damaged"},
		"altered":        {strings.Replace(good, "servers", "clients", 1), "damaged"},
		"doubled":        {good + good, "follows"},
		"unknown table":  {strings.Replace(good, `{"table":"numbers"`, `{"table":"sqlite_schema"`, 1), "unknown table"},
		"unknown column": {strings.Replace(good, `"columns":["name","value"]`, `"columns":["name","value); DROP TABLE orders; --"]`, 1), "unknown column"},
		"no column":      {strings.Replace(good, `"columns":["name","value"]`, `"columns":[]`, 1), "no columns"},
		"wrong type":     {strings.Replace(good, `["crl",41]`, `["crl","x"]`, 1), ""},
		"too few":        {strings.Replace(good, `["crl",41]`, `["crl"]`, 1), "1 values"},
		"empty line":     {strings.Replace(good, `["crl",41]`, "", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := db.Load(t.Context(), strings.NewReader(test.dump))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
		})
	}
	if err := db.Load(t.Context(), strings.NewReader(good)); err != nil {
		t.Fatalf("a good dump after all these: %v", err)
	}
}

// A dump shows one moment, whatever is written meanwhile.
func TestDumpWhileWriting(t *testing.T) {
	for _, engine := range storetest.Engines() {
		db := open(t, store.Options{DSN: dsn(t, engine)})
		pair := func(n int) error {
			return db.Update(t.Context(), func(tx *store.Tx) error {
				return errors.Join(tx.PutSecret("a", fmt.Append(nil, n)), tx.BlockKey(fmt.Sprintf("%04x", n), "b"))
			})
		}
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
					if err := pair(n); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		for range 5 {
			target := open(t, store.Options{DSN: dsn(t, "sqlite")})
			r, w := io.Pipe()
			go func() { w.CloseWithError(db.Dump(t.Context(), w)) }()
			if err := target.Load(t.Context(), r); err != nil {
				t.Error(err)
			}
			a, err := target.Secret(t.Context(), "a")
			if errors.Is(err, store.ErrNotFound) {
				continue // nothing yet
			}
			var n int
			fmt.Sscan(string(a), &n)
			last, err1 := target.KeyBlocked(t.Context(), fmt.Sprintf("%04x", n))
			next, err2 := target.KeyBlocked(t.Context(), fmt.Sprintf("%04x", n+1))
			if !last || next || err != nil || err1 != nil || err2 != nil {
				t.Errorf("%s: the dump has secret %d, its key %v, the next key %v", engine, n, last, next)
			}
		}
		close(stop)
		writer.Wait()
	}
}

// FuzzLoad feeds Load what isn't a dump: it must refuse it or load it whole.
func FuzzLoad(f *testing.F) {
	db := open(f, store.Options{DSN: dsn(f, "sqlite")})
	header := `{"format":"chancery dump","version":1,"migrations":["0001_first.sql"]}` + "\n"
	for _, s := range []string{
		"", "\n", "[]\n", header, header + `{"rows":0,"sha256":""}`, header + `{"table":"orders","columns":["id"]}` + "\n[\"x\"]\n",
		header + `{"table":"secrets","columns":["name","value"]}` + "\n" + `["a","AAE="]` + "\n" + `{"rows":1,"sha256":"00"}` + "\n",
		header + `{"table":"audit","columns":["sequence","sequence"]}` + "\n[1,2]\n[null,{}]\n", header + `{"table":"limits"` + "\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := db.Load(t.Context(), strings.NewReader(text)); err == nil {
			t.Errorf("loaded: %q", text) // a SHA-256 was guessed
		}
		if _, err := db.Secret(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("half of a dump stayed: %v", err)
		}
	})
}

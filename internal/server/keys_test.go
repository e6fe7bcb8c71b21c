package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/signer"
)

// A bad reading of the configuration changes nothing: keys in use go on, also
// where their file has another key by now. A good one lets go of the others.
func TestKeysOfAReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.key")
	fresh := func() *x509.Certificate { // another key in the same file
		t.Helper()
		_ = os.Remove(path) // none the first time
		key, err := signer.Generate(cert.P256, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := issuer.NewRoot(key, issuer.CA{CommonName: "A", Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	k := newKeyring(log)
	signing := config.Signing{Renewal: .35, OCSP: .04, CRL: .01}
	read := func(good bool, certificates ...*x509.Certificate) (q *signer.Queue) {
		t.Helper()
		k.begin()
		for _, c := range certificates {
			var err error
			q, err = k.open(t.Context(), where{
				uris: []string{"file:" + path}, key: certified(c), signing: signing, position: func(_ string, err error) error { return err },
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		k.end(good)
		k.running.Wait()
		return q
	}
	works := func(q *signer.Queue) bool {
		_, err := q.Sign(context.Background(), signer.Request{}, make([]byte, 32), crypto.SHA256)
		if err != nil && !errors.Is(err, signer.ErrAway) {
			t.Error(err)
		}
		return err == nil
	}
	one := fresh()
	first := read(true, one)
	if again := read(true, one); again != first || !works(first) {
		t.Error("the same key got another queue")
	}
	two := fresh()
	second := read(false, two)
	if second == first || works(second) || !works(first) || k.queues["file:"+path].queue != first {
		t.Error("a bad configuration changed the keys in use")
	}
	third := read(true, two)
	if works(first) || !works(third) {
		t.Error("a good one didn't")
	}
	read(true)
	if works(third) || len(k.all()) != 0 {
		t.Error("a key that is named no more is kept")
	}
}

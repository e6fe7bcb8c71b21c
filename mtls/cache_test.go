package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

var cacheKey = bytes.Repeat([]byte{1}, 32)

// TestCache: after a restart the certificates are there without any CA, with
// their keys, and are renewed in their time.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		path := filepath.Join(t.TempDir(), "cache")
		w.cfg.Cache = SealedFile(path, cacheKey)
		id := w.ready()
		server, client := serverLeaf(t, id, "a.test").Leaf, clientLeaf(t, id).Leaf
		id.Close()
		w.cas[0].Set(fakeca.Away)
		w.cfg.Cache = SealedFile(path, cacheKey)
		id = w.ready()
		if !serverLeaf(t, id, "a.test").Leaf.Equal(server) || !clientLeaf(t, id).Leaf.Equal(client) {
			t.Error("other certificates")
		}
		if !id.Health().OK {
			t.Errorf("%+v", id.Health())
		}
		w.cas[0].Set(fakeca.None)
		time.Sleep(18 * time.Hour)
		if serverLeaf(t, id, "a.test").Leaf.Equal(server) {
			t.Error("not renewed")
		}
		server = serverLeaf(t, id, "a.test").Leaf
		id.Close()
		w.cas[0].Set(fakeca.Away)
		id = w.ready()
		if !serverLeaf(t, id, "a.test").Leaf.Equal(server) {
			t.Error("the renewed one is not in the cache")
		}
		id.Close()
		raw, _ := os.ReadFile(path)
		if bytes.Contains(raw, []byte("a.test")) {
			t.Error("the file is in clear")
		}
		time.Sleep(24 * time.Hour)
		id = w.start()
		time.Sleep(time.Second)
		if _, err := id.serverCertificate(hello("a.test")); err == nil {
			t.Error("an entry that has ended is used")
		}
		id.Close()
	})
}

// clear keeps entries as they are: what a test puts there is loaded.
type clearCache map[string][]byte

func (c clearCache) Load(name string) ([]byte, error) { return bytes.Clone(c[name]), nil }
func (c clearCache) Store(name string, data []byte) error {
	c[name] = bytes.Clone(data)
	return nil
}

// TestCacheIsChecked: an entry is believed as little as a CA.
func TestCacheIsChecked(t *testing.T) {
	w := newWorld(t, 2)
	defer w.end()
	kept := clearCache{}
	w.cfg.Cache, w.cfg.Usage = kept, UsageServer
	id := w.ready()
	first := serverLeaf(t, id, "a.test").Leaf
	id.Close()
	good := kept["server a.test"]
	if good == nil {
		t.Fatalf("%v", kept)
	}
	change := func(f func(*cached)) []byte {
		var e cached
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		f(&e)
		data, _ := json.Marshal(e)
		return data
	}
	strange := fakeca.New(time.Now)
	otherKey, _ := memkey.New()
	otherDER, _ := otherKey.PKCS8()
	for name, tc := range map[string]struct {
		data   []byte
		change func(*Config)
		used   bool
	}{
		"as it was":        {good, nil, true},
		"no JSON":          {good[:len(good)-3], nil, false},
		"another key":      {change(func(e *cached) { e.Key = otherDER }), nil, false},
		"no key":           {change(func(e *cached) { e.Key = nil }), nil, false},
		"no chain":         {change(func(e *cached) { e.Chains = nil }), nil, false},
		"an empty chain":   {change(func(e *cached) { e.Chains[0] = nil }), nil, false},
		"no intermediate":  {change(func(e *cached) { e.Chains[0] = e.Chains[0][:1] }), nil, false},
		"many chains":      {change(func(e *cached) { e.Chains = append(e.Chains, make([][][]byte, 10)...) }), nil, false},
		"a chain of zeros": {change(func(e *cached) { e.Chains[0][1] = make([]byte, 100) }), nil, false},
		"a CA of the past": {change(func(e *cached) { e.Directory = strange.Directory() + "/x" }), nil, false},
		"other names now":  {good, func(c *Config) { c.Names = []string{"a.test", "b.test"} }, false},
		"other roots now":  {good, func(c *Config) { c.Trust = believing(t, w.cas[1].Pool()); c.CAs = c.CAs[1:] }, false},
		"keys elsewhere":   {good, func(c *Config) { c.NewKey = func() (crypto.Signer, error) { return memkey.New() } }, false},
	} {
		cfg := w.cfg
		for k := range kept {
			delete(kept, k)
		}
		kept["server a.test"], kept["server a.test,b.test"] = tc.data, tc.data
		if tc.change != nil {
			tc.change(&cfg)
		}
		id, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if used := serverLeaf(t, id, "a.test").Leaf.Equal(first); used != tc.used {
			t.Errorf("%s: used is %v", name, used)
		}
		id.Close()
	}
}

// TestCacheThatFails stops nobody.
func TestCacheThatFails(t *testing.T) {
	w := newWorld(t, 1)
	defer w.end()
	w.cfg.Cache = SealedFile(filepath.Join(t.TempDir(), "no", "where"), cacheKey)
	w.ready().Close()
	if !strings.Contains(w.log.String(), "could not be put into the cache") {
		t.Errorf("%s", w.log)
	}
}

// FuzzCached: no entry makes us panic or serve with a key that isn't the
// certificate's.
func FuzzCached(f *testing.F) {
	w := newWorld(f, 1)
	defer w.end()
	kept := clearCache{}
	w.cfg.Cache, w.cfg.Usage = kept, UsageServer
	id := w.ready()
	defer id.Close()
	f.Add(kept["server a.test"])
	f.Add([]byte(`{"directory":"https://ca0.test/directory","key":"AA==","chains":[[null],[]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := id.uncached(id.server, data)
		if err == nil && !c.Key.Public().(*ecdsa.PublicKey).Equal(c.Leaf().PublicKey) {
			t.Error("another key")
		}
	})
}

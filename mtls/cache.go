package mtls

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
	"github.com/chancery-pki/chancery/mtls/internal/sealed"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// SealedFile is a [Cache] in one file: sealed by AES-256-GCM under a key of 32
// random bytes, readable by its owner only, replaced as a whole and on disk
// before Store returns. A file that was tampered with is ignored. What an
// attacker with the file and the key gains is the running certificates' keys,
// until they end. Of several processes with one file the last writer wins:
// give each its own.
func SealedFile(path string, key []byte) Cache { return sealed.New(path, key) }

// cacheOf is the identity's cache, one call at a time.
type cacheOf struct {
	Cache
	mu sync.Mutex
}

// cached is what is kept of one certificate.
type cached struct {
	Directory string     `json:"directory"`
	Key       []byte     `json:"key"`    // PKCS #8
	Chains    [][][]byte `json:"chains"` // DER, leaf first
}

func cacheName(s *slot.Slot) string { return s.Usage() + " " + strings.Join(s.Names, ",") }

// storeCache keeps a new certificate of Names. A failure is told, no more.
func (id *Identity) storeCache(s *slot.Slot, c *issued.Credential) {
	if id.cache.Cache == nil || s.OnDemand() {
		return
	}
	key, ok := c.Key.(*memkey.Key)
	if !ok {
		return // lives elsewhere
	}
	entry := cached{Directory: id.cas[c.CA].Directory}
	var err error
	if entry.Key, err = key.PKCS8(); err == nil {
		defer clear(entry.Key)
		for _, chain := range c.Chains {
			entry.Chains = append(entry.Chains, chain.Certificate)
		}
		var data []byte
		if data, err = json.Marshal(entry); err == nil {
			defer clear(data)
			id.cache.mu.Lock()
			defer id.cache.mu.Unlock()
			err = id.cache.Store(cacheName(s), data)
		}
	}
	if err != nil {
		id.log.Warn("mtls: the certificate could not be put into the cache", "certificate", s.String(), "error", err)
	}
}

// loadCache takes what the cache has for Names, as far as it passes the checks
// that a CA's answer has to pass.
func (id *Identity) loadCache() {
	if id.cache.Cache == nil || id.cfg.NewKey != nil {
		return
	}
	for _, s := range id.base() {
		if s.Current.Load() != nil { // the server's is good for both
			continue
		}
		id.cache.mu.Lock()
		data, err := id.cache.Load(cacheName(s))
		id.cache.mu.Unlock()
		var c *issued.Credential
		if err == nil && data != nil {
			c, err = id.uncached(s, data)
			clear(data)
		}
		if err != nil {
			id.log.Warn("mtls: what the cache holds is not used", "certificate", s.String(), "error", err)
		}
		if c != nil {
			id.install(s, c, time.Time{})
		}
	}
}

func (id *Identity) uncached(s *slot.Slot, data []byte) (*issued.Credential, error) {
	var entry cached
	if err := json.Unmarshal(data, &entry); err != nil {
		return nil, err
	}
	defer clear(entry.Key)
	key, err := memkey.Parse(entry.Key)
	if err != nil {
		return nil, err
	}
	for _, ca := range id.cas {
		if ca.Directory != entry.Directory || !id.among(s)(ca.Number) {
			continue
		}
		c, err := ca.Check(s.Names, s.Client, entry.Chains, key)
		if err != nil {
			key.Erase()
		}
		return c, err
	}
	key.Erase()
	return nil, fmt.Errorf("it is from %q, which is not among the CAs any more", entry.Directory)
}

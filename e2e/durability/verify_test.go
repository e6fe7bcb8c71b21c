package durability

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// verify fetches everything the clients were told about, while they rest, and
// compares: all of it, or what changed since it was verified last.
func (l *load) verify(all bool) {
	l.w.Helper()
	work := make(chan func(), 64)
	var wg sync.WaitGroup
	h := l.http()
	defer h.CloseIdleConnections()
	for range 4 {
		wg.Go(func() {
			for f := range work {
				f()
			}
		})
	}
	for _, a := range l.accounts {
		if all || slices.Contains(l.accounts[max(0, len(l.accounts)-24):], a) {
			work <- func() { l.verifyAccount(h, a) }
		}
	}
	for _, o := range l.orders {
		if all || !o.checked {
			o.checked = o.chain != nil
			work <- func() { l.verifyOrder(h, o) }
		}
	}
	close(work)
	wg.Wait()
}

func (l *load) verifyAccount(h *http.Client, a *account) {
	c := &acme.Client{DirectoryURL: l.s.directory("servers"), HTTPClient: h, Key: a.key}
	found, err := c.Register(l.w.Context(), acme.Registration{OnlyReturnExisting: true})
	if err != nil || found.URL != a.url || found.Status != acme.StatusValid {
		l.w.Errorf("account %s is lost: found %s, %s, %v", a.url, found.URL, found.Status, err)
	}
}

func (l *load) verifyOrder(h *http.Client, o *order) {
	ctx := l.w.Context()
	c := &acme.Client{DirectoryURL: l.s.directory("servers"), HTTPClient: h, Key: o.key, AccountURL: o.url}
	now, err := c.Order(ctx, o.told.URL)
	if err != nil {
		l.w.Errorf("order %s, which was %s, is lost: %v", o.told.URL, o.told.Status, err)
		return
	}
	o.tell(now)
	for url := range o.proofs {
		z, err := c.Authorization(ctx, url)
		if err != nil {
			l.w.Errorf("authorization %s, which was %s, is lost: %v", url, o.proofs[url], err)
			continue
		}
		o.proven(url, z.Status)
	}
	if now.Certificate == "" {
		return
	}
	chain, err := c.Certificate(ctx, now.Certificate)
	if err != nil {
		l.w.Errorf("the certificate of order %s is lost: %v", o.told.URL, err)
		return
	}
	o.got(chain)
}

// compare holds what the clients got against what the CA has recorded, once
// all clients have finished: the same certificates, and no others but for
// orders whose making was never answered, which can't have any.
func (l *load) compare() {
	l.w.Helper()
	recorded := l.s.census(l.w)
	for _, o := range l.orders {
		id := o.told.URL[strings.LastIndexByte(o.told.URL, '/')+1:]
		if o.chain == nil {
			l.w.Errorf("order %s came to no certificate; it is %s", o.told.URL, o.told.Status)
		}
		if _, ok := recorded[id]; !ok {
			l.w.Errorf("the CA has no record of the certificate of order %s", o.told.URL)
		}
		delete(recorded, id)
	}
	for id, c := range recorded {
		l.w.Errorf("certificate %s of order %s is nobody's", c.Serial, id)
	}
}

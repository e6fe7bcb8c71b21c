package login

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// place puts a certificate into all its places, notes it, and takes away what
// the login before left. What was put somewhere is noted even where another
// place fails, so that logout finds it.
func (r *run) place(ctx context.Context, w *want) (*Held, error) {
	h, err := w.got.held()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, into := range w.into() {
		var placed place.Placed
		if w.Kind == settings.SSH {
			placed, err = r.placeSSH(into, w.got)
		} else {
			placed, err = r.placeTLS(ctx, into, w.got)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("putting it into %s: %w", into, err))
		}
		if len(placed.Where) > 0 { // with an error, too: what was done nevertheless
			h.Placed = append(h.Placed, placed)
		}
	}
	if len(h.Placed) == 0 { // nobody could use it
		return nil, errors.Join(errs...)
	}
	old, err := r.State.put(h)
	if err != nil { // what isn't noted nobody would ever take away
		for _, p := range h.Placed {
			errs = append(errs, r.places(r.uri).remove(ctx, p))
		}
		return nil, errors.Join(append(errs, fmt.Errorf("it can't be noted, and was taken away again: %w", err))...)
	}
	if old != nil {
		errs = append(errs, r.replace(ctx, *old, h))
	}
	return &h, errors.Join(errs...)
}

// into is where a certificate goes.
func (w *want) into() []string {
	switch {
	case len(w.Into) > 0:
		return w.Into
	case w.Kind == settings.SSH:
		return []string{"agent"}
	}
	return []string{"files"}
}

func (r *run) placeTLS(ctx context.Context, into string, a *attempt) (place.Placed, error) {
	t, err := r.places(r.uri).named(into)
	if err != nil {
		return place.Placed{}, err
	}
	roots, err := rootsOf(a.ca.Roots)
	if err != nil {
		return place.Placed{}, err
	}
	return t.Put(ctx, place.Pair{Name: a.want.Name, Chain: a.chain, Key: a.key, Roots: roots})
}

// rootsOf reads the certificates of a PEM file in DER.
func rootsOf(name string) ([][]byte, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			all = append(all, block.Bytes)
		}
	}
	return all, nil
}

// replace takes away what a login before left and the new one didn't write over.
// Places take away nothing that came later.
func (r *run) replace(ctx context.Context, old, now Held) error {
	var errs []error
	for _, p := range old.Placed {
		if p.Target == inOurs {
			p.Where = slices.DeleteFunc(slices.Clone(p.Where), now.uses)
		}
		if err := r.places(r.uri).remove(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("taking away what was in %s: %w", p.Target, err))
		}
	}
	return errors.Join(errs...)
}

// uses reports whether a file is one of a certificate's.
func (h Held) uses(name string) bool {
	return slices.ContainsFunc(h.Placed, func(p place.Placed) bool { return slices.Contains(p.Where, name) })
}

// places finds the places for certificates of a device's slot.
func (r *run) places(uri string) places {
	return places{r.Places, place.Slot{Cards: r.Cards, URI: uri, Set: yubikey.SetOptions{PIN: func(ctx context.Context) ([]byte, error) {
		if err := r.askPIN(ctx); err != nil {
			return nil, err
		}
		return slices.Clone(r.pin), nil
	}}}}
}

// held is what is noted of a certificate.
func (a *attempt) held() (Held, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.ca.client.Key)
	if err != nil {
		return Held{}, err
	}
	var names []string
	for _, id := range a.want.ids {
		names = append(names, id.Value)
	}
	h := Held{
		Name: a.want.Name, Kind: a.want.Kind, For: strings.Join(names, ", "), CA: a.ca.CA, Challenge: a.want.Challenge,
		Serial: a.serial, NotBefore: a.notBefore.UTC(), NotAfter: a.notAfter.UTC(), Certificate: a.wire,
		Account: Account{URL: a.ca.account, Key: key},
	}
	if a.wire == nil {
		h.Certificate = a.chain[0]
	}
	return h, nil
}

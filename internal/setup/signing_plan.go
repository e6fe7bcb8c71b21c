package setup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/plan"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Found is what a running server says of one of its issuers, for the plan of
// its signing budget. What it doesn't know is zero; Notes say what was read and
// what was taken for granted.
type Found struct {
	Alive        int // unexpired certificates
	Keys         []plan.Key
	Lifetime     time.Duration
	OCSPValidity time.Duration // 0: none of its certificates has OCSP
	Lists        int           // revocation lists per key
	ListEvery    time.Duration // between two makings of one
	Shares       schedule.Shares
	Notes        []string
}

// assumedSignature stands for the time of a key that hasn't signed yet: a
// card's usual one, and a file's at most.
const (
	assumedSignature = 200 * time.Millisecond
	assumedInMemory  = time.Millisecond
)

// PlanFrom reads what a running server said. The issuer may be "" where
// only one of them signs here. Keys that are retired or away don't count:
// they sign nothing.
func PlanFrom(s api.Signing, issuer string) (Found, error) {
	found := Found{Shares: schedule.DefaultShares()}
	i, err := pick(s, issuer)
	if err != nil {
		return found, err
	}
	note := func(format string, args ...any) { found.Notes = append(found.Notes, fmt.Sprintf(format, args...)) }
	for _, k := range i.Keys {
		found.Alive += int(k.Live)
		switch {
		case k.State == "retired":
			continue
		case k.State == "away":
			note("%s is away and doesn't count: %s", k.Subject, k.Reason)
			continue
		}
		key := plan.Key{Name: k.Subject, Signature: inSeconds(k.Signature), Parallel: k.Parallel}
		if key.Signature <= 0 {
			key.Signature = assumedSignature
			if slices.ContainsFunc(k.URIs, func(uri string) bool { return strings.HasPrefix(uri, "file:") }) {
				key.Signature = assumedInMemory
			}
			note("%s has signed nothing yet: %s a signature taken for granted", k.Subject, key.Signature.String())
		}
		found.Keys = append(found.Keys, key)
	}
	for c := range schedule.Classes {
		if share, ok := s.Shares[c.String()]; ok {
			found.Shares[c] = share
		}
	}
	found.profiles(i, note)
	note("read from the server: issuer %s with %d certificates alive and %d keys that sign", i.Name, found.Alive, len(found.Keys))
	return found, nil
}

// pick finds the issuer.
func pick(s api.Signing, name string) (api.SigningIssuer, error) {
	var names []string
	var with []api.SigningIssuer
	for _, i := range s.Issuers {
		if len(i.Keys) == 0 {
			continue
		}
		if i.Name == name {
			return i, nil
		}
		names, with = append(names, i.Name), append(with, i)
	}
	switch {
	case len(with) == 0:
		return api.SigningIssuer{}, errors.New("the server has no issuer with keys")
	case name != "":
		return api.SigningIssuer{}, fmt.Errorf("the server has no issuer %q; it has %s", name, strings.Join(names, ", "))
	case len(with) > 1:
		return api.SigningIssuer{}, fmt.Errorf("the server has several issuers, each with keys of its own: name one of %s", strings.Join(names, ", "))
	}
	return with[0], nil
}

// profiles reads what kinds of certificates there are. Of several lifetimes
// the shortest counts: it is renewed most often.
func (f *Found) profiles(i api.SigningIssuer, note func(string, ...any)) {
	var shortest, longest time.Duration
	plain := 0
	for _, p := range i.Profiles {
		life := inSeconds(p.Lifetime)
		if shortest == 0 || life < shortest {
			shortest = life
		}
		longest = max(longest, life)
		if strings.Contains(p.Revocation, "ocsp") {
			f.OCSPValidity = inSeconds(i.OCSPValidity)
		} else {
			plain++
		}
		if strings.Contains(p.Revocation, "crl") {
			f.Lists, f.ListEvery = i.CRLs, inSeconds(i.CRLValidity)/3 // when each is made anew
		}
	}
	f.Lifetime = shortest
	if shortest != longest {
		note("profiles live from %v to %v; all are taken to live the shortest time", shortest, longest)
	}
	if f.OCSPValidity > 0 && plain > 0 {
		note("some profiles have no OCSP; all certificates are taken to have it")
	}
}

// inSeconds makes a duration of seconds; more than a thousand years are no
// duration.
func inSeconds(s float64) time.Duration {
	if !(s > 0 && s < 1000*365*24*3600) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// DNSPersist01 looks for a lasting TXT record at _validation-persist that
// names the CA and the account (draft-ietf-acme-dns-persist-02). What is
// fresh is the request, signed by the account's key; the record may be years
// old.
type DNSPersist01 struct {
	Resolver *Resolver
	// Issuers are the CA's issuerDomainNames: lower case, no dot at the end,
	// one to ten (section 3.1).
	Issuers []string
	// HashPrefix is the CA's accountHashPrefix, a URL that must stay
	// (section 4.1).
	HashPrefix string
	// PlainAccountURL also takes the account's URL itself as accounturi, as
	// drafts -00 and -01 had it and -02 forbids, for clients made to those.
	PlainAccountURL bool
	// Subdomains also takes a parent's record with policy=wildcard, which
	// section 6 leaves to the CA; never that of a top-level name.
	Subdomains bool
}

// year9999 stands for every later persistUntil, which no clock could add to.
const year9999 = 253402300799

// maxParents bounds the lookups for Subdomains.
const maxParents = 8

// Validate looks the record up, at the name and, with Subdomains, above it.
// It blocks for at most the resolver's timeout for each. Where there is no
// record for this CA it may be tried again; a record that is for it and
// doesn't fit is final. A record's persistUntil is in the evidence as
// ValidUntil: nothing may rely on the record beyond that time (section 4.1).
func (d DNSPersist01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	if v.Identifier.Type != protocol.DNS {
		return protocol.Evidence{}, no(protocol.Malformed, false, "dns-persist-01 can't prove an address; use http-01 or tls-alpn-01")
	}
	now := time.Now()
	at := v.Identifier.Value
	until, first := d.look(ctx, at, v, v.Wildcard, now)
	err := first
	if d.Subdomains {
		for range maxParents {
			_, parent, ok := strings.Cut(at, ".")
			if err == nil || !ok || !strings.Contains(parent, ".") {
				break
			}
			at = parent
			until, err = d.look(ctx, at, v, true, now)
		}
	}
	if err != nil {
		return protocol.Evidence{}, outcome(ctx, first)
	}
	seen := protocol.Evidence{Type: protocol.DNSPersist01, Target: persistLabel + at, SeenAt: now, ValidUntil: until}
	if !until.IsZero() {
		seen.Detail = "persistUntil=" + strconv.FormatInt(until.Unix(), 10)
	}
	return seen, nil
}

const persistLabel = "_validation-persist."

// look tries every record at one name (section 4.3.2).
func (d DNSPersist01) look(ctx context.Context, name string, v protocol.Validation, wildcard bool, now time.Time) (until time.Time, err error) {
	values, err := d.Resolver.TXT(ctx, persistLabel+name)
	if err != nil {
		return until, err
	}
	err = no(protocol.Unauthorized, true, "there is no TXT record at %s%s for %s; it should be %q", persistLabel, name,
		strings.Join(d.Issuers, " or "), d.Record(name, v, wildcard))
	for _, value := range values {
		if !d.concerns(value) {
			continue
		}
		if until, err = d.check(value, name, v, wildcard, now); err == nil {
			return until, nil
		}
	}
	return time.Time{}, err
}

// Record is the value that proves a name for an account, as a client should
// publish it.
func (d DNSPersist01) Record(name string, v protocol.Validation, wildcard bool) string {
	issuer := ""
	if len(d.Issuers) > 0 {
		issuer = d.Issuers[0]
	}
	record := issuer + "; accounturi=" + d.accountHash(name, v)
	if wildcard {
		record += "; policy=wildcard"
	}
	return record
}

// accountHash is the hashed account URI for a record at a name, "*" for one
// that serves every name (section 4.1 item 3). Its inputs are public.
func (d DNSPersist01) accountHash(name string, v protocol.Validation) string {
	digest := sha256.Sum256([]byte(string([]byte{byte(len(name))}) + name + v.Thumbprint + v.AccountURL))
	return d.HashPrefix + "sha-256/" + base64.RawURLEncoding.EncodeToString(digest[:])
}

// concerns reports whether a record is for this CA, well-formed or not; the
// others are none of our business, nor the client's through us.
func (d DNSPersist01) concerns(value string) bool {
	head, _, _ := strings.Cut(value, ";")
	return slices.Contains(d.Issuers, strings.ToLower(trimWSP(head)))
}

// check judges one of our records by sections 4.1 and 9.3.1 and returns its
// persistUntil, the zero time if it has none.
func (d DNSPersist01) check(value, name string, v protocol.Validation, wildcard bool, now time.Time) (end time.Time, err error) {
	at := persistLabel + name
	record, err := parseIssueValue(value)
	if err != nil {
		return end, no(protocol.Malformed, false, "the TXT record at %s is %s", at, err)
	}
	account, times := record.get("accounturi")
	if times != 1 {
		return end, no(protocol.Malformed, false, "the TXT record at %s must have exactly one accounturi", at)
	}
	policy, times := record.get("policy")
	if times > 1 {
		return end, no(protocol.Malformed, false, "the TXT record at %s has more than one policy", at)
	}
	until, times := record.get("persistuntil")
	if times > 0 {
		seconds, err := strconv.ParseInt(until, 10, 64)
		if times > 1 || err != nil || strings.HasPrefix(until, "+") {
			return end, no(protocol.Malformed, false, "the TXT record at %s must have at most one persistUntil, in seconds since 1970", at)
		}
		if now.Unix() > seconds {
			return end, no(protocol.Unauthorized, false, "the TXT record at %s was good until %s", at, until)
		}
		end = time.Unix(min(seconds, year9999), 0)
	}
	if !d.identifies(account, name, v) {
		return end, no(protocol.Unauthorized, false, "the TXT record at %s is for another account; this one's accounturi is %s", at, d.accountHash(name, v))
	}
	if wildcard && !strings.EqualFold(policy, "wildcard") {
		return end, no(protocol.Unauthorized, false, "the TXT record at %s needs policy=wildcard to prove more than the name itself", at)
	}
	return end, nil
}

// identifies compares without folding case (section 4.1).
func (d DNSPersist01) identifies(accountURI, name string, v protocol.Validation) bool {
	return accountURI == d.accountHash(name, v) || accountURI == d.accountHash("*", v) ||
		d.PlainAccountURL && accountURI == v.AccountURL
}

package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// newestOf is how many certificates NewestOfNames looks at, of one name and of
// one account: it is asked with every order.
const newestOf = 64

// NewestOfNames returns the certificate that ends last of those that the
// account was issued for just these names, in any order, neither revoked nor
// ended; ErrNotFound if there is none. One is missed where both its longest
// name and its account have more than 64 certificates.
func (q *queries) NewestOfNames(ctx context.Context, account protocol.AccountID, names []protocol.Identifier, now time.Time) (cert.Serial, time.Time, error) {
	if len(names) == 0 {
		return "", time.Time{}, ErrNotFound
	}
	// The longest name is likely to be the rarest.
	longest := slices.MaxFunc(names, func(a, b protocol.Identifier) int { return cmp.Compare(len(a.Value), len(b.Value)) })
	list, err := all(ctx, q, scanHeld, `SELECT c.serial, c.account, c.names, c.not_after, c.state = 'issued' AND c.revoked_at = 0
		FROM (SELECT serial FROM certificate_names WHERE name = $1 AND not_after > $2 ORDER BY not_after DESC LIMIT 64) n
		JOIN certificates c ON c.serial = n.serial`, longest.Value, micros(now))
	if err != nil {
		return "", time.Time{}, err
	}
	found := newest(list, account, names, now)
	if found == nil && len(list) >= newestOf {
		list, err = all(ctx, q, scanHeld, `SELECT serial, account, names, not_after, state = 'issued' AND revoked_at = 0
			FROM certificates WHERE account = $1 LIMIT 64`, string(account))
		if err != nil {
			return "", time.Time{}, err
		}
		found = newest(list, account, names, now)
	}
	if found == nil {
		return "", time.Time{}, ErrNotFound
	}
	return found.serial, fromMicros(found.notAfter), nil
}

// held is a certificate that somebody has.
type held struct {
	serial   cert.Serial
	account  string
	names    string
	notAfter int64
	good     bool
}

func scanHeld(rows engine.Row, h *held) error {
	return rows.Scan((*hexed)(&h.serial), &h.account, &h.names, &h.notAfter, &h.good)
}

func newest(list []held, account protocol.AccountID, names []protocol.Identifier, now time.Time) (found *held) {
	want := sortedNames(encodeIdentifiers(names))
	for i, h := range list {
		if h.good && h.account == string(account) && h.notAfter > micros(now) && (found == nil || h.notAfter > found.notAfter) &&
			slices.Equal(sortedNames(h.names), want) {
			found = &list[i]
		}
	}
	return found
}

// sortedNames are encoded identifiers, sorted, each once.
func sortedNames(encoded string) []string {
	list := strings.Split(encoded, " ")
	slices.Sort(list)
	return slices.Compact(list)
}

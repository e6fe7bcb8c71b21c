package store

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Notice is a word that a transaction sends to all replicas.
type Notice struct{ Topic, Body string }

// TopicRevoked is RevokeCertificate's; the body is the issuing key's id and
// the serial, with a space between.
const TopicRevoked = "revoked"

// Bounds of a notice: PostgreSQL takes 8,000 bytes, and a notice says where to
// look, not what is there.
const (
	maxTopic  = 50
	maxNotice = 200
)

// Notify sends a notice once the transaction is committed, and none if it
// isn't; see Listen. The topic has no spaces and at most 50 bytes, the body at
// most 200. PostgreSQL commits transactions with notices one after the other,
// so they are for what is rare.
func (tx *Tx) Notify(topic, body string) error {
	if topic == "" || len(topic) > maxTopic || strings.Contains(topic, " ") || len(body) > maxNotice || !plainText(topic+body) {
		return fmt.Errorf("store: %q with %d bytes can't be a notice", topic, len(body))
	}
	if tx.chain == nil {
		if _, err := tx.exists(context.Background(), "SELECT 1 FROM (SELECT pg_notify($1, $2)) AS sent", engine.Channel, topic+" "+body); err != nil {
			return err
		}
	}
	tx.notices = append(tx.notices, Notice{topic, body})
	return nil
}

// plainText is text that PostgreSQL takes.
func plainText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// Listen calls heard for each notice, until ctx ends. Those of this process's
// transactions are heard before Update returns, on the goroutines that called
// it; those of other replicas soon after their commit, and on PostgreSQL some
// twice. So heard must be quick and safe for concurrent use.
//
// intact(true) says that no notice is missed from now on, intact(false) that
// some may be: while PostgreSQL is away, which is noticed within three seconds,
// and when Listen returns. What others may have changed meanwhile must be looked
// up.
func (db *DB) Listen(ctx context.Context, heard func(Notice), intact func(bool)) {
	leave := db.ears.Join(heard)
	defer leave()
	if p, ok := db.engine.(listener); ok {
		p.Listen(ctx, func(payload string) {
			topic, body, _ := strings.Cut(payload, " ")
			heard(Notice{topic, body})
		}, intact)
		return
	}
	intact(true)
	defer intact(false)
	<-ctx.Done()
}

// listener is an engine that others write to beside this process.
type listener interface {
	// Listen calls heard with each notice's payload, on one goroutine, until
	// ctx ends, and intact as [DB.Listen] does.
	Listen(ctx context.Context, heard func(payload string), intact func(bool))
}

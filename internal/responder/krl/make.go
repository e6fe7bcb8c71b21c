package krl

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/store"
)

const (
	restFactor = 5
	maxRest    = time.Minute
	// makeTime bounds the making of a list, as a busy card's share of CRLs asks.
	makeTime = 5 * time.Minute
	// lease is for how long a maker has the work; it renews it.
	lease = time.Minute
	// comment says in the list whose it is.
	comment = "chancery"
)

// round loads a newer list, and makes one where that is needed and a key is here.
func (k *Keeper) round(ctx context.Context) (made bool, err error) {
	if err := k.Load(ctx); err != nil || !k.able() {
		return false, err
	}
	revision, err := k.revision(ctx)
	if err != nil || !k.needed(revision) {
		return false, err
	}
	begun := time.Now()
	m, err := k.make(ctx)
	if m == nil && err == nil { // another replica's work
		return false, nil
	}
	if m == nil {
		m = &Making{}
	}
	if m.Took, m.Err = time.Since(begun), err; k.made != nil {
		k.made(*m)
	}
	if err == nil {
		k.log.Info("KRL published", "number", m.Number, "entries", m.Entries, "bytes", m.Bytes, "next_update", m.NextUpdate)
	}
	return true, err
}

// able reports whether a key is here that could sign.
func (k *Keeper) able() bool {
	for _, key := range k.keys {
		if key.Queue != nil {
			return true
		}
	}
	return false
}

// revision rises with everything that the list must show. Its parts never fall.
func (k *Keeper) revision(ctx context.Context) (int64, error) {
	sum, err := k.db.CountLostDevices(ctx)
	for _, key := range k.keys {
		if err != nil {
			return 0, err
		}
		var n int64
		n, err = k.db.Number(ctx, store.RevisionName(key.Authority.ID(), 0))
		sum += n
	}
	return sum, err
}

// needed reports whether a list must be made: there is none, it lacks a
// revocation, it is a third over, or it seems to be of the future, as after a
// clock went back.
func (k *Keeper) needed(revision int64) bool {
	current, now := k.current.Load(), k.clock()
	return current == nil || current.revision != revision || !now.Before(current.Made.Add(k.validity/3)) || current.Made.After(now.Add(time.Minute))
}

// make makes a list under the lease, unless another replica is at it or has done
// it: then it returns nil.
func (k *Keeper) make(ctx context.Context) (*Making, error) {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	mine, err := k.claim(ctx, lease)
	if err != nil || !mine {
		return nil, err
	}
	defer k.hold(ctx)()
	if err := k.Load(ctx); err != nil {
		return nil, err
	}
	// Before the entries: what is revoked meanwhile shows next time.
	revision, err := k.revision(ctx)
	if err != nil || !k.needed(revision) {
		return nil, err
	}
	now := k.clock().UTC().Truncate(time.Second)
	r, err := k.collect(ctx, now)
	if err != nil {
		return nil, err
	}
	number, err := k.nextNumber(ctx)
	if err != nil {
		return nil, err
	}
	r.Version, r.Generated, r.Comment = uint64(number), now, comment
	list, err := sshca.BuildKRL(r)
	if err != nil {
		return nil, err
	}
	signature, err := k.sign(ctx, list)
	if err != nil {
		return nil, err
	}
	newer := &List{KRL: list, Signature: signature, Number: number, Made: now, NextUpdate: now.Add(k.validity), revision: revision}
	m := &Making{Number: number, Entries: len(r.KeyHashes), Bytes: len(list), NextUpdate: newer.NextUpdate}
	for _, c := range r.Certificates {
		m.Entries += len(c.Serials)
	}
	return m, k.store(ctx, newer, m.Entries)
}

func (k *Keeper) claim(ctx context.Context, long time.Duration) (mine bool, err error) {
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		mine, err = tx.Lease("krl", k.replica, tx.Now().Add(long))
		return err
	})
	return mine, err
}

// hold keeps the lease until the returned function is called, which gives it back.
func (k *Keeper) hold(ctx context.Context) (release func()) {
	var holding sync.WaitGroup
	held, end := context.WithCancel(ctx)
	holding.Go(func() {
		for pause(held, nil, lease/3) {
			if _, err := k.claim(held, lease); err != nil && held.Err() == nil {
				k.log.Warn("the lease of the KRL could not be held", "error", err)
			}
		}
	})
	return func() {
		end()
		holding.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = k.claim(ctx, 0) // else it ends by itself, in a minute
	}
}

// collect reads what is revoked. A certificate stays listed one validity longer
// than it lives, for hosts whose clocks are late.
func (k *Keeper) collect(ctx context.Context, now time.Time) (sshca.Revocations, error) {
	var r sshca.Revocations
	for _, key := range k.keys {
		id := key.Authority.ID()
		of := sshca.RevokedCertificates{CA: key.Authority.PublicKey()}
		err := k.db.RevokedCertificates(ctx, id, store.AllShards, now.Add(-k.validity), func(serial cert.Serial, _ time.Time, _ cert.Reason, _ time.Time) error {
			n, err := sshca.ParseSerial(serial)
			of.Serials = append(of.Serials, n)
			return err
		})
		if err != nil {
			return r, err
		}
		r.Certificates = append(r.Certificates, of)
		stolen, err := k.db.CompromisedCertificates(ctx, id)
		if err != nil {
			return r, err
		}
		for _, wire := range stolen {
			_, plain, err := sshca.Read(wire)
			if err != nil {
				return r, err
			}
			r.KeyHashes = append(r.KeyHashes, sshca.KRLHash(plain))
		}
	}
	hashes, err := k.lostKeys(ctx)
	r.KeyHashes = append(r.KeyHashes, hashes...)
	return r, err
}

// lostKeys are the plain keys of lost devices, by which they may stand in some
// authorized_keys too.
func (k *Keeper) lostKeys(ctx context.Context) (hashes [][sha256.Size]byte, err error) {
	err = k.db.LostKeys(ctx, func(d protocol.Device) error {
		key, err := x509.ParsePKIXPublicKey(d.Key)
		if err != nil {
			return fmt.Errorf("the key of lost device %s: %w", d.ID, err)
		}
		if plain, err := sshca.NewKey(key); err == nil { // else a kind that SSH doesn't know, and so no host trusts
			hashes = append(hashes, sshca.KRLHash(plain))
		}
		return nil
	})
	return hashes, err
}

// nextNumber takes a list's number: never below the time in milliseconds, so
// that numbers rise after a restore too.
func (k *Keeper) nextNumber(ctx context.Context) (number int64, err error) {
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		if number, err = tx.NextNumber("krl", tx.Now().UnixMilli()); err != nil {
			return err
		}
		return tx.Audit(audit.Entry{
			Action: "krl.number", Actor: "server:" + k.replica, Object: "krl", Detail: map[string]any{"number": number},
		})
	})
	return number, err
}

// sign has the list signed by a key that is at hand: one that still signs
// certificates, if there is one.
func (k *Keeper) sign(ctx context.Context, list []byte) ([]byte, error) {
	err := fmt.Errorf("%w: no SSH CA key", signer.ErrAway)
	for _, retired := range []bool{false, true} {
		for _, key := range k.keys {
			if key.Queue == nil || key.Retired != retired || !key.Queue.Usable() {
				continue
			}
			var signature []byte
			signature, err = key.Authority.SignKRL(list, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
				return key.Queue.Sign(ctx, signer.Request{Class: schedule.CRL}, digest, opts)
			})
			if !errors.Is(err, signer.ErrAway) {
				return signature, err
			}
		}
	}
	return nil, err
}

// store makes a list and its signature the current one, in one transaction at
// its end, and tells the other replicas.
func (k *Keeper) store(ctx context.Context, newer *List, entries int) error {
	// It is signed: that shall not be in vain because we stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	rest := join(newer.KRL, newer.Signature)
	head := store.CRL{
		IssuerKeyID: place, Number: newer.Number, Revision: newer.revision, ThisUpdate: newer.Made, NextUpdate: newer.NextUpdate,
		Entries: int64(entries), Size: int64(len(rest)),
	}
	for ; len(rest) > 0; head.Parts++ {
		body := rest[:min(len(rest), store.CRLPartSize)]
		rest = rest[len(body):]
		err := k.db.Update(ctx, func(tx *store.Tx) error { return tx.PutCRLPart(place, 0, head.Number, head.Parts, body) })
		if err != nil {
			return err
		}
	}
	published := false
	err := k.db.Update(ctx, func(tx *store.Tx) (err error) {
		if published, err = tx.PublishCRL(head); err != nil || !published {
			return err
		}
		if _, err = tx.SweepCRLParts(place, 0, head.Number, 1000); err != nil {
			return err
		}
		return tx.Notify(topicMade, "made")
	})
	if err == nil && !published {
		err = fmt.Errorf("another replica made a newer KRL than %d meanwhile", head.Number)
	}
	if err != nil {
		return err
	}
	k.loading.Lock()
	defer k.loading.Unlock()
	if old := k.current.Load(); old == nil || old.Number < newer.Number {
		k.current.Store(newer)
	}
	return nil
}

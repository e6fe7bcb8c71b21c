package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Issuance is one certificate's life in the database, of the size that real
// ones have: a throwaway account with a P-256 key, one name by http-01, a
// certificate of 600 bytes.
type Issuance struct {
	Account       protocol.Account
	Order         protocol.Order
	Authorization protocol.Authorization
	Attempt       protocol.Attempt
	Certificate   cert.Certificate
	DER           []byte
}

// NewIssuance makes up the n-th issuance, at that time.
func NewIssuance(n int, now time.Time) *Issuance {
	digest := sha256.Sum256(fmt.Appendf(nil, "key %d of %d", n, rand.Uint64()))
	text := base64.RawURLEncoding.EncodeToString(digest[:])
	name := protocol.Identifier{Type: protocol.DNS, Value: fmt.Sprintf("host-%d.apps.example.test", n)}
	var i Issuance
	i.Account = protocol.Account{
		ID: protocol.NewID[protocol.AccountID](now), Directory: "servers", Status: protocol.AccountValid, Thumbprint: text,
		Key:       fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, text, text),
		CreatedAt: now, KeepUntil: now.Add(7 * 24 * time.Hour),
	}
	i.Authorization = protocol.Authorization{
		ID: protocol.NewID[protocol.AuthorizationID](now), Account: i.Account.ID, Directory: "servers", Identifier: name,
		Status: protocol.AuthorizationPending, ExpiresAt: now.Add(24 * time.Hour), Token: text,
		Offered: []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01, protocol.TLSALPN01}, CreatedAt: now,
	}
	i.Attempt = protocol.Attempt{Type: protocol.HTTP01, Processing: true, NextAt: now}
	i.Order = protocol.Order{
		ID: protocol.NewID[protocol.OrderID](now), Account: i.Account.ID, Directory: "servers", Status: protocol.OrderPending,
		Identifiers: []protocol.Identifier{name}, Authorizations: []protocol.AuthorizationID{i.Authorization.ID},
		Profile: "server", CreatedAt: now, ExpiresAt: now.Add(24 * time.Hour),
	}
	i.DER = make([]byte, 600)
	for at := 0; at < len(i.DER); at += len(digest) {
		copy(i.DER[at:], digest[:])
	}
	i.Certificate = cert.Certificate{
		Format: cert.X509,
		Serial: cert.NewSerial(), State: cert.Planned, Order: i.Order.ID, Account: i.Account.ID, Directory: "servers", Profile: "server",
		Issuer: "issuing", IssuerKeyID: hex.EncodeToString(make([]byte, 20)), Names: i.Order.Identifiers,
		DER: i.DER[:480], KeyHash: hex.EncodeToString(digest[:]), NotBefore: now, NotAfter: now.Add(24 * time.Hour), PlannedAt: now,
	}
	return &i
}

// Steps are the issuance's five transactions: account, order, validation
// begun and ended, plan, certificate. Each records one decision.
func (i *Issuance) Steps() []func(*store.Tx) error {
	return []func(*store.Tx) error{i.register, i.order, i.validate, i.plan, i.issue}
}

func (i *Issuance) audit(tx *store.Tx, action, object string, detail map[string]any) error {
	return tx.Audit(audit.Entry{
		Action: action, Actor: "account:" + string(i.Account.ID), Peer: "192.0.2.17", Directory: "servers", Object: object, Detail: detail,
	})
}

func (i *Issuance) register(tx *store.Tx) error {
	if err := tx.InsertAccount(i.Account); err != nil {
		return err
	}
	return i.audit(tx, "account.create", string(i.Account.ID), nil)
}

func (i *Issuance) order(tx *store.Tx) error {
	if err := tx.InsertAuthorization(i.Authorization); err != nil {
		return err
	}
	if err := tx.InsertOrder(i.Order); err != nil {
		return err
	}
	return i.audit(tx, "order.create", string(i.Order.ID), map[string]any{"names": i.Order.Identifiers[0].String()})
}

func (i *Issuance) validate(tx *store.Tx) error {
	if err := expect(tx.RecordAttempt(i.Authorization.ID, i.Attempt, tx.Now().Add(time.Minute))); err != nil {
		return err
	}
	done := i.Authorization
	done.Status, done.Attempt = protocol.AuthorizationValid, i.Attempt
	done.Attempt.Processing, done.Attempt.Tries, done.Attempt.ValidatedAt = false, 1, tx.Now()
	if err := expect(tx.FinishValidation(done)); err != nil {
		return err
	}
	return i.audit(tx, "authorization.valid", string(i.Authorization.ID), map[string]any{"type": "http-01", "target": "192.0.2.17:80"})
}

func (i *Issuance) plan(tx *store.Tx) error {
	if err := expect(tx.PlanOrder(i.Order.ID, i.Certificate.Serial, "server")); err != nil {
		return err
	}
	if err := tx.InsertCertificate(i.Certificate, tx.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := tx.KeepAccount(i.Account.ID, i.Certificate.NotAfter); err != nil {
		return err
	}
	return i.audit(tx, "certificate.plan", string(i.Certificate.Serial), nil)
}

func (i *Issuance) issue(tx *store.Tx) error {
	if err := expect(tx.IssueCertificate(i.Certificate.Serial, i.DER)); err != nil {
		return err
	}
	if err := expect(tx.CompleteOrder(i.Order.ID)); err != nil {
		return err
	}
	return i.audit(tx, "certificate.issue", string(i.Certificate.Serial), map[string]any{"order": string(i.Order.ID)})
}

func expect(done bool, err error) error {
	if err == nil && !done {
		return fmt.Errorf("a row isn't in the state it was put in")
	}
	return err
}

// fillBatch issuances share a transaction: as many as group commit puts
// together under load, and no more than stays out of other writers' way.
const fillBatch = 100

// Fill puts n issuances into the database through the methods that the
// authority uses, step by step, many in one transaction.
func Fill(ctx context.Context, db *store.DB, n int) error {
	for at := 0; at < n; at += fillBatch {
		batch := make([]*Issuance, min(fillBatch, n-at))
		for i := range batch {
			batch[i] = NewIssuance(at+i, time.Now())
		}
		if err := db.Update(ctx, func(tx *store.Tx) error {
			for _, i := range batch {
				for _, step := range i.Steps() {
					if err := step(tx); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("filling, after %d: %w", at, err)
		}
	}
	return nil
}

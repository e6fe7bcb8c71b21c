package ca

import (
	"context"
	"slices"
	"sync"

	"github.com/chancery-pki/chancery/internal/store"
)

// Topics of the store's notices about issuance.
const (
	topicPlanned = "planned" // a plan waits for the issuing key whose ID is the body
	topicIssued  = "issued"  // the order of that ID has its end
)

// signForOthers signs plans that other replicas left for our keys, as soon as
// they say so; work finds them too, should a notice be lost. A SQLite database
// has no other replicas.
func (a *Authority) signForOthers(ctx context.Context) {
	if a.db.Engine() == "sqlite" {
		return
	}
	var listening sync.WaitGroup
	listening.Go(func() { a.db.Listen(ctx, a.heard, a.intact) })
	defer listening.Wait()
	for {
		select {
		case <-a.planned:
			a.attempt(ctx, "plans", func(ctx context.Context) error { return a.claimPlans(ctx, false) })
		case <-ctx.Done():
			return
		}
	}
}

// heard takes a notice of the store's. It must not block.
func (a *Authority) heard(n store.Notice) {
	switch n.Topic {
	case topicPlanned:
		if slices.Contains(a.rules.Load().held, n.Body) {
			a.wakeSigning()
		}
	case topicIssued:
		a.issued.Tell(n.Body)
	}
}

// intact has everybody look for themselves when notices are heard again: some
// may have been lost.
func (a *Authority) intact(intact bool) {
	if intact {
		a.wakeSigning()
		a.issued.TellAll()
	}
}

func (a *Authority) wakeSigning() {
	select {
	case a.planned <- struct{}{}:
	default: // it will look anyway
	}
}

// ReportKeys records how the keys that this replica holds are doing, for those
// that don't hold them.
func (a *Authority) ReportKeys(ctx context.Context, states []store.KeyState) error {
	for i := range states {
		states[i].Replica = a.replica
	}
	return a.db.Update(ctx, func(tx *store.Tx) error { return tx.PutKeyStates(states) })
}

package ca

import (
	"sync"

	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// known remembers accounts, so that the five signed requests of an issuance
// read theirs once. It serves where this process alone writes the database,
// and forgets an account after every change of it.
type known struct {
	mu       sync.Mutex
	accounts map[protocol.AccountID]knownAccount // nil: other processes write too
	changes  int                                 // rises with every change
}

type knownAccount struct {
	protocol.Account
	key *jws.JWK
}

// maxKnown bounds the memory to some 3 MiB. Throwaway accounts come and go, so
// that forgetting all at once, when it is full, costs nothing to speak of.
const maxKnown = 4096

// find returns a remembered account, and the number to give to add for one
// that isn't.
func (k *known) find(id protocol.AccountID) (account knownAccount, ok bool, changes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	account, ok = k.accounts[id]
	return account, ok, k.changes
}

// add remembers an account that was read after find, unless one changed since.
func (k *known) add(account knownAccount, changes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.accounts == nil || changes != k.changes {
		return
	}
	if len(k.accounts) >= maxKnown {
		clear(k.accounts)
	}
	k.accounts[account.ID] = account
}

// forget is called after a change of the account was committed, or wasn't, and
// before anybody is told; "" is for many accounts.
func (k *known) forget(id protocol.AccountID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	if id == "" {
		clear(k.accounts)
	}
	delete(k.accounts, id)
}

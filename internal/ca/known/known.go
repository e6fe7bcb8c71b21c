package known

import (
	"sync"

	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Accounts are the accounts remembered. The zero value remembers none, for a
// database that other processes write too. It is safe for concurrent use.
type Accounts struct {
	mu       sync.Mutex
	accounts map[protocol.AccountID]Account // nil: none are remembered
	changes  int                            // rises with every change
}

// Account is an account and its key, taken apart.
type Account struct {
	protocol.Account
	JWK *jws.JWK
}

// most bounds the memory to some 3 MiB. Throwaway accounts come and go, so
// that forgetting all at once, when it is full, costs nothing to speak of.
const most = 4096

// New makes one that remembers.
func New() *Accounts { return &Accounts{accounts: make(map[protocol.AccountID]Account)} }

// Find returns a remembered account, and the number to give to Add for one
// that isn't.
func (k *Accounts) Find(id protocol.AccountID) (account Account, ok bool, changes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	account, ok = k.accounts[id]
	return account, ok, k.changes
}

// Add remembers an account that was read after Find, unless one changed since.
func (k *Accounts) Add(account Account, changes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.accounts == nil || changes != k.changes {
		return
	}
	if len(k.accounts) >= most {
		clear(k.accounts)
	}
	k.accounts[account.ID] = account
}

// Forget is called after a change of the account was committed, or wasn't, and
// before anybody is told.
func (k *Accounts) Forget(id protocol.AccountID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	delete(k.accounts, id)
}

// ForgetAll is Forget for a change of many accounts.
func (k *Accounts) ForgetAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	clear(k.accounts)
}

package known

import (
	"fmt"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func account(id, contact string) Account {
	return Account{Account: protocol.Account{ID: protocol.AccountID(id), Contact: []string{contact}}}
}

func TestAccounts(t *testing.T) {
	k := New()
	_, ok, changes := k.Find("a")
	if ok {
		t.Error("found nothing")
	}
	k.Add(account("a", "new"), changes)
	if got, ok, _ := k.Find("a"); !ok || got.Contact[0] != "new" {
		t.Errorf("%+v, %v", got, ok)
	}
	k.Add(account("b", ""), changes)
	k.Forget("a")
	if _, ok, _ := k.Find("a"); ok {
		t.Error("a is forgotten")
	}
	if _, ok, _ := k.Find("b"); !ok {
		t.Error("b isn't")
	}
	k.ForgetAll()
	if _, ok, _ := k.Find("b"); ok {
		t.Error("all are forgotten")
	}
}

// What was read before a change may be stale, whichever account changed.
func TestChangedMeanwhile(t *testing.T) {
	for what, change := range map[string]func(*Accounts){
		"the account": func(k *Accounts) { k.Forget("a") }, "all": (*Accounts).ForgetAll,
	} {
		k := New()
		_, _, changes := k.Find("a")
		change(k)
		k.Add(account("a", "old"), changes)
		if _, ok, _ := k.Find("a"); ok {
			t.Errorf("%s changed: the old one is remembered", what)
		}
	}
}

// Memory is bounded; the zero value, for a database that others write too,
// remembers nothing.
func TestBounds(t *testing.T) {
	k, none := New(), &Accounts{}
	for i := range 3 * most {
		k.Add(account(fmt.Sprint(i), ""), 0)
		none.Add(account(fmt.Sprint(i), ""), 0)
	}
	if n := len(k.accounts); n == 0 || n > most {
		t.Errorf("%d remembered", n)
	}
	none.Forget("0")
	none.ForgetAll()
	if _, ok, _ := none.Find("1"); ok || len(none.accounts) != 0 {
		t.Error("remembered")
	}
}

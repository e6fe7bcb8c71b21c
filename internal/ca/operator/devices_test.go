package operator

import (
	"context"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// A person may have more devices than a page holds: none is left out.
func TestMoreThanAPage(t *testing.T) {
	w := newWorld(t, "sqlite")
	const many = 2001
	err := w.db.Update(t.Context(), func(tx *store.Tx) error {
		for n := range many {
			if err := tx.InsertDevice(storetest.NewDevice(n, "alice", tx.Now())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := every(context.Background(), w.db, store.DeviceFilter{Owner: "alice"})
	seen := map[protocol.DeviceID]bool{}
	for _, d := range all {
		seen[d.ID] = true
	}
	if err != nil || len(all) != many || len(seen) != many {
		t.Errorf("%d devices, %d of them once, %v", len(all), len(seen), err)
	}
}

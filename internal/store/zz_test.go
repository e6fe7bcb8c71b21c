package store_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

func TestZZ(t *testing.T) {
	p := filepath.Join(t.TempDir(), "x.db")
	db, err := store.Open(t.Context(), store.Options{DSN: p})
	if err != nil { t.Fatal(err) }
	const n = 20000
	if err := storetest.Fill(t.Context(), db, n); err != nil { t.Fatal(err) }
	db.Close()
	d, _ := sql.Open("sqlite", p)
	defer d.Close()
	rows, err := d.Query("SELECT name, count(*), sum(pgsize), sum(payload), sum(unused) FROM dbstat GROUP BY name ORDER BY 3 DESC")
	if err != nil { t.Fatal(err) }
	total := 0
	for rows.Next() {
		var name string; var pages, size, payload, unused int
		rows.Scan(&name, &pages, &size, &payload, &unused)
		total += size
		fmt.Printf("%-32s %6d pages %8.1f B/cert payload %8.1f unused %8.1f\n", name, pages, float64(size)/n, float64(payload)/n, float64(unused)/n)
	}
	fmt.Println("total", total/n)
}

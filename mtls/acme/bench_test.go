package acme

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

// BenchmarkPOST is the client's own cost of one signed request, the network
// left out.
func BenchmarkPOST(b *testing.B) {
	const order = `{"status":"valid","expires":"2030-01-01T00:00:00Z","identifiers":[{"type":"dns","value":"a.test"}],"authorizations":["https://ca.test/z"],"finalize":"https://ca.test/f","certificate":"https://ca.test/c"}`
	c := &Client{DirectoryURL: "https://ca.test/", AccountURL: "https://ca.test/a", Key: newKey(b), HTTPClient: &http.Client{Transport: inProcess(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"newNonce":"https://ca.test/n","newAccount":"https://ca.test/n","newOrder":"https://ca.test/n"}`)
			return
		}
		io.WriteString(w, order)
	})}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Order(b.Context(), "https://ca.test/o"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	key, err := newJWSKey(newKey(b))
	if err != nil {
		b.Fatal(err)
	}
	id, payload := key.byAccount("https://ca.test/account/1"), []byte(`{"identifiers":[{"type":"dns","value":"a.test"}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := id.seal("AAAAAAAAAAAAAAAAAAAAAAAA", "https://ca.test/new-order", payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthorization(b *testing.B) {
	data := []byte(`{"identifier":{"type":"dns","value":"a.test"},"status":"pending","expires":"2030-01-01T00:00:00Z","challenges":[` +
		`{"type":"http-01","url":"https://ca.test/c/1","status":"pending","token":"abcabcabcabc"},` +
		`{"type":"dns-01","url":"https://ca.test/c/2","status":"pending","token":"abcabcabcabc"},` +
		`{"type":"tls-alpn-01","url":"https://ca.test/c/3","status":"pending","token":"abcabcabcabc"}]}`)
	b.ReportAllocs()
	for b.Loop() {
		var authz Authorization
		if err := json.Unmarshal(data, &authz); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkObtain is a whole issuance at the fake server, both sides and TLS
// included.
func BenchmarkObtain(b *testing.B) {
	ca := newFakeCA(b)
	solver, key := ca.serveHTTP01(b), newKey(b)
	c := ca.client(newKey(b))
	if _, err := c.Register(b.Context(), Registration{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Obtain(b.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: key, Solvers: []Solver{solver}}); err != nil {
			b.Fatal(err)
		}
	}
}

package mtls

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
)

// TestHealth: what goes dark first and when; a probe fails only when something
// is dark already.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		w.cas[0].NoInfo, w.cas[1].NoInfo = true, true
		w.cfg.CAs[1].Tier = 1
		id := w.start()
		defer id.Close()
		probe := func() (int, map[string]any) {
			rec := httptest.NewRecorder()
			id.HealthHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz", nil))
			var body map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			return rec.Code, body
		}
		if status, body := probe(); status != 503 || body["ok"] != false || body["dark"] != "server a.test" {
			t.Errorf("before the first certificate: %d %v", status, body)
		}
		if err := id.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := min(serverLeaf(t, id, "a.test").Leaf.NotAfter.Unix(), clientLeaf(t, id).Leaf.NotAfter.Unix())
		status, body := probe()
		if status != 200 || body["ok"] != true || body["dark_at"] != time.Unix(end, 0).UTC().Format(time.RFC3339) {
			t.Errorf("%d %v", status, body)
		}
		cert := body["certificates"].([]any)[1].(map[string]any)
		if cert["usage"] != "client" || cert["issuer"] != "CN=fake issuer" || cert["error"] != nil || len(cert["names"].([]any)) != 1 {
			t.Errorf("%v", cert)
		}
		if ca := body["cas"].([]any)[1].(map[string]any); ca["directory"] != w.cas[1].Directory() || ca["tier"] != 1.0 || ca["score"] != 1.0 || ca["retry_at"] != nil {
			t.Errorf("%v", ca)
		}
		w.cas[0].Set(fakeca.Away)
		w.cas[1].Set(fakeca.Away)
		time.Sleep(18 * time.Hour) // overdue a little
		if status, body := probe(); status != 200 || body["ok"] != true || !strings.Contains(body["certificates"].([]any)[0].(map[string]any)["error"].(string), "connection refused") {
			t.Errorf("after 18 h: %d %v", status, body)
		}
		time.Sleep(4*time.Hour + 30*time.Minute) // in the last third of what was left
		if status, body := probe(); status != 200 || body["ok"] != false || body["able"] != true {
			t.Errorf("after 22 h 30: %d %v", status, body)
		}
		time.Sleep(2 * time.Hour)
		if status, body := probe(); status != 503 || body["able"] != false {
			t.Errorf("after 24 h 30: %d %v", status, body)
		}
	})
}

package acme

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inProcess answers requests without a network, so that synctest's clock runs.
type inProcess func(w http.ResponseWriter, r *http.Request)

func (f inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	rec.Header().Set("Replay-Nonce", "abc")
	f(rec, r)
	return rec.Result(), nil
}

// waitingClient polls a resource that answers with the given bodies, the last
// one for ever, and counts.
func waitingClient(t *testing.T, retryAfter string, polls *int, bodies ...string) *Client {
	return &Client{DirectoryURL: "https://ca.test/", AccountURL: "https://ca.test/a", Key: newKey(t), HTTPClient: &http.Client{Transport: inProcess(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"newNonce":"https://ca.test/n","newAccount":"https://ca.test/n","newOrder":"https://ca.test/n"}`)
			return
		} else if r.Method == http.MethodHead {
			return
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		io.WriteString(w, bodies[min(*polls, len(bodies)-1)])
		*polls++
	})}}
}

func TestWaits(t *testing.T) {
	const pending, processing = `{"status":"pending"}`, `{"status":"processing"}`
	for _, tc := range []struct {
		name       string
		first      Order
		retryAfter string
		bodies     []string
		deadline   time.Duration
		polls      int // exact, unless negative: at most
		took       time.Duration
		want       string // error
	}{
		{"ready already", Order{Status: StatusReady}, "", nil, 0, 0, 0, ""},
		{"valid already", Order{Status: StatusValid}, "", nil, 0, 0, 0, ""},
		{"quick", Order{Status: StatusProcessing}, "", []string{`{"status":"valid"}`}, 0, 1, minPoll, ""},
		{"growing pauses", Order{Status: StatusProcessing}, "", []string{processing, processing, `{"status":"valid"}`}, 0, 3, 700 * time.Millisecond, ""},
		{"as the server says", Order{Status: StatusProcessing, RetryAfter: 7 * time.Second}, "3", []string{processing, `{"status":"valid"}`}, 0, 2, 10 * time.Second, ""},
		{"a huge Retry-After", Order{Status: StatusPending, RetryAfter: 24 * time.Hour}, "9999999999", []string{pending, `{"status":"ready"}`}, 0, 2, 2 * time.Minute, ""},
		{"a huge Retry-After and a deadline", Order{Status: StatusPending, RetryAfter: 24 * time.Hour}, "", []string{pending}, 5 * time.Second, 0, 5 * time.Second, "deadline exceeded"},
		{"never", Order{Status: StatusPending}, "", []string{pending}, 0, -130, maxWait, "not finished after 10m"},
		{"a deadline longer than our own", Order{Status: StatusPending}, "60", []string{pending}, time.Hour, -61, time.Hour, "deadline exceeded"},
		{"becomes invalid", Order{Status: StatusProcessing}, "", []string{`{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"no"}}`}, 0, 1, minPoll, "the order is invalid: caa: no"},
		{"unknown status", Order{Status: StatusProcessing}, "", []string{`{"status":"wonderful"}`}, 0, 1, minPoll, `the order is "wonderful"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.deadline)
					defer cancel()
				}
				polls := 0
				c := waitingClient(t, tc.retryAfter, &polls, tc.bodies...)
				tc.first.URL = "https://ca.test/o"
				start := time.Now()
				_, err := c.WaitOrder(ctx, tc.first)
				took := time.Since(start)
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				if tc.polls >= 0 && polls != tc.polls || tc.polls < 0 && polls > -tc.polls {
					t.Errorf("%d polls, want %d", polls, tc.polls)
				}
				if took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
			})
		})
	}
}

func TestWaitAuthorization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polls := 0
		c := waitingClient(t, "", &polls, `{"status":"pending"}`, `{"status":"valid"}`)
		got, err := c.WaitAuthorization(t.Context(), Authorization{URL: "https://ca.test/z", Status: StatusPending})
		if err != nil || got.Status != StatusValid || polls != 2 {
			t.Errorf("%+v, %v, %d polls", got, err, polls)
		}
		if _, err := c.WaitAuthorization(t.Context(), got); err != nil || polls != 2 {
			t.Errorf("a valid one was polled: %v, %d", err, polls)
		}
	})
}

// TestSlowObtain is a whole issuance at a server that does everything later.
func TestSlowObtain(t *testing.T) {
	ca := newFakeCA(t)
	late := map[string]int{}
	ca.hook = func(w http.ResponseWriter, r *http.Request, req *signedRequest) bool {
		ca.mu.Lock()
		defer ca.mu.Unlock()
		late[r.URL.Path]++
		n := late[r.URL.Path]
		switch {
		case strings.HasPrefix(r.URL.Path, "/challenge/"):
			ca.route(httptest.NewRecorder(), r, req)
			reply(w, 200, Challenge{Type: "example-private-01", Status: StatusProcessing})
			return true
		case r.URL.Path == "/authz/2" && n == 2:
			a := ca.orders["2"].authz
			a.Status = StatusPending
			reply(w, 200, a)
			return true
		case r.URL.Path == "/finalize/2" && n == 1:
			problem(w, 403, ErrOrderNotReady, "not yet")
			return true
		case r.URL.Path == "/finalize/2":
			ca.route(httptest.NewRecorder(), r, req)
			o := ca.orders["2"].Order
			o.Status, o.Certificate = StatusProcessing, ""
			reply(w, 200, o)
			return true
		}
		return false
	}
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	solver, told := new(privateSolver), 0
	if _, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{solver},
		Processing: func(o Order) { told++ }}); err != nil {
		t.Fatal(err)
	}
	if told != 1 {
		t.Errorf("told %d times that the order is processing, not once", told)
	}
	if late["/authz/2"] != 3 || late["/finalize/2"] != 2 || late["/order/2"] != 2 || solver.cleaned != 1 {
		t.Errorf("%v, cleaned %d", late, solver.cleaned)
	}
}

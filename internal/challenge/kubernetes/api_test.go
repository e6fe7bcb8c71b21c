package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

type hook = func(what string, w http.ResponseWriter, r *http.Request) bool

// when lets a hook answer one kind of request.
func when(what string, then http.HandlerFunc) hook {
	return func(asked string, w http.ResponseWriter, r *http.Request) bool {
		if asked != what {
			return false
		}
		body, _ := io.ReadAll(r.Body) // with it unread, the server wouldn't see that the client goes
		r.Body = io.NopCloser(bytes.NewReader(body))
		then(w, r)
		return true
	}
}

// everyRequest that a verification makes, with the resource as RBAC has it.
var everyRequest = []struct{ what, verb, resource string }{
	{"create tokenreviews", "create", "tokenreviews.authentication.k8s.io"},
	{"get pods", "get", "pods"},
	{"list pods", "list", "pods"},
	{"get services", "get", "services"},
	{"list endpointslices", "list", "endpointslices.discovery.k8s.io"},
}

// troubles are the ways in which an API server, or what stands in its place,
// fails to answer.
var troubles = map[string]http.HandlerFunc{
	"forbidden": func(w http.ResponseWriter, r *http.Request) {
		failure(w, http.StatusForbidden, metav1.StatusReasonForbidden, `User "x" cannot do this`)
	},
	"unauthorized": func(w http.ResponseWriter, r *http.Request) {
		failure(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
	},
	"internal error": func(w http.ResponseWriter, r *http.Request) {
		failure(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd is away")
	},
	"bad gateway": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	},
	"too many requests": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "0")
		failure(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "slow down")
	},
	"a 404 of a proxy": func(w http.ResponseWriter, r *http.Request) {
		http.NotFound(w, r)
	},
	"expired": func(w http.ResponseWriter, r *http.Request) {
		failure(w, http.StatusGone, metav1.StatusReasonExpired, "continue token")
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	},
	"success without an object": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	},
	"another kind": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Node","apiVersion":"v1","metadata":{"namespace":"prod","name":"web-0","uid":"uid-1"}}`)
	},
	"no kind": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":{"authenticated":true}}`)
	},
	"nothing": func(w http.ResponseWriter, r *http.Request) {},
	"HTML":    func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>welcome</html>") },
	"half an object": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Pod"`)
	},
	"wrong types": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Pod","apiVersion":"v1","metadata":7}`)
	},
	"a strange type": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		io.WriteString(w, "x")
	},
	"a broken answer": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	"hangs":           func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"stops halfway": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Pod",`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	},
}

// While the API can't be asked, the answer is to come again, never a yes and
// never a final no.
func TestTroubleIsNoVerdict(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, v := newWorld(t, func(c *Config) {
				c.SourceAddress = true
				if name == "hangs" || name == "stops halfway" {
					c.Timeout = 50 * time.Millisecond
				}
			})
			pod := w.pod("prod", "web-0", "uid-1")
			w.service("prod", "api", pod)
			for _, q := range everyRequest {
				w.setHook(when(q.what, trouble))
				c := asked(dns(apiName), w.token(pod))
				if q.what == "list pods" {
					c = from(dns(apiName), "10.9.0.1:1")
				}
				w.requests()
				_, err := v.Validate(t.Context(), c)
				wantTrouble(t, q.what, err)
				if n := count(w.requests(), q.what); n > 1 { // the authority tries again, in its own time
					t.Errorf("%s was asked %d times", q.what, n)
				}
				if q.what == "list pods" {
					_, err := v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.1:1"))
					wantTrouble(t, "whois", err)
				} else if q.what != "create tokenreviews" {
					wantTrouble(t, "recheck: "+q.what, v.Recheck(t.Context(), dns(apiName), webSubject))
				}
				if logged := w.logged(); !strings.Contains(logged, "verb="+q.verb+" resource="+q.resource) || !strings.Contains(logged, "cluster=east") {
					t.Errorf("the log doesn't say what failed:\n%s", logged)
				}
				if name == "forbidden" && !strings.Contains(w.logged(), "ClusterRole") {
					t.Errorf("the log doesn't say what to do:\n%s", w.logged())
				}
			}
		})
	}
}

// A cluster that doesn't have an API is no verdict on a pod.
func TestMissingAPI(t *testing.T) {
	for what, names := range map[string]string{
		"create tokenreviews": "verb=create resource=tokenreviews.authentication.k8s.io",
		"list endpointslices": "verb=list resource=endpointslices.discovery.k8s.io",
	} {
		w, v := newWorld(t)
		pod := w.pod("prod", "web-0", "uid-1")
		w.service("prod", "api", pod)
		w.hook = when(what, func(w http.ResponseWriter, r *http.Request) {
			failure(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		})
		_, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
		wantTrouble(t, what, err)
		if !strings.Contains(w.logged(), names) {
			t.Errorf("%s: the log doesn't say what failed:\n%s", what, w.logged())
		}
	}
}

func wantTrouble(t *testing.T, what string, err error) {
	t.Helper()
	v, ok := errors.AsType[*protocol.ValidationError](err)
	if !ok || v.Problem.Type != protocol.ServerInternal || !v.Retryable || v.Problem.RetryAfter != 5*time.Second {
		t.Fatalf("%s: got %v, want serverInternal, to be tried again", what, err)
	}
	if d := v.Problem.Detail; strings.Contains(d, "etcd") || strings.Contains(d, "127.0.0.1") || strings.Contains(d, "prod") {
		t.Errorf("%s: %q tells what is the operator's", what, d)
	}
}

func TestEndlessAnswer(t *testing.T) {
	w, v := newWorld(t)
	w.hook = when("get pods", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		blanks := []byte(strings.Repeat(" ", 1<<20))
		for i := 0; ; i++ {
			if _, err := w.Write(blanks); err != nil {
				return
			}
			if i > 4*maxAnswer>>20 {
				t.Error("the answer was read for ever")
				return
			}
		}
	})
	pod := w.pod("prod", "web-0", "uid-1")
	_, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "endless", err)
	if !strings.Contains(w.logged(), "longer than") {
		t.Errorf("the log doesn't say so:\n%s", w.logged())
	}
}

func TestUnreachable(t *testing.T) {
	_, v := newWorld(t, func(c *Config) { c.Kubeconfig = kubeconfig(t, "https://127.0.0.1:1", strangersCA(t)) })
	_, err := v.Validate(t.Context(), asked(dns(apiName), response("eyJ.eyJ.x")))
	wantTrouble(t, "refused", err)
}

// Who answers with another CA's certificate isn't the API.
func TestOtherServerIsNotBelieved(t *testing.T) {
	w, _ := newWorld(t)
	w.kubeconfig = kubeconfig(t, w.url, strangersCA(t))
	v := w.verifier(t)
	_, err := v.Validate(t.Context(), asked(dns(apiName), response("eyJ.eyJ.x")))
	wantTrouble(t, "another CA", err)
	if n := len(w.requests()); n != 0 {
		t.Errorf("it was told %d requests, tokens among them", n)
	}
}

// An object that isn't the one asked for is trouble, not a pod.
func TestOtherObjects(t *testing.T) {
	w, v := newWorld(t)
	pod := w.pod("prod", "web-0", "uid-1")
	w.pod("prod", "web-1", "uid-1")
	w.service("prod", "api", pod)
	w.service("prod", "db", pod)
	redirect := func(from, to string) hook {
		return func(what string, rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, from) {
				r.URL.Path = strings.TrimSuffix(r.URL.Path, from) + to
				w.setHook(nil)
				w.ServeHTTP(rw, r)
				return true
			}
			return false
		}
	}
	w.setHook(redirect("/pods/web-0", "/pods/web-1"))
	_, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "pod", err)
	w.setHook(redirect("/services/api", "/services/db"))
	_, err = v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "service", err)
}

// An API server that repeats what it was sent doesn't get the token into the
// log.
func TestTokenIsNotRepeated(t *testing.T) {
	w, v := newWorld(t)
	w.hook = when("create tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		failure(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "can't be handled: "+string(body))
	})
	_, err := v.Validate(t.Context(), asked(dns(apiName), response("eyJ.my-secret.x")))
	wantTrouble(t, "echo", err)
	if all := w.logged() + err.Error(); strings.Contains(all, "my-secret") || !strings.Contains(all, "tokenreviews") {
		t.Errorf("got %s", all)
	}
}

func TestPages(t *testing.T) {
	w, v := newWorld(t, func(c *Config) { c.SourceAddress = true })
	pod := w.pod("prod", "web-0", "uid-1")
	svc, _ := w.service("prod", "api")
	for range 2 * slicesPerPage {
		w.slice(svc)
	}
	w.slice(svc, pod)
	if _, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod))); err != nil {
		t.Fatal(err)
	}
	if n := count(w.requests(), "list endpointslices"); n != 3 {
		t.Errorf("%d pages were asked for, want 3", n)
	}
	w.pageSize = 1 // now the pod is on page 42
	_, err := v.Validate(t.Context(), asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "slices without end", err)
	if n := count(w.requests(), "list endpointslices"); n != slicePages {
		t.Errorf("%d pages were asked for, want %d", n, slicePages)
	}
	// The second pod with an address is on the second page.
	w.pod("prod", "web-1", "uid-2")
	_, err = v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.1:1"))
	wantNo(t, err, protocol.Unauthorized, false, "more than one pod")
	for i := range podPages {
		w.pod("prod", fmt.Sprint("more-", i), fmt.Sprint("uid-", i+3))
	}
	_, err = v.Whois(t.Context(), netip.MustParseAddrPort("10.9.0.1:1"))
	wantTrouble(t, "pods without end", err)
}

func count(all []string, what string) int {
	return len(slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s != what }))
}

// The timeout is of the whole call, not of each request.
func TestTimeoutIsOfTheCall(t *testing.T) {
	w, v := newWorld(t, func(c *Config) { c.Timeout = 200 * time.Millisecond })
	pod := w.pod("prod", "web-0", "uid-1")
	w.hook = func(what string, rw http.ResponseWriter, r *http.Request) bool {
		if what == "get pods" {
			<-r.Context().Done()
		}
		return false
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := v.Validate(ctx, asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "timeout", err)
	// The caller's own deadline is no cancellation: it says to come again.
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = v.Validate(short, asked(dns(apiName), w.token(pod)))
	wantTrouble(t, "the caller's deadline", err)
}

package publish

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/responder/krl"
)

// The KRL and its signature come from one list and have one ETag; the CA keys are
// plain lines; before the first list who asks is told to come back.
func TestSSH(t *testing.T) {
	var list *krl.List
	p := newPublisher(t, newSource(newAuthority(t, "servers")), func(o *Options) {
		o.SSH = &SSH{KRL: func() *krl.List { return list }, UserKeys: []byte("ssh-ed25519 A\n"), HostKeys: []byte("ssh-ed25519 B\n")}
	})
	if w := request(p, "GET", "/ssh/krl"); w.StatusCode != 503 || w.Header.Get("Retry-After") == "" {
		t.Errorf("before the first list: %s", w.Status)
	}
	list = &krl.List{KRL: []byte("list"), Signature: []byte("signature"), Number: 7, Made: time.Now()}
	for path, want := range map[string]struct{ kind, body, etag string }{
		"/ssh/krl":         {"application/octet-stream", "list", `"7"`},
		"/ssh/krl.sig":     {"text/plain; charset=utf-8", "signature", `"7"`},
		"/ssh/user_ca.pub": {"text/plain; charset=utf-8", "ssh-ed25519 A\n", ""},
		"/ssh/host_ca.pub": {"text/plain; charset=utf-8", "ssh-ed25519 B\n", ""},
	} {
		w := request(p, "GET", path)
		if got := string(body(t, w)); w.StatusCode != 200 || got != want.body || w.Header.Get("Content-Type") != want.kind {
			t.Errorf("%s: %s %q %v", path, w.Status, got, w.Header)
		}
		if tag := w.Header.Get("ETag"); want.etag != "" && tag != want.etag {
			t.Errorf("%s: ETag %s", path, tag)
		}
		if w := request(p, "POST", path); w.StatusCode != 405 {
			t.Errorf("POST %s: %s", path, w.Status)
		}
	}
	if w := request(p, "GET", "/ssh/krl.der"); w.StatusCode != 404 {
		t.Errorf("what there isn't: %s", w.Status)
	}
	none := newPublisher(t, newSource(newAuthority(t, "servers")))
	for _, path := range []string{"/ssh/krl", "/ssh/krl.sig", "/ssh/user_ca.pub"} {
		if w := request(none, "GET", path); w.StatusCode != 404 {
			t.Errorf("%s without SSH: %s", path, w.Status)
		}
	}
}

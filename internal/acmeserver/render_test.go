package acmeserver

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/protocol"
)

var (
	testTime  = time.Date(2026, 11, 21, 10, 0, 0, 999_000_000, time.FixedZone("", 3600))
	testOrder = protocol.Order{
		ID: "0000000000000000000000000o", Status: protocol.OrderPending,
		Identifiers:    []protocol.Identifier{{Type: "dns", Value: "*.a.test"}, {Type: "ip", Value: "192.0.2.1"}},
		Authorizations: []protocol.AuthorizationID{"0000000000000000000000000a", "0000000000000000000000000b"},
		ExpiresAt:      testTime,
	}
	testDir = newDirectory(base, "main", Meta{IssuerNames: []string{"ca.test"}})
)

// wantJSON holds v's JSON against want, which may be indented.
func wantJSON(t *testing.T, v any, want string) {
	t.Helper()
	var have, expect any
	if err := json.Unmarshal(toJSON(v), &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &expect); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if string(toJSON(have)) != string(toJSON(expect)) {
		t.Errorf("\nhave %s\nwant %s", toJSON(have), toJSON(expect))
	}
}

// TestOrderObject: RFC 8555 section 7.1.3.
func TestOrderObject(t *testing.T) {
	const common = `"identifiers":[{"type":"dns","value":"*.a.test"},{"type":"ip","value":"192.0.2.1"}],
		"authorizations":["https://ca.test/acme/main/authz/0000000000000000000000000a","https://ca.test/acme/main/authz/0000000000000000000000000b"],
		"finalize":"https://ca.test/acme/main/order/0000000000000000000000000o/finalize",
		"expires":"2026-11-21T09:00:00Z"`
	o := testOrder
	o.Certificate = "abcd" // planned: not to be shown before the order is valid
	wantJSON(t, testDir.orderObject(o), `{"status":"pending",`+common+`}`)
	o.Status = protocol.OrderProcessing
	wantJSON(t, testDir.orderObject(o), `{"status":"processing",`+common+`}`)
	o.Status = protocol.OrderValid
	o.Profile, o.NotBefore, o.NotAfter, o.Replaces = "server", testTime, testTime.Add(time.Hour), "AAAA.BBBB"
	wantJSON(t, testDir.orderObject(o), `{"status":"valid","certificate":"https://ca.test/acme/main/certificate/abcd",
		"profile":"server","notBefore":"2026-11-21T09:00:00Z","notAfter":"2026-11-21T10:00:00Z","replaces":"AAAA.BBBB",`+common+`}`)
	o = testOrder
	o.Status, o.Error = protocol.OrderInvalid, protocol.NewProblem(protocol.CAAForbids, "no").For(o.Identifiers[0])
	wantJSON(t, testDir.orderObject(o), `{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"no","status":403},`+common+`}`)
	// Arrays are there even when they are empty.
	if text := string(toJSON(testDir.orderObject(protocol.Order{Identifiers: []protocol.Identifier{}}))); strings.Contains(text, "null") {
		t.Error(text)
	}
}

// TestOrderAnswer: Location also at finalize; Retry-After while processing, a
// second at least, and never otherwise (clients wait for as long as it says).
func TestOrderAnswer(t *testing.T) {
	for _, tt := range []struct {
		status protocol.OrderStatus
		after  time.Duration
		want   time.Duration
	}{
		{protocol.OrderProcessing, 0, time.Second},
		{protocol.OrderProcessing, 7 * time.Second, 7 * time.Second},
		{protocol.OrderValid, 7 * time.Second, 0},
		{protocol.OrderReady, 0, 0},
	} {
		o := testOrder
		o.Status = tt.status
		a := testDir.orderAnswer(200, ca.OrderView{Order: o, RetryAfter: tt.after})
		if a.retryAfter != tt.want || a.location != base+"/acme/main/order/"+string(o.ID) {
			t.Errorf("%s: %v, %q", tt.status, a.retryAfter, a.location)
		}
	}
}

// TestAuthorizationObject: RFC 8555 section 7.1.4.
func TestAuthorizationObject(t *testing.T) {
	z := protocol.Authorization{
		ID: "0000000000000000000000000a", Account: "0000000000000000000000000c",
		Identifier: protocol.Identifier{Type: "dns", Value: "a.test"}, Status: protocol.AuthorizationPending,
		ExpiresAt: testTime, Token: "tok", Offered: []protocol.ChallengeType{protocol.HTTP01, protocol.DNSPersist01},
	}
	const (
		common  = `"identifier":{"type":"dns","value":"a.test"},"expires":"2026-11-21T09:00:00Z"`
		http    = `{"type":"http-01","url":"https://ca.test/acme/main/challenge/0000000000000000000000000a/http-01","status":"pending","token":"tok"}`
		persist = `{"type":"dns-persist-01","url":"https://ca.test/acme/main/challenge/0000000000000000000000000a/dns-persist-01","status":"pending","token":"tok",
			"issuerDomainNames":["ca.test"],"issuer-domain-names":["ca.test"],"accounturi":"https://ca.test/acme/main/account/0000000000000000000000000c"}`
	)
	a := testDir.authorizationAnswer(z)
	wantJSON(t, a.body, `{"status":"pending","challenges":[`+http+`,`+persist+`],`+common+`}`)
	if a.retryAfter != 0 {
		t.Error("Retry-After before anything was tried: clients would wait")
	}

	z.Wildcard = true
	wantJSON(t, testDir.authorizationAnswer(z).body, `{"status":"pending","wildcard":true,"challenges":[`+http+`,`+persist+`],`+common+`}`)
	z.Wildcard = false

	// Being tried: the last try's error is there (section 8.2), and when to look.
	z.Attempt = protocol.Attempt{Type: protocol.HTTP01, Processing: true, Tries: 1, NextAt: time.Now().Add(3 * time.Second), Error: protocol.NewProblem(protocol.ConnectionFailed, "refused")}
	a = testDir.authorizationAnswer(z)
	trying := strings.Replace(strings.Replace(http, `"pending"`, `"processing"`, 1), `}`, `,"error":{"type":"urn:ietf:params:acme:error:connection","detail":"refused","status":400}}`, 1)
	wantJSON(t, a.body, `{"status":"pending","challenges":[`+trying+`,`+persist+`],`+common+`}`)
	if a.retryAfter <= 2*time.Second || a.retryAfter > 3*time.Second {
		t.Errorf("Retry-After %v", a.retryAfter)
	}

	// Failed: "the challenge that was attempted and failed".
	z.Status, z.Attempt.Processing = protocol.AuthorizationInvalid, false
	a = testDir.authorizationAnswer(z)
	wantJSON(t, a.body, `{"status":"invalid","challenges":[`+strings.Replace(trying, "processing", "invalid", 1)+`],`+common+`}`)
	if a.retryAfter != 0 {
		t.Error("Retry-After on a final authorization")
	}

	// Valid: "the challenge that was validated", with the time.
	z.Status, z.Attempt = protocol.AuthorizationValid, protocol.Attempt{Type: protocol.HTTP01, ValidatedAt: testTime}
	valid := strings.Replace(strings.Replace(http, `"pending"`, `"valid"`, 1), `}`, `,"validated":"2026-11-21T09:00:00Z"}`, 1)
	wantJSON(t, testDir.authorizationAnswer(z).body, `{"status":"valid","challenges":[`+valid+`],`+common+`}`)

	// Of a pod: what its token must be made for (DESIGN section 6).
	pod := protocol.Authorization{
		ID: z.ID, Identifier: z.Identifier, Status: protocol.AuthorizationPending, ExpiresAt: testTime, Token: "tok",
		Offered: []protocol.ChallengeType{protocol.Kubernetes01}, BoundTo: "secret", Subject: "secret",
	}
	wantJSON(t, testDir.authorizationAnswer(pod).body, `{"status":"pending",`+common+`,"challenges":[
		{"type":"kubernetes-01","url":"https://ca.test/acme/main/challenge/0000000000000000000000000a/kubernetes-01","status":"pending","token":"tok",
			"audiences":["https://ca.test/acme/main/directory"]}]}`)

	// Valid without a live proof: an empty array, not null.
	z.Offered, z.Attempt.Type = nil, protocol.PreApproved
	wantJSON(t, testDir.authorizationAnswer(z).body, `{"status":"valid","challenges":[],`+common+`}`)
}

// TestProblemDocument: RFC 8555 section 6.7.1's own example, in our words.
func TestProblemDocument(t *testing.T) {
	a, b := protocol.Identifier{Type: "dns", Value: "_example.org"}, protocol.Identifier{Type: "dns", Value: "example.net"}
	p := protocol.Join(protocol.Malformed, []*protocol.Problem{
		protocol.NewProblem(protocol.Malformed, "underscore").For(a),
		protocol.NewProblem(protocol.RejectedIdentifier, "won't").For(b),
	})
	p.Detail = "some"
	wantJSON(t, renderProblem(p), `{"type":"urn:ietf:params:acme:error:compound","detail":"some","status":400,"subproblems":[
		{"type":"urn:ietf:params:acme:error:malformed","detail":"underscore","identifier":{"type":"dns","value":"_example.org"}},
		{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"won't","identifier":{"type":"dns","value":"example.net"}}]}`)
	// One alone loses its identifier: "MUST NOT be present at the top level".
	wantJSON(t, renderProblem(protocol.NewProblem(protocol.RejectedIdentifier, "won't").For(b)),
		`{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"won't","status":400}`)
}

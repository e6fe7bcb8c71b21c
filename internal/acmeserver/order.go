package acmeserver

import (
	"context"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// orderObject is an order as its client sees it (RFC 8555 section 7.1.3).
type orderObject struct {
	Status         protocol.OrderStatus  `json:"status"`
	Expires        string                `json:"expires,omitempty"`
	Identifiers    []protocol.Identifier `json:"identifiers"`
	Profile        string                `json:"profile,omitempty"` // profiles draft section 4
	NotBefore      string                `json:"notBefore,omitempty"`
	NotAfter       string                `json:"notAfter,omitempty"`
	Replaces       string                `json:"replaces,omitempty"` // RFC 9773 section 5
	Error          *problemObject        `json:"error,omitempty"`
	Authorizations []string              `json:"authorizations"`
	Finalize       string                `json:"finalize"`
	Certificate    string                `json:"certificate,omitempty"`
}

func (d *directory) orderObject(o protocol.Order) orderObject {
	url := d.orderURL(o.ID)
	object := orderObject{
		Status: o.Status, Expires: timestamp(o.ExpiresAt), Identifiers: o.Identifiers, Profile: o.Profile,
		NotBefore: timestamp(o.NotBefore), NotAfter: timestamp(o.NotAfter), Replaces: o.Replaces,
		Error: renderProblem(o.Error), Authorizations: make([]string, len(o.Authorizations)), Finalize: url + "/finalize",
	}
	for i, id := range o.Authorizations {
		object.Authorizations[i] = d.authorizationURL(id)
	}
	if o.Status == protocol.OrderValid && o.Certificate != "" {
		object.Certificate = d.certificateURL(o.Certificate)
	}
	return object
}

// timestamp writes a time as RFC 3339 in UTC and whole seconds, which every
// client reads; "" for none.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// leastRetry is when to look again at what isn't final, where the authority
// names no time: some clients wait five seconds when nobody tells them.
const leastRetry = time.Second

// orderAnswer is an order with its URL, which many clients want at finalize
// as well as at newOrder, and when to look again while it is processing.
func (d *directory) orderAnswer(status int, v ca.OrderView) response {
	answer := response{status: status, location: d.orderURL(v.ID), body: d.orderObject(v.Order)}
	if v.Status == protocol.OrderProcessing {
		answer.retryAfter = max(v.RetryAfter, leastRetry)
	}
	return answer
}

// newOrderPayload is RFC 8555 section 7.4, with the profile (profiles draft
// section 4) and replaces (RFC 9773 section 5).
type newOrderPayload struct {
	Identifiers []identifierObject `json:"identifiers"`
	NotBefore   string             `json:"notBefore"`
	NotAfter    string             `json:"notAfter"`
	Profile     string             `json:"profile"`
	Replaces    string             `json:"replaces"`
}

// identifierObject is an identifier as sent, before it is believed.
type identifierObject struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// Bounds on an order. How many names one may have is the directory's policy;
// this only keeps the work of looking at each small.
const (
	maxIdentifiers = 1000
	maxWordLength  = 256 // of a profile's name or a certificate identifier
)

// newOrder records an order (section 7.4).
func newOrder(ctx context.Context, q *request) (response, error) {
	var p newOrderPayload
	if err := q.decode(&p); err != nil {
		return response{}, err
	}
	if len(p.Profile) > maxWordLength {
		return response{}, protocol.NewProblem(protocol.InvalidProfile, "there is no such profile; the directory's meta.profiles lists them")
	}
	if len(p.Replaces) > maxWordLength {
		return response{}, protocol.NewProblem(protocol.Malformed, "replaces must be a certificate identifier (RFC 9773 section 4.1)")
	}
	r := ca.OrderRequest{Profile: p.Profile, Replaces: p.Replaces}
	var err error
	if r.Identifiers, err = parseIdentifiers(p.Identifiers); err != nil {
		return response{}, err
	}
	if r.NotBefore, err = parseDate("notBefore", p.NotBefore); err != nil {
		return response{}, err
	}
	if r.NotAfter, err = parseDate("notAfter", p.NotAfter); err != nil {
		return response{}, err
	}
	v, err := q.Authority.NewOrder(ctx, q.who(), r)
	if err != nil {
		return response{}, err
	}
	return q.dir.orderAnswer(http.StatusCreated, v), nil
}

// parseIdentifiers brings the names into canonical form and refuses one that
// is there twice; what is wrong with several is said of each.
func parseIdentifiers(sent []identifierObject) ([]protocol.Identifier, error) {
	if len(sent) == 0 {
		return nil, protocol.NewProblem(protocol.Malformed, "the order has no identifiers; name at least one")
	}
	if len(sent) > maxIdentifiers {
		return nil, protocol.NewProblem(protocol.Malformed, "the order has %d identifiers; no directory takes more than %d", len(sent), maxIdentifiers)
	}
	ids := make([]protocol.Identifier, 0, len(sent))
	seen := make(map[protocol.Identifier]bool, len(sent))
	var problems []*protocol.Problem
	for _, s := range sent {
		id, err := protocol.ParseIdentifier(s.Type, s.Value)
		switch {
		case err != nil:
			problems = append(problems, asProblem(err))
		case seen[id]:
			problems = append(problems, protocol.NewProblem(protocol.Malformed, "%q is there more than once; name it once", id.Value).For(id))
		default:
			seen[id] = true
			ids = append(ids, id)
		}
	}
	if p := protocol.Join(protocol.Malformed, problems); p != nil {
		return nil, p
	}
	return ids, nil
}

// parseDate reads a date of RFC 3339; zero for none. Go programs that were
// asked for no date send that of year 1.
func parseDate(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, protocol.NewProblem(protocol.Malformed, "%s is %q; write it as 2006-01-02T15:04:05Z (RFC 3339)", name, excerpt(text))
	}
	if t.Year() == 1 {
		return time.Time{}, nil
	}
	return t, nil
}

// showOrder shows an order to the account that made it.
func showOrder(ctx context.Context, q *request) (response, error) {
	id, err := protocol.ParseID[protocol.OrderID](q.id)
	if err != nil {
		return response{}, noSuch("order")
	}
	v, err := q.Authority.Order(ctx, q.who(), id)
	if err != nil {
		return response{}, err
	}
	return q.dir.orderAnswer(http.StatusOK, v), nil
}

package acmeserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// accountObject is an account as clients see it (RFC 8555 section 7.1.2).
type accountObject struct {
	Status                 protocol.AccountStatus `json:"status"`
	Contact                []string               `json:"contact,omitempty"`
	TermsOfServiceAgreed   bool                   `json:"termsOfServiceAgreed,omitempty"`
	ExternalAccountBinding json.RawMessage        `json:"externalAccountBinding,omitempty"`
	Orders                 string                 `json:"orders"`
}

func (d *directory) accountObject(a protocol.Account) accountObject {
	return accountObject{
		Status: a.Status, Contact: a.Contact, TermsOfServiceAgreed: !a.TermsAt.IsZero(),
		Orders: d.accountURL(a.ID) + "/orders",
	}
}

// newAccountPayload is what a client says of itself (section 7.3).
type newAccountPayload struct {
	Contact                []string        `json:"contact"`
	TermsOfServiceAgreed   bool            `json:"termsOfServiceAgreed"`
	OnlyReturnExisting     bool            `json:"onlyReturnExisting"`
	ExternalAccountBinding json.RawMessage `json:"externalAccountBinding"`
}

// newAccount makes an account or finds the one of the key (section 7.3).
//
// "Any fields in the request object MUST be ignored" when the account is
// there already (section 7.3.1), so faults in them count only when it isn't:
// with a fault the authority is asked for an existing account only.
func newAccount(ctx context.Context, q *request) (response, error) {
	var p newAccountPayload
	if err := q.decode(&p); err != nil {
		return response{}, err
	}
	eab, fault := q.checkNewAccount(p)
	a, created, err := q.Authority.Register(ctx, ca.Registration{
		Directory: q.dir.name, Peer: q.peer, Key: q.jws.JWK, Contact: p.Contact,
		TermsAgreed: p.TermsOfServiceAgreed, EAB: eab, OnlyExisting: p.OnlyReturnExisting || fault != nil,
	})
	if fault != nil && !p.OnlyReturnExisting && isType(err, protocol.AccountDoesNotExist) {
		return q.termsLink(fault), fault
	}
	if err != nil {
		return response{}, err
	}
	q.account = a
	answer := response{location: q.dir.accountURL(a.ID)}
	object := q.dir.accountObject(a)
	if created {
		answer.status = http.StatusCreated
		if eab != nil { // it was verified: section 7.3.4 wants it back
			object.ExternalAccountBinding = p.ExternalAccountBinding
		}
	}
	answer.body = object
	return answer, nil
}

// checkNewAccount looks for faults in what a new account would be made of.
func (q *request) checkNewAccount(p newAccountPayload) (*jws.EAB, error) {
	if err := checkContacts(p.Contact); err != nil {
		return nil, err
	}
	if q.dir.meta.RequireTerms && !p.TermsOfServiceAgreed {
		problem := protocol.NewProblem(protocol.UserActionRequired,
			"read the terms of service at %s, and agree by termsOfServiceAgreed: true", q.dir.terms)
		problem.Instance = q.dir.terms
		return nil, problem
	}
	if len(p.ExternalAccountBinding) == 0 || bytes.Equal(p.ExternalAccountBinding, []byte("null")) {
		return nil, nil
	}
	eab, err := jws.ParseEAB(p.ExternalAccountBinding)
	if err != nil {
		return nil, signatureProblem(err)
	}
	if eab.URL != q.jws.URL {
		return nil, protocol.NewProblem(protocol.Malformed, "the url of the externalAccountBinding must be that of the request, %s (RFC 8555 section 7.3.4)", q.jws.URL)
	}
	if !eab.JWK.Equal(q.jws.JWK) {
		return nil, protocol.NewProblem(protocol.Malformed, "the payload of the externalAccountBinding must be the key that signed the request (RFC 8555 section 7.3.4)")
	}
	return eab, nil
}

// termsLink goes with userActionRequired (section 7.3.3).
func (q *request) termsLink(err error) response {
	if !isType(err, protocol.UserActionRequired) {
		return response{}
	}
	return response{links: []string{link(q.dir.terms, "terms-of-service")}}
}

func isType(err error, t protocol.ProblemType) bool {
	p, ok := errors.AsType[*protocol.Problem](err)
	return ok && p.Type == t
}

// Bounds on contacts: more than anyone has, and as long as an address may be
// (RFC 5321 section 4.5.3.1.3).
const (
	maxContacts      = 10
	maxContactLength = 256
)

// checkContacts looks at contact URLs (section 7.3). Only mailto is taken,
// and, since it does no harm, a bare address as the step CLI sends it.
func checkContacts(contacts []string) error {
	if len(contacts) > maxContacts {
		return protocol.NewProblem(protocol.InvalidContact, "there are %d contacts; give at most %d", len(contacts), maxContacts)
	}
	for _, c := range contacts {
		address := c
		if scheme, rest, ok := strings.Cut(c, ":"); ok {
			if !strings.EqualFold(scheme, "mailto") {
				return protocol.NewProblem(protocol.UnsupportedContact, "the contact %q is no mailto URL, and only those are taken", excerpt(c))
			}
			address = rest
		}
		if len(c) > maxContactLength || !isAddress(address) {
			return protocol.NewProblem(protocol.InvalidContact,
				"the contact %q must be mailto: with one mail address, without header fields, at most %d bytes long", excerpt(c), maxContactLength)
		}
	}
	return nil
}

// isAddress reports whether s may be one mail address: neither several nor
// with header fields (RFC 6068 section 2), which section 7.3 forbids.
func isAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(",?<>", r) })
}

// accountPayload is an update (section 7.3.2) or the end (section 7.3.6).
// termsOfServiceAgreed isn't here: updates to it MUST be ignored.
type accountPayload struct {
	Status  string    `json:"status"`
	Contact *[]string `json:"contact"` // nil: unchanged
}

// account shows, changes or ends the account that asks (sections 7.3.2, 7.3.6).
func account(ctx context.Context, q *request) (response, error) {
	if err := q.ownAccount(); err != nil {
		return response{}, err
	}
	var p accountPayload
	if !q.jws.IsPostAsGet() {
		if err := q.decode(&p); err != nil {
			return response{}, err
		}
	}
	a, err := q.account, error(nil)
	switch {
	case p.Status == string(protocol.AccountDeactivated):
		a, err = q.Authority.DeactivateAccount(ctx, q.who())
	case p.Contact != nil:
		if err := checkContacts(*p.Contact); err != nil {
			return response{}, err
		}
		a, err = q.Authority.UpdateAccount(ctx, q.who(), p.Contact, false)
	}
	if err != nil {
		return response{}, err
	}
	return response{body: q.dir.accountObject(a)}, nil
}

// ownAccount refuses an account URL that isn't the caller's, in the same
// words whether there is such an account or not.
func (q *request) ownAccount() error {
	if q.id != string(q.account.ID) {
		return protocol.NewProblem(protocol.Unauthorized, "this account is not the one that signed the request; only its own key may ask for it")
	}
	return nil
}

// ordersPage is how many orders one page lists: about 8 KiB of URLs.
const ordersPage = 100

// ordersObject is RFC 8555 section 7.1.2.1.
type ordersObject struct {
	Orders []string `json:"orders"`
}

// showOrders lists the account's orders, page by page.
func showOrders(ctx context.Context, q *request) (response, error) {
	if err := q.ownAccount(); err != nil {
		return response{}, err
	}
	var after protocol.OrderID
	if cursor := q.http.URL.Query().Get("cursor"); cursor != "" {
		var err error
		if after, err = protocol.ParseID[protocol.OrderID](cursor); err != nil {
			return response{}, protocol.NewProblem(protocol.Malformed, "the cursor is not one of ours; follow the Link with rel=\"next\"")
		}
	}
	ids, next, err := q.Authority.Orders(ctx, q.who(), after, ordersPage)
	if err != nil {
		return response{}, err
	}
	list := ordersObject{Orders: make([]string, len(ids))} // never null
	for i, id := range ids {
		list.Orders[i] = q.dir.orderURL(id)
	}
	answer := response{body: list}
	if next != "" {
		answer.links = []string{link(q.dir.accountURL(q.account.ID)+"/orders?cursor="+string(next), "next")}
	}
	return answer, nil
}

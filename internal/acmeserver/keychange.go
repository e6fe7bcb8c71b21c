package acmeserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// keyChangePayload is the payload of the inner JWS (RFC 8555 section 7.3.5).
type keyChangePayload struct {
	Account string          `json:"account"`
	OldKey  json.RawMessage `json:"oldKey"`
}

// keyChange gives the account a new key. The numbers are those of section
// 7.3.5's list; the first, an active account, was checked on the way here.
func keyChange(ctx context.Context, q *request) (response, error) {
	if q.jws.IsPostAsGet() {
		return response{}, protocol.NewProblem(protocol.Malformed, "the payload must be the inner JWS, signed with the new key (RFC 8555 section 7.3.5)")
	}
	inner, err := jws.ParseInner(q.jws.Payload) // 2 and 3
	if err != nil {
		return response{}, signatureProblem(err)
	}
	if err := inner.Verify(inner.JWK.Key); err != nil { // 4
		return response{}, signatureProblem(err)
	}
	if err := q.checkKeyChange(inner); err != nil { // 5 to 8
		return response{}, err
	}
	err = q.Authority.RolloverKey(ctx, q.who(), inner.JWK) // 9
	if used, ok := errors.AsType[*ca.KeyInUseError](err); ok {
		return response{location: q.dir.accountURL(used.Account)},
			protocol.NewProblem(protocol.Malformed, "%v", used).WithStatus(http.StatusConflict)
	}
	if err != nil {
		return response{}, err
	}
	return response{body: q.dir.accountObject(q.account)}, nil
}

func (q *request) checkKeyChange(inner *jws.Request) error {
	var p keyChangePayload
	if inner.IsPostAsGet() {
		return protocol.NewProblem(protocol.Malformed, "the inner JWS must have a keyChange object with account and oldKey as payload")
	}
	if err := decodeObject(inner.Payload, &p); err != nil {
		return err
	}
	if p.Account == "" || len(p.OldKey) == 0 {
		return protocol.NewProblem(protocol.Malformed, "the payload of the inner JWS must have account and oldKey")
	}
	if inner.URL != q.jws.URL {
		return protocol.NewProblem(protocol.Malformed, "the url of the inner JWS must be that of the outer one, %s", q.jws.URL)
	}
	if p.Account != q.jws.KID {
		return protocol.NewProblem(protocol.Malformed, "account must be the URL of the account that signed the outer JWS, %s", q.jws.KID)
	}
	if canonicalKey(p.OldKey) != string(q.account.Key) {
		return protocol.NewProblem(protocol.Malformed, "oldKey is not the account's present key")
	}
	if inner.JWK.Canonical == string(q.account.Key) {
		return protocol.NewProblem(protocol.Malformed, "the new key is the account's present key; make a new one")
	}
	return nil
}

// canonicalKey writes a JWK in RFC 7638 section 3's form, so that it can be
// held against a stored key; "" for what can't be a key. It needn't check the
// key: only one that equals a good key passes.
func canonicalKey(text json.RawMessage) string {
	var k struct{ Kty, Crv, X, Y, E, N string }
	if json.Unmarshal(text, &k) != nil {
		return ""
	}
	// The members' order is the alphabet's, as encoding/json writes maps.
	members := map[string]string{"kty": k.Kty, "crv": k.Crv, "x": k.X, "y": k.Y, "e": k.E, "n": k.N}
	for name, value := range members {
		if value == "" {
			delete(members, name)
		}
	}
	canonical, err := json.Marshal(members)
	if err != nil {
		return ""
	}
	return string(canonical)
}

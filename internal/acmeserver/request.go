package acmeserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// request is one request on its way; authenticate fills what it finds.
type request struct {
	*handler
	http     *http.Request
	dir      *directory // nil where the path names none
	endpoint *endpoint
	id, sub  string // what follows the resource's word in the path, unchecked
	peer     netip.AddrPort

	jws     *jws.Request     // verified; nil for a GET
	account protocol.Account // whose kid it is; zero where jwk signed
}

// who is the account that signed, as the authority wants it.
func (q *request) who() ca.Requester {
	return ca.Requester{Directory: q.dir.name, Account: q.account, Peer: q.peer}
}

// authenticate reads a POST and believes it or not; see the package comment
// for the order of its checks.
func (q *request) authenticate(ctx context.Context) error {
	if err := q.checkMediaType(); err != nil {
		return err
	}
	body, err := q.readBody()
	if err != nil {
		return err
	}
	m, err := jws.Parse(body)
	if err != nil {
		return signatureProblem(err)
	}
	if err := q.useNonce(ctx, m.Nonce); err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(m.URL, q.base); !ok || path != q.http.URL.RequestURI() {
		return protocol.NewProblem(protocol.Unauthorized,
			"the url in the protected header is not the one this request was sent to, %s%s; sign the very URL that the server gave (RFC 8555 section 6.4)",
			q.base, excerpt(q.http.URL.RequestURI()))
	}
	if err := q.checkSigner(m); err != nil {
		return err
	}
	key := m.JWK
	if m.KID != "" {
		if key, err = q.findAccount(ctx, m.KID); err != nil {
			return err
		}
	}
	if err := m.Verify(key.Key); err != nil {
		return signatureProblem(err)
	}
	q.jws = m
	return nil
}

// checkMediaType refuses a POST that isn't a plain JWS (RFC 8555 section 6.2).
// Parameters are overlooked: they mean nothing for this type.
func (q *request) checkMediaType() error {
	const want = "application/jose+json"
	have := q.http.Header.Get("Content-Type")
	if have != want {
		if media, _, err := mime.ParseMediaType(have); err != nil || media != want {
			return protocol.NewProblem(protocol.Malformed, "the Content-Type is %q; send %s (RFC 8555 section 6.2)", excerpt(have), want).
				WithStatus(http.StatusUnsupportedMediaType)
		}
	}
	if coding := q.http.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return protocol.NewProblem(protocol.Malformed, "the Content-Encoding is %q; send the body as it is", excerpt(coding)).
			WithStatus(http.StatusUnsupportedMediaType)
	}
	return nil
}

// firstRead is the room a body gets before any of it has come: more than
// nearly every request needs. Whoever announces much and sends nothing holds
// no more than this.
const firstRead = 8 << 10

// readBody reads at most jws.MaxBody bytes.
func (q *request) readBody() ([]byte, error) {
	tooLarge := protocol.NewProblem(protocol.Malformed, "the request body is longer than %d bytes", jws.MaxBody).
		WithStatus(http.StatusRequestEntityTooLarge)
	if q.http.ContentLength > jws.MaxBody {
		return nil, tooLarge
	}
	var body bytes.Buffer
	body.Grow(int(min(max(q.http.ContentLength, 0), firstRead)) + bytes.MinRead)
	_, err := body.ReadFrom(io.LimitReader(q.http.Body, jws.MaxBody+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, protocol.NewProblem(protocol.Malformed, "the request body did not arrive in time").WithStatus(http.StatusRequestTimeout)
	case err != nil:
		return nil, protocol.NewProblem(protocol.Malformed, "the request body ended early or is not well formed HTTP")
	case body.Len() > jws.MaxBody:
		return nil, tooLarge
	}
	return body.Bytes(), nil
}

// checkSigner holds jwk and kid against what the resource wants (RFC 8555
// section 6.2).
func (q *request) checkSigner(m *jws.Request) error {
	switch want := q.endpoint.signer; {
	case want == byKey && m.JWK == nil:
		return protocol.NewProblem(protocol.Malformed, "this resource wants the account's public key as jwk in the protected header, not kid (RFC 8555 section 6.2)")
	case want == byAccount && m.KID == "":
		return protocol.NewProblem(protocol.Malformed, "this resource wants the account's URL as kid in the protected header, not jwk (RFC 8555 section 6.2)")
	}
	return nil
}

// useNonce spends the nonce: once it has appeared in a request it is invalid,
// whatever becomes of that request (RFC 8555 section 6.5). The answer brings a
// fresh one, as every answer does.
func (q *request) useNonce(ctx context.Context, nonce string) error {
	if nonce == "" {
		return protocol.NewProblem(protocol.BadNonce, "the protected header has no nonce; use the Replay-Nonce of this answer")
	}
	good, err := q.Nonces.Use(ctx, nonce)
	if err != nil {
		return fmt.Errorf("use nonce: %w", err)
	}
	if !good {
		return protocol.NewProblem(protocol.BadNonce, "the nonce is used up, too old or not ours; try again with the Replay-Nonce of this answer")
	}
	return nil
}

// findAccount looks up who kid names, and that one's key.
func (q *request) findAccount(ctx context.Context, kid string) (*jws.JWK, error) {
	text, ok := strings.CutPrefix(kid, q.dir.accountPrefix)
	id, err := protocol.ParseID[protocol.AccountID](text)
	if !ok || err != nil {
		return nil, protocol.NewProblem(protocol.AccountDoesNotExist,
			"kid must be an account's URL in this directory, %s…, as newAccount gave it in Location", q.dir.accountPrefix)
	}
	var key *jws.JWK
	q.account, key, err = q.Authority.Account(ctx, q.dir.name, id)
	return key, err
}

// wantPostAsGet refuses a payload (RFC 8555 section 6.3).
func (q *request) wantPostAsGet() error {
	if !q.jws.IsPostAsGet() {
		return protocol.NewProblem(protocol.Malformed, "this resource can only be read: send POST-as-GET, with an empty payload (RFC 8555 section 6.3)")
	}
	return nil
}

// decode reads the payload into v, a pointer to a struct. jws.Parse has seen
// that it is one JSON object, without members twice; those that v doesn't know
// are ignored, as RFC 8555 asks throughout section 7.
func (q *request) decode(v any) error {
	if q.jws.IsPostAsGet() {
		return protocol.NewProblem(protocol.Malformed, "this resource wants a JSON object as payload, and it is empty")
	}
	return decodeObject(q.jws.Payload, v)
}

func decodeObject(text []byte, v any) error {
	err := json.Unmarshal(text, v)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return protocol.NewProblem(protocol.Malformed, "the payload's member %s must be %s, not %s", excerpt(e.Field), jsonKind(e.Type), excerpt(e.Value))
	}
	if err != nil {
		return protocol.NewProblem(protocol.Malformed, "the payload is not the JSON object that this resource takes")
	}
	return nil
}

// jsonKind says what of JSON fits a type of our wire structs.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	}
	return "an object"
}

// decodeBinary reads a binary member: base64url in its one canonical form,
// trailing "=" refused (RFC 8555 section 6.1).
func decodeBinary(name, text string) ([]byte, error) {
	if text == "" {
		return nil, protocol.NewProblem(protocol.Malformed, "the payload has no %s", name)
	}
	der, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which Go's decoder skips
		return nil, protocol.NewProblem(protocol.Malformed, "%s must be DER in base64url without padding, white space or PEM lines (RFC 8555 section 6.1)", name)
	}
	return der, nil
}

// excerpt bounds what a client sent before it goes into a detail or the log.
func excerpt(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// noSuch is the answer for a path that can't name anything; the authority
// uses the same for what isn't there, and for what is another's.
func noSuch(noun string) error {
	return protocol.NewProblem(protocol.Malformed, "there is no such %s", noun).WithStatus(http.StatusNotFound)
}

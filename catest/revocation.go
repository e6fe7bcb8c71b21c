package catest

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/store"
)

// validity is how long an OCSP answer and a CRL hold.
const validity = time.Hour

// publish tells of revocations: each answer is made for its request, so that it
// is right whatever the clock does. The server's way, by jobs and caches, is
// internal/responder and internal/publish.
func (ca *CA) publish(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/ocsp"):
		ca.serveOCSP(w, r, strings.TrimPrefix(strings.TrimPrefix(path, "/ocsp"), "/"))
	case strings.HasPrefix(path, "/crl/"):
		ca.serveDocument(w, r, "application/pkix-crl", ".crl", ca.list)
	case strings.HasPrefix(path, "/ca/"):
		ca.serveDocument(w, r, "application/pkix-cert", ".cer", func(_ context.Context, of *certified) ([]byte, error) {
			return of.certificate().Raw, nil
		})
	default:
		http.NotFound(w, r)
	}
}

// serveDocument serves /KIND/KEYID.ENDING.
func (ca *CA) serveDocument(w http.ResponseWriter, r *http.Request, kind, ending string, document func(context.Context, *certified) ([]byte, error)) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	id, err := hex.DecodeString(strings.TrimSuffix(name, ending))
	of := ca.keys.withKeyID(id)
	if err != nil || of == nil {
		http.NotFound(w, r)
		return
	}
	body, err := document(r.Context(), of)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Write(body)
}

// list makes a full CRL.
func (ca *CA) list(ctx context.Context, of *certified) ([]byte, error) {
	now := ca.clock.Now()
	keyID := hex.EncodeToString(of.certificate().SubjectKeyId)
	unsigned, err := revocation.Build(revocation.List{
		Issuer: of.certificate(), Number: of.lists.Add(1), ThisUpdate: now, NextUpdate: now.Add(validity),
		Entries: func(yield func(revocation.Entry) error) error {
			return ca.db.RevokedCertificates(ctx, keyID, 0, now, func(serial cert.Serial, at time.Time, reason cert.Reason, _ time.Time) error {
				return yield(revocation.Entry{Serial: serial, At: at, Reason: reason})
			})
		},
	})
	if err != nil {
		return nil, err
	}
	return unsigned.Sign(of.sign)
}

// sign is for CRLs and OCSP answers: the test's, so nobody's turn is taken.
func (c *certified) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return c.key.Sign(rand.Reader, digest, opts)
}

// serveOCSP answers GET and POST (RFC 6960 appendix A).
func (ca *CA) serveOCSP(w http.ResponseWriter, r *http.Request, encoded string) {
	der, err := ocspRequest(r, encoded)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := ca.ocsp(r.Context(), der)
	switch {
	case errors.Is(err, revocation.ErrUnauthorized):
		answer = revocation.OCSPError(revocation.OCSPUnauthorized)
	case errors.Is(err, revocation.ErrMalformed):
		answer = revocation.OCSPError(revocation.OCSPMalformedRequest)
	case err != nil:
		answer = revocation.OCSPError(revocation.OCSPInternalError)
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Write(answer)
}

func ocspRequest(r *http.Request, encoded string) ([]byte, error) {
	if r.Method == http.MethodPost {
		return io.ReadAll(io.LimitReader(r.Body, revocation.MaxOCSPRequest))
	}
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

// ocsp makes one answer.
func (ca *CA) ocsp(ctx context.Context, der []byte) ([]byte, error) {
	var q revocation.OCSPRequest
	if err := revocation.ParseOCSPRequest(der, &q); err != nil {
		return nil, err
	}
	by := ca.keys.issuerOf(&q)
	if by == nil {
		return nil, revocation.ErrUnauthorized
	}
	subject, _, err := ca.db.OCSP(ctx, q.CertSerial(), "sha256")
	if errors.Is(err, store.ErrNotFound) || err == nil && subject.IssuerKeyID != hex.EncodeToString(by.certificate().SubjectKeyId) {
		return nil, revocation.ErrUnauthorized
	}
	if err != nil {
		return nil, err
	}
	now := ca.clock.Now()
	answer := revocation.OCSPResponse{
		Issuer: by.certificate(), Hash: q.Hash, Serial: q.CertSerial(), ProducedAt: now, ThisUpdate: now, NextUpdate: now.Add(validity),
	}
	if !subject.Revoked.At.IsZero() {
		answer.Status, answer.RevokedAt, answer.Reason = revocation.Revoked, subject.Revoked.At, subject.Revoked.Reason
	}
	unsigned, err := revocation.BuildOCSP(answer)
	if err != nil {
		return nil, err
	}
	return unsigned.Sign(by.sign)
}

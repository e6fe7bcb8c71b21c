package mtls

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// staple fetches and verifies an OCSP response for one of our own
// certificates, leaf first. It returns nil and the zero time where the
// certificate names no responder. It blocks until the responders have answered,
// ten seconds each at most. That the certificate was revoked, or that the
// responder doesn't know it, is an error.
func (t *Trust) staple(ctx context.Context, chain []*x509.Certificate) (response []byte, nextUpdate time.Time, err error) {
	if len(chain) == 0 {
		return nil, time.Time{}, errors.New("mtls: staple: no certificate")
	}
	if len(chain[0].OCSPServer) == 0 {
		return nil, time.Time{}, nil
	}
	issuer := t.issuerOf(chain)
	if issuer == nil {
		return nil, time.Time{}, fmt.Errorf("mtls: staple: the certificate's issuer %q is neither in its chain nor a root", chain[0].Issuer)
	}
	response, nextUpdate, err = t.status.Staple(ctx, chain[0], issuer)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("mtls: staple: %w", err)
	}
	return response, nextUpdate, nil
}

// issuerOf finds who has issued our certificate: in its chain, or, where the
// root itself has, among the roots.
func (t *Trust) issuerOf(chain []*x509.Certificate) *x509.Certificate {
	leaf := chain[0]
	if len(chain) > 1 {
		if bytes.Equal(leaf.RawIssuer, chain[1].RawSubject) && leaf.CheckSignatureFrom(chain[1]) == nil {
			return chain[1]
		}
		return nil
	}
	for _, list := range []int{servers, clients} {
		chains, err := leaf.Verify(x509.VerifyOptions{
			Roots: t.roots.Today(list).Pool, CurrentTime: t.clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil && len(chains[0]) > 1 {
			return chains[0][1]
		}
	}
	return nil
}

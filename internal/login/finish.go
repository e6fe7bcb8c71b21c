package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// finish answers the challenges that were signed, finalizes the order and
// fetches what it brought. Only what was verified is kept.
func (a *attempt) finish(ctx context.Context, att *yubikey.Attestation) error {
	if err := a.answer(ctx, att); err != nil {
		return err
	}
	payload, err := a.payload()
	if err != nil {
		return err
	}
	order, err := a.finalize(ctx, payload)
	if err != nil {
		return err
	}
	if order.Status != acme.StatusValid || order.Certificate == "" {
		return errors.New("its order ended without a certificate")
	}
	chain, err := a.ca.client.Certificate(ctx, order.Certificate)
	if err != nil {
		return err
	}
	public := att.Statement.PublicKey
	if a.key != nil {
		public = a.key.Public()
	}
	if a.want.Kind == settings.SSH {
		a.issued, err = a.verifySSH(chain, public)
	} else {
		a.issued, err = a.verifyTLS(chain, public)
	}
	if err != nil {
		return fmt.Errorf("what came is not what was asked for, and was thrown away: %w", err)
	}
	return nil
}

// answer posts the signatures, and waits until the server has looked.
func (a *attempt) answer(ctx context.Context, att *yubikey.Attestation) error {
	for i := range a.proofs {
		p := &a.proofs[i]
		ch, err := a.ca.client.Accept(ctx, p.challenge, yubikey.NewResponse(att, p.signature))
		if err != nil {
			return err
		}
		p.authz.RetryAfter = ch.RetryAfter
		if ch.Status == acme.StatusValid || ch.Status == acme.StatusInvalid { // the authorization has followed (RFC 8555 section 7.1.6)
			p.authz.Status, p.authz.Challenges = ch.Status, []acme.Challenge{ch}
		}
	}
	for i := range a.proofs {
		if _, err := a.ca.client.WaitAuthorization(ctx, a.proofs[i].authz); err != nil {
			return err
		}
	}
	return nil
}

// payload is what finalize is sent (DESIGN section 6).
func (a *attempt) payload() (any, error) {
	switch {
	case a.want.Kind == settings.TLS:
		key := a.key
		if key == nil {
			// The certificate's key is the device's, which the CA knows; a
			// CSR needs some key to sign it, and that of the device would
			// need a touch.
			throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return nil, err
			}
			key = throwaway
		}
		csr, err := acme.NewCSR(key, a.want.ids...)
		return map[string]string{"csr": base64.RawURLEncoding.EncodeToString(csr)}, err
	case a.key == nil:
		return struct{}{}, nil
	}
	signer, err := ssh.NewSignerFromSigner(a.key)
	if err != nil {
		return nil, err
	}
	line, err := sshca.KeyLine(signer.PublicKey(), "")
	if err != nil {
		return nil, err
	}
	possession, err := sshca.SignPossession(signer, a.order.URL)
	return map[string]string{"sshPublicKey": line, "possession": possession}, err
}

// finalize posts the payload and waits for the end. A server may take a moment
// between a valid authorization and a ready order.
func (a *attempt) finalize(ctx context.Context, payload any) (acme.Order, error) {
	c := a.ca.client
	order, err := c.FinalizeWith(ctx, a.order, payload)
	if acme.HasType(err, acme.ErrOrderNotReady) {
		order = a.order
		order.Status = acme.StatusPending
		if order, err = c.WaitOrder(ctx, order); err != nil {
			return order, err
		}
		order, err = c.FinalizeWith(ctx, order, payload)
	}
	if err != nil {
		return order, err
	}
	if order.Status == acme.StatusReady { // its answer may still be the state before
		order.Status = acme.StatusProcessing
	}
	return c.WaitOrder(ctx, order)
}

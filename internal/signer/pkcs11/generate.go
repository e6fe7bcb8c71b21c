//go:build cgo

package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/chancery-pki/chancery/internal/cert"
)

// Generate makes a key pair in the token a URI names and opens it. The URI
// must have an object or an id, and the key gets both: without an id, a random
// one of two bytes, which every token takes. The private key is marked so that
// it never leaves the token, and Generate checks that the token obeyed.
//
// It never replaces anything: an object of that label or id, of whatever kind,
// is an error that wraps fs.ErrExist. It blocks on the module, with RSA on a
// card for minutes, and on the pin function; errors are those of Open.
func Generate(ctx context.Context, uri string, t cert.KeyType, pin func(context.Context) ([]byte, error)) (*Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.Object == "" && len(u.ID) == 0 {
		return nil, fmt.Errorf("%s doesn't say what to call the key: add ;object=LABEL", u)
	}
	mechanism, public, err := keyPair(t)
	if err != nil {
		return nil, err
	}
	m, err := process.load(u)
	if err != nil {
		return nil, err
	}
	if u.PINSource != "" {
		pin = pinFile(u.PINSource)
	}
	maker := &maker{module: m, uri: u, pin: pin, kind: t, mechanism: mechanism, public: public}
	s, err := maker.run(ctx)
	if errors.Is(err, ErrAbsent) && m.renew() {
		s, err = maker.run(ctx)
	}
	if err != nil {
		return nil, err
	}
	// The session stays until the key is open, and with it the login.
	defer func() {
		m.ctx.CloseSession(s.handle)
		m.open.Add(-1)
	}()
	return open(ctx, maker.uri, pin)
}

// keyPair is the mechanism that makes a type of key, and its parameters.
func keyPair(t cert.KeyType) (mechanism uint, public []*pkcs11.Attribute, err error) {
	curve := func(mechanism uint, params []byte) (uint, []*pkcs11.Attribute, error) {
		return mechanism, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params)}, nil
	}
	modulus := func(bits int) (uint, []*pkcs11.Attribute, error) {
		return pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}, nil
	}
	switch t {
	case cert.P256:
		return curve(pkcs11.CKM_EC_KEY_PAIR_GEN, curves()[0].params)
	case cert.P384:
		return curve(pkcs11.CKM_EC_KEY_PAIR_GEN, curves()[1].params)
	case cert.P521:
		return curve(pkcs11.CKM_EC_KEY_PAIR_GEN, curves()[2].params)
	case cert.Ed25519:
		return curve(ckmECEdwardsKeyPair, edParams)
	case cert.RSA2048:
		return modulus(2048)
	case cert.RSA3072:
		return modulus(3072)
	case cert.RSA4096:
		return modulus(4096)
	}
	return 0, nil, fmt.Errorf("a token can't be asked for a %q key here; use one of %s, %s, %s, %s, %s, %s, %s", t,
		cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096)
}

// maker makes one key pair.
type maker struct {
	module    *module
	uri       URI
	pin       func(context.Context) ([]byte, error)
	kind      cert.KeyType
	mechanism uint
	public    []*pkcs11.Attribute
}

// run returns the session it worked in, which counts in module.open.
func (g *maker) run(ctx context.Context) (s session, err error) {
	if err := ctx.Err(); err != nil {
		return s, context.Cause(ctx)
	}
	g.module.calls.RLock()
	defer g.module.calls.RUnlock()
	t, err := g.module.find(g.uri)
	if err != nil {
		return s, err
	}
	if s, err = g.module.openSession(t, pkcs11.CKF_RW_SESSION); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			g.module.ctx.CloseSession(s.handle)
		}
	}()
	if err := g.module.logIn(ctx, s.handle, t, g.pin); err != nil {
		return s, err
	}
	if err := g.name(s); err != nil {
		return s, err
	}
	if err := g.make(s); err != nil {
		return s, err
	}
	g.module.open.Add(1)
	return s, nil
}

// name makes sure that label and id are free, and picks an id if there is none.
func (g *maker) name(s session) error {
	taken := func(kind uint, value any) error {
		found, err := s.search(pkcs11.NewAttribute(kind, value))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%w: %s holds %s; a key is never replaced: choose another object or id", fs.ErrExist, s.token.name(), s.names(found))
		}
		return nil
	}
	if g.uri.Object != "" {
		if err := taken(pkcs11.CKA_LABEL, g.uri.Object); err != nil {
			return err
		}
	}
	if len(g.uri.ID) > 0 {
		return taken(pkcs11.CKA_ID, g.uri.ID)
	}
	const tries = 16 // of 65,000 ids; a token holds some hundred objects
	for range tries {
		id := make([]byte, 2)
		rand.Read(id)
		err := taken(pkcs11.CKA_ID, id)
		if err == nil {
			g.uri.ID = id
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fmt.Errorf("%s has no free id of two bytes; add ;id= with a longer one", s.token.name())
}

// make calls C_GenerateKeyPair and checks what came of it.
func (g *maker) make(s session) error {
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, g.uri.ID),
	}
	if g.uri.Object != "" {
		both = append(both, pkcs11.NewAttribute(pkcs11.CKA_LABEL, g.uri.Object))
	}
	public := slices.Concat(both, g.public, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)})
	private := append(slices.Clone(both),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
	)
	// A CA's key signs and does nothing else; where nothing is said, tokens
	// differ in what they allow. Some know only some of these words.
	var nothingElse []*pkcs11.Attribute
	for _, use := range []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
		nothingElse = append(nothingElse, pkcs11.NewAttribute(use, false))
	}
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(g.mechanism, nil)}
	pub, priv, err := s.ctx.GenerateKeyPair(s.handle, mechanism, public, slices.Concat(private, nothingElse))
	if code, ok := errors.AsType[pkcs11.Error](err); ok && slices.Contains([]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID,
		pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_TEMPLATE_INCONSISTENT}, uint(code)) {
		pub, priv, err = s.ctx.GenerateKeyPair(s.handle, mechanism, public, private)
	}
	if err != nil {
		return fmt.Errorf("%s can't make a %s key: %w", s.token.name(), g.kind, err)
	}
	extractable, sensitive := s.attribute(priv, pkcs11.CKA_EXTRACTABLE), s.attribute(priv, pkcs11.CKA_SENSITIVE)
	if len(extractable) == 1 && extractable[0] == 0 && len(sensitive) == 1 && sensitive[0] != 0 {
		return nil
	}
	err = errors.Join(s.ctx.DestroyObject(s.handle, priv), s.ctx.DestroyObject(s.handle, pub))
	return errors.Join(fmt.Errorf("%s made a key that could be read out of it, though it was told not to; the key was destroyed", s.token.name()), err)
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// keyFlags say which key of which card, and how it is made.
type keyFlags struct {
	Owner     string `help:"The person who has the YubiKey." placeholder:"PERSON"`
	Serial    uint32 `help:"The YubiKey's serial number, where several are plugged in."`
	Slot      string `help:"The slot of the key: 9a, 9c, 9d, 9e, 82 to 95." default:"9a"`
	KeyType   string `help:"The key: P-256, P-384, Ed25519 (no SSH), RSA-2048, RSA-3072 or RSA-4096." enum:"P-256,P-384,Ed25519,RSA-2048,RSA-3072,RSA-4096" default:"P-256"`
	PINPolicy string `name:"pin-policy" help:"Ask for the PIN once a session, or always; a touch is always wanted." enum:"once,always" default:"once"`
	Existing  bool   `name:"existing-key" help:"Enroll the key that the slot holds, in place of making one."`
	Overwrite bool   `name:"destroy-present-key" help:"Make a key although the slot holds one, which is gone for good then."`
}

// make makes the key, or takes the one that is there, and has it sign that
// it is enrolled for its owner.
func (c keyFlags) make(ctx context.Context, fl *fleet) (api.NewDevice, error) {
	owner, err := protocol.ParseOwner(c.Owner)
	if err != nil {
		return api.NewDevice{}, fmt.Errorf("--owner: %s", protocol.AsProblem(err).Detail)
	}
	slot, err := yubikey.ParseSlot(c.Slot)
	if err != nil {
		return api.NewDevice{}, err
	}
	policy, err := yubikey.ParsePINPolicy(c.PINPolicy)
	if err != nil {
		return api.NewDevice{}, err
	}
	uri := yubikey.URI{Serial: c.Serial, Slot: slot}.String()
	key, a, err := c.open(ctx, fl, uri, policy)
	if err != nil {
		return api.NewDevice{}, err
	}
	defer func() { _ = key.Close() }() // of a card that doesn't answer any more
	madeAt := time.Now().UTC().Truncate(time.Second)
	fl.tell("touch the key now: it signs that it is enrolled for %s", owner)
	possession, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, owner, madeAt))
	if err != nil {
		return api.NewDevice{}, fmt.Errorf("%w; the key is there: say the same with --existing-key", err)
	}
	return api.NewDevice{Owner: owner, Attestation: string(a.PEM()), Possession: possession, MadeAt: madeAt}, nil
}

func (c keyFlags) open(ctx context.Context, fl *fleet, uri string, policy yubikey.PINPolicy) (*yubikey.Key, *yubikey.Attestation, error) {
	ask := fl.pin("the YubiKey")
	present, _, err := fl.cards.Attest(ctx, uri)
	switch {
	case errors.Is(err, yubikey.ErrAmbiguous):
		return nil, nil, fl.ambiguous(ctx)
	case err != nil && (c.Existing || !errors.Is(err, yubikey.ErrNotFound) || errors.Is(err, yubikey.ErrAbsent)):
		return nil, nil, err
	case c.Existing:
		key, err := fl.cards.Open(ctx, uri, ask)
		return key, present, err
	case err == nil && !c.Overwrite:
		return nil, nil, fmt.Errorf("slot %s of YubiKey %d holds a key: --existing-key enrolls it, --destroy-present-key makes another in its place", present.Slot, present.Serial)
	}
	fl.tell("making a %s key in slot %s; touch it when it blinks", c.KeyType, c.Slot)
	return fl.cards.Generate(ctx, uri, yubikey.GenerateOptions{
		KeyType: cert.KeyType(c.KeyType), PIN: ask, PINPolicy: policy, TouchPolicy: yubikey.TouchAlways, Overwrite: c.Overwrite,
	})
}

// ambiguous says which cards there are.
func (f *fleet) ambiguous(ctx context.Context) error {
	cards, err := f.cards.List(ctx)
	if err != nil {
		return err
	}
	var there []string
	for _, c := range cards {
		there = append(there, fmt.Sprint(c.Serial))
	}
	return fmt.Errorf("%w are plugged in (%s): say which with --serial", yubikey.ErrAmbiguous, strings.Join(there, ", "))
}

type attestDevice struct {
	keyFlags
	Out string `short:"o" required:"" help:"The file to write; it holds no secret." placeholder:"FILE"`
}

func (c *attestDevice) Run(ctx context.Context, fl *fleet, f format, w output) error {
	d, err := c.make(ctx, fl)
	if err != nil {
		return err
	}
	if err := writeEnrolment(c.Out, d); err != nil {
		return err
	}
	if f.json {
		return f.show(w, d, "", nil)
	}
	_, err = fmt.Fprintf(w, "wrote %s: send it to who runs the CA, for chancery devices enroll --attestation\n", c.Out)
	return err
}

type enrollDevice struct {
	keyFlags
	identityFlags
	Attestation string `help:"Enroll what chancery devices attest wrote, or what an enrolment that lags left." placeholder:"FILE"`
	Directory   string `help:"Where there are no settings yet: write some for chancery login, with this ACME directory." placeholder:"URL"`
}

// Validate asks for what is needed.
func (c *enrollDevice) Validate() error {
	if c.Attestation == "" && c.Owner == "" {
		return errors.New("missing flags: --owner=PERSON, or --attestation=FILE of one who has attested")
	}
	return nil
}

func (c *enrollDevice) Run(ctx context.Context, fl *fleet, f format, w output) error {
	if _, err := fl.all(); err != nil { // before a key is made
		return err
	}
	d, path, err := c.device(ctx, fl)
	if err != nil {
		return err
	}
	a, hash, err := readAttestation(d)
	if err != nil {
		return err
	}
	fl.tell("enrolling %s: YubiKey %d (%s, firmware %s), slot %s, PIN %s, touch %s", d.Owner, a.Serial, a.FormFactor, a.Firmware, a.Slot, a.PINPolicy, a.TouchPolicy)
	all, err := each(ctx, fl, func(ctx context.Context, ca target) (api.Device, error) { return enrollAt(ctx, ca, d, hash) })
	if err != nil {
		return err
	}
	failed := report(w, f, all, "enrolled", deviceName)
	if c.Attestation == "" && slices.ContainsFunc(all, func(o outcome[api.Device]) bool { return o.Done }) {
		c.remember(fl, d, a)
	}
	if lag(all) != nil {
		if slices.ContainsFunc(all, func(o outcome[api.Device]) bool { return !o.Done && !o.refused }) {
			fl.tell("for the CAs that are missing: chancery devices enroll --attestation %s", path)
		}
		return failed
	}
	if c.Attestation == "" {
		failed = errors.Join(failed, os.Remove(path))
	}
	return failed
}

// device is what is to be enrolled, and the file that holds it until all CAs
// have it.
func (c *enrollDevice) device(ctx context.Context, fl *fleet) (d api.NewDevice, path string, err error) {
	if c.Attestation == "" {
		if path, err = enrolmentPath(c.Slot); err != nil { // before a key is made
			return d, "", err
		}
		if d, err = c.make(ctx, fl); err != nil {
			return d, "", err
		}
	} else {
		path = c.Attestation
		if d, err = readEnrolment(path); err != nil {
			return d, "", err
		}
		if owner, err := protocol.ParseOwner(c.Owner); c.Owner != "" && (err != nil || owner != d.Owner) {
			return d, "", fmt.Errorf("%s is signed for %s, not for %s", path, d.Owner, c.Owner)
		}
	}
	d.Identities = c.over(d.Identities)
	if c.Attestation != "" {
		return d, path, nil
	}
	if err := writeEnrolment(path, d); err != nil {
		return d, "", fmt.Errorf("%w; the key is there: say the same with --existing-key", err)
	}
	return d, path, nil
}

// enrollAt enrolls at one CA, where it may be enrolled already.
func enrollAt(ctx context.Context, ca target, d api.NewDevice, hash string) (api.Device, error) {
	made, err := ca.Enroll(ctx, d)
	if _, refused := errors.AsType[*api.Problem](err); !refused {
		return made, err
	}
	rows, listErr := ca.Devices(ctx, client.DeviceFilter{Owner: d.Owner})
	if listErr != nil {
		return made, err
	}
	for _, row := range rows {
		if row.Key == hash && row.State == "active" && alike(row.Identities, d.Identities) {
			return row, errAlready
		}
	}
	return made, err
}

// maxEnrolment bounds the file: two certificates and a signature.
const maxEnrolment = 64 << 10

func enrolmentPath(slot string) (string, error) {
	dir, err := login.StateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "enrolment-"+slot+".json"), os.MkdirAll(dir, 0o700)
}

func writeEnrolment(path string, d api.NewDevice) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}

func readEnrolment(path string) (d api.NewDevice, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnrolment))
	if err != nil {
		return d, err
	}
	if d, err = parseEnrolment(data); err != nil {
		return d, fmt.Errorf("%s is not what chancery devices attest writes: %w", path, err)
	}
	return d, nil
}

// parseEnrolment reads what somebody sent.
func parseEnrolment(data []byte) (d api.NewDevice, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(&d); {
	case err != nil:
		return d, err
	case dec.More():
		return d, errors.New("there is more after it")
	case d.Attestation == "" || len(d.Possession) == 0 || d.MadeAt.IsZero():
		return d, errors.New("it has no attestation, possession or time")
	}
	if owner, err := protocol.ParseOwner(d.Owner); err != nil || owner != d.Owner {
		return d, fmt.Errorf("%q is not a person's name", d.Owner)
	}
	return d, nil
}

// readAttestation reads what is enrolled, for people to see and to find it
// again; whether it is true is the CAs' to say.
func readAttestation(d api.NewDevice) (a *yubikey.Attestation, keyHash string, err error) {
	var both []*x509.Certificate
	for rest := []byte(d.Attestation); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "", fmt.Errorf("the attestation: %w", err)
		}
		both = append(both, c)
	}
	if len(both) != 2 {
		return nil, "", fmt.Errorf("the attestation has %d certificates; the statement and the device's are wanted", len(both))
	}
	if a, err = yubikey.ParseAttestation(both[0], both[1]); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(both[0].RawSubjectPublicKeyInfo)
	return a, hex.EncodeToString(sum[:]), nil
}

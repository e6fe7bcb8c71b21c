package login

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// want is a certificate that is wanted, and how far it came.
type want struct {
	settings.Certificate
	ids    []acme.Identifier
	life   time.Duration
	asked  bool         // for this very lifetime, so that a shorter one won't do
	cas    []*authority // that may be asked, in this order
	ca     int          // which of them is
	causes []error
	got    *attempt // nil: not yet
}

// defaultSSHProfile is what people's SSH certificates are called where nobody
// says: a directory's default profile is one for TLS.
const defaultSSHProfile = "ssh-user"

// permanentID is the identifier type that names a person
// (draft-ietf-acme-device-attest section 3).
const permanentID = "permanent-identifier"

// maxNames bounds the names of a certificate: each is a touch.
const maxNames = 8

// newWant checks a certificate of the settings; others are those beside it.
func newWant(c settings.Certificate, others []settings.Certificate) (*want, error) {
	w := &want{Certificate: c, life: time.Duration(c.For), asked: c.For != 0}
	if w.life == 0 {
		w.life = defaultLife
	}
	switch {
	case !plainName(c.Name):
		return nil, errors.New("a name has 1 to 64 letters, digits and ._-, a letter or a digit first: it becomes a file's name")
	case w.life < time.Minute:
		return nil, fmt.Errorf("a lifetime of %v is too short: ask for a minute or more", w.life)
	case c.Challenge != protocol.YubiKey01 && c.Challenge != protocol.YubiKey02:
		return nil, fmt.Errorf("challenge %q: login knows yubikey-01 (the key in the device) and yubikey-02 (a new key)", c.Challenge)
	}
	var err error
	switch c.Kind {
	case settings.TLS:
		w.ids, err = tlsIdentifiers(c.Identifiers)
	case settings.SSH:
		w.Profile = cmp.Or(w.Profile, defaultSSHProfile)
		w.ids, err = sshIdentifier(c.Identifiers, others)
	default:
		err = fmt.Errorf("kind %q: want tls or ssh", c.Kind)
	}
	return w, err
}

func plainName(s string) bool {
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r))
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, odd) && !strings.ContainsRune("._-", rune(s[0]))
}

func tlsIdentifiers(names []string) ([]acme.Identifier, error) {
	if len(names) == 0 || len(names) > maxNames {
		return nil, fmt.Errorf("%d names: want 1 to %d (identifiers in the settings, or --name); each needs a touch", len(names), maxNames)
	}
	var ids []acme.Identifier
	for _, n := range names {
		ids = append(ids, acme.Identifier{Type: acme.TypeDNS, Value: strings.ToLower(n)})
	}
	return ids, nil
}

// sshIdentifier is the person: named, or what the first name of another
// certificate begins with.
func sshIdentifier(names []string, others []settings.Certificate) ([]acme.Identifier, error) {
	if len(names) > 1 {
		return nil, fmt.Errorf("%d names: an SSH certificate is for one person", len(names))
	}
	var person string
	if len(names) == 1 {
		person = names[0]
	}
	for _, o := range others {
		if person == "" && o.Kind == settings.TLS && len(o.Identifiers) > 0 {
			person, _, _ = strings.Cut(o.Identifiers[0], ".")
		}
	}
	if person == "" {
		return nil, errors.New("for whom? name the person under identifiers, or with --ssh")
	}
	owner, err := protocol.ParseOwner(person)
	return []acme.Identifier{{Type: permanentID, Value: owner}}, err
}

// String is the certificate for people, as in "TLS for alice.people.internal".
func (w *want) String() string {
	var names []string
	for _, id := range w.ids {
		names = append(names, id.Value)
	}
	return strings.ToUpper(string(w.Kind)) + " for " + strings.Join(names, ", ")
}

// owned reports whether the certificate is for the device's own key.
func (w *want) owned() bool { return w.Challenge == protocol.YubiKey01 }

// failed notes why a CA didn't give it.
func (w *want) failed(ca *authority, err error) {
	w.causes = append(w.causes, fmt.Errorf("%s: %w", ca.Name, err))
}

// err says why there is none.
func (w *want) err() error {
	var texts []string
	for _, c := range w.causes {
		texts = append(texts, oneLine(c))
	}
	return fmt.Errorf("no %s: %s", w, strings.Join(texts, "; "))
}

// attempt is a want at one CA.
type attempt struct {
	want   *want
	ca     *authority
	order  acme.Order
	proofs []proof
	key    crypto.Signer // new for this certificate; nil: the device's
	issued               // what came
}

// proof is one signature of the device.
type proof struct {
	authz     acme.Authorization
	challenge acme.Challenge
	message   []byte
	signature []byte
}

// issued is a certificate that was verified.
type issued struct {
	chain     [][]byte // TLS: DER, leaf first
	wire      []byte   // SSH: the certificate's bytes
	line      string   // SSH: as one line
	serial    string
	notBefore time.Time
	notAfter  time.Time
}

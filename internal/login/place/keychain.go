package place

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// keychain is macOS's, changed by its program security(1). Safari, Chrome and
// the system's TLS take certificates from there.
type keychain struct{ o Options }

// thumbprint is how both systems' tools name a certificate.
func thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return fmt.Sprintf("%X", sum)
}

// login is the keychain that is open while its owner is logged in.
func (t keychain) login() string {
	return filepath.Join(t.o.Home, "Library", "Keychains", "login.keychain-db")
}

// Put imports the pair; the key can't be exported again. security reads no
// PKCS#12 with PBES2, and takes the password as an argument only: both hide
// nothing, since the file lies in a folder of its own for that moment.
func (t keychain) Put(ctx context.Context, p Pair) (Placed, error) {
	leaf, err := p.exportable("keychain", "slot, which macOS reads by itself")
	if err != nil {
		return Placed{}, err
	}
	placed := p.placed("keychain", leaf)
	placed.Mark, placed.Where = thumbprint(leaf.Raw), []string{t.login()}
	return placed, t.o.scratch(func(dir string) error {
		password := rand.Text()
		data, err := p.encode(pkcs12.LegacyDES, password)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, "pair.p12")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
		_, err = tool(ctx, nil, "", "security", "import", path, "-k", t.login(), "-f", "pkcs12", "-x", "-P", password)
		return err
	})
}

// Remove deletes certificate and key by the thumbprint.
func (t keychain) Remove(ctx context.Context, p Placed) error {
	if err := p.check("keychain"); err != nil {
		return err
	}
	out, err := tool(ctx, nil, "", "security", "find-certificate", "-a", "-Z", t.login())
	if err != nil && !strings.Contains(out, "could not be found") {
		return err
	}
	if !thumb.MatchString(p.Mark) || !strings.Contains(strings.ToUpper(out), p.Mark) {
		return nil
	}
	_, err = tool(ctx, nil, "", "security", "delete-identity", "-Z", p.Mark, t.login())
	return err
}

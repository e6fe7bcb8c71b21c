package sshhost

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// CA is one certificate authority, independent of the others.
type CA struct {
	Name      string       // a folder is called so
	Directory string       // the ACME directory's URL
	HTTP      *http.Client // trusts the CA's HTTPS roots and nothing else
	EAB       *acme.ExternalAccount
}

// Trust is what a directory says of a CA's SSH keys.
type Trust struct {
	User []ssh.PublicKey // that certify users
	Host []ssh.PublicKey // that certify hosts
	KRL  string          // URL; "": it publishes none
}

// errNoSSH is for a directory that has nothing to do with SSH.
var errNoSSH = errors.New("its directory offers no SSH certificates: is this the right directory, and has the server an SSH issuer?")

// Bounds on what a directory may say.
const maxKeys = 64

// FetchTrust asks a CA's directory. It blocks on the network.
func FetchTrust(ctx context.Context, ca CA) (*Trust, error) {
	_, t, err := fetchMeta(ctx, ca)
	return t, err
}

func fetchMeta(ctx context.Context, ca CA) (*acme.SSH, *Trust, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	c := &acme.Client{DirectoryURL: ca.Directory, HTTPClient: ca.HTTP}
	dir, err := c.Discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	if dir.Meta.SSH == nil {
		return nil, nil, errNoSSH
	}
	t, err := readTrust(dir.Meta.SSH)
	return dir.Meta.SSH, t, err
}

func readTrust(meta *acme.SSH) (*Trust, error) {
	t := &Trust{KRL: meta.KRL}
	if len(meta.UserKeys)+len(meta.HostKeys) > maxKeys {
		return nil, fmt.Errorf("its directory names more than %d SSH CA keys", maxKeys)
	}
	read := func(lines []string) (keys []ssh.PublicKey, err error) {
		for _, line := range lines {
			key, err := sshca.ParseKey(line)
			if err != nil {
				return nil, fmt.Errorf("its directory names an SSH CA key that can't be read: %w", err)
			}
			keys = append(keys, key)
		}
		return keys, nil
	}
	var err1, err2 error
	t.User, err1 = read(meta.UserKeys)
	t.Host, err2 = read(meta.HostKeys)
	return t, errors.Join(err1, err2)
}

// all are the keys of both kinds, any of which may sign the KRL.
func (t *Trust) all() []ssh.PublicKey { return slices.Concat(t.User, t.Host) }

// kept is a CA's folder: what it said last, and the account there.
type kept struct{ dir string }

// name checks that a CA's name can be a folder's.
func (ca CA) name() error {
	const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	if ca.Name == "" || strings.Trim(ca.Name, chars) != "" || strings.HasPrefix(ca.Name, ".") || len(ca.Name) > 64 {
		return fmt.Errorf("%q is no name for a CA: letters, digits, and .-_", ca.Name)
	}
	return nil
}

// trust returns what the CA says now, else what it said last, with the reason
// why that isn't new. Without either it is nil.
func (k kept) trust(ctx context.Context, ca CA) (t *Trust, stale error) {
	file := filepath.Join(k.dir, "trust.json")
	meta, t, err := fetchMeta(ctx, ca)
	if err == nil {
		data, err := json.Marshal(meta)
		if err == nil {
			err = replace(file, data, 0o600)
		}
		return t, err
	}
	data, readErr := os.ReadFile(file)
	meta = new(acme.SSH)
	if readErr != nil || json.Unmarshal(data, meta) != nil {
		return nil, err
	}
	t, readErr = readTrust(meta)
	if readErr != nil {
		return nil, err
	}
	return t, err
}

// krl returns the CA's list: the one that it publishes now if that is good, else
// the last good one, with what is wrong with the new one. Without either it is
// nil.
func (k kept) krl(ctx context.Context, ca CA, t *Trust, others []ssh.PublicKey, now time.Time, maxAge time.Duration) (list *sshca.KRL, stale error) {
	file := filepath.Join(k.dir, "krl")
	old, _ := openKept(file, t)                         // one that is damaged, or signed with a key that is trusted no more, counts for nothing
	if old != nil && sparesOthers(old, others) != nil { // a CA came later
		old = nil
	}
	if t.KRL == "" {
		return old, nil
	}
	data, signature, err := fetchKRL(ctx, ca, t.KRL)
	if err == nil {
		list, err = sshca.OpenKRL(data, signature, t.all())
	}
	if err == nil {
		err = list.Replaces(old, now, maxAge)
	}
	if err == nil {
		err = sparesOthers(list, others)
	}
	if err == nil && (old == nil || list.Version != old.Version) {
		// The signature last: only with it the list counts.
		if err = replace(file, data, 0o600); err == nil {
			err = replace(file+".sig", signature, 0o600)
		}
	}
	if err != nil {
		return old, err
	}
	return list, nil
}

// openKept reads a list that was kept, which nobody else could have written, and
// checks it all the same: half of it may be missing.
func openKept(file string, t *Trust) (*sshca.KRL, error) {
	data, err1 := os.ReadFile(file)
	signature, err2 := os.ReadFile(file + ".sig")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return sshca.OpenKRL(data, signature, t.all())
}

// sparesOthers refuses a list that revokes the keys of another CA or what these
// signed: one that fell into bad hands would lock everybody out, and having several
// CAs is for that not to happen.
func sparesOthers(list *sshca.KRL, others []ssh.PublicKey) error {
	for _, key := range others {
		if list.Concerns(key) {
			return fmt.Errorf("KRL %d revokes %s, a key of another CA that is trusted here, or certificates of it: take that CA out of the settings if it is meant so", list.Version, ssh.FingerprintSHA256(key))
		}
	}
	return nil
}

const (
	fetchTime    = time.Minute
	maxSignature = 16 << 10
)

// fetchKRL gets the list and its signature. They may be of two versions, if the CA
// replaces them in between: then the signature doesn't verify, and the next try
// finds a pair.
func fetchKRL(ctx context.Context, ca CA, url string) (krl, signature []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if krl, err = get(ctx, ca.HTTP, url, sshca.MaxKRL); err != nil {
		return nil, nil, err
	}
	signature, err = get(ctx, ca.HTTP, url+".sig", maxSignature)
	return krl, signature, err
}

func get(ctx context.Context, client *http.Client, url string, most int64) ([]byte, error) {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return nil, fmt.Errorf("the KRL's URL %.80q is neither https nor http", url)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	direct := http.Client{}
	if client != nil {
		direct = *client
	}
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: the server answered %s", url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d bytes", url, most)
	}
	return data, err
}

// accountKey is this host's at the CA, made at first need: an EAB key may open
// one account only.
func (k kept) accountKey() (*ecdsa.PrivateKey, error) {
	file := filepath.Join(k.dir, "account.pem")
	data, err := os.ReadFile(file)
	if err == nil {
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("%s holds no key: remove it to open a new account", file)
		}
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: remove it to open a new account", file, err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, replace(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

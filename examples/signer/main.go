// Signer is a server and client whose keys live in an HSM and never leave it:
// a PKCS#11 token. Any crypto.Signer does; a YubiKey's is one, too.
//
//	PKCS11_MODULE=/usr/lib/vendor.so PKCS11_TOKEN=label PKCS11_PIN=… go run ./examples/signer
//
// Without these it makes a token of SoftHSM (Debian: apt install softhsm2) for
// itself, in a temporary folder. PKCS#11 needs cgo.
package main

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ThalesGroup/crypto11"

	"github.com/chancery-pki/chancery/examples/demo"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

func main() { demo.Main(run) }

func run(ctx context.Context, listen string) error {
	config, remove, err := token(ctx)
	if err != nil {
		return err
	}
	defer remove()
	hsm, err := crypto11.Configure(config)
	if err != nil {
		return fmt.Errorf("the token: %w", err)
	}
	defer hsm.Close()

	id, err := mtls.New(ctx, mtls.Config{
		Names: []string{"localhost"},
		// A new key for each new certificate. A program that is to keep one
		// key returns the same signer each time.
		NewKey: func() (crypto.Signer, error) { return newKey(hsm) },
		Proof:  mtls.Proof{ListenALPN: listen},
	})
	if err != nil {
		return err
	}
	defer id.Close()
	demo.Show(id)

	l, err := id.Listen("tcp", listen, acl.Allow("localhost"))
	if err != nil {
		return err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	conn, err := id.Dial(ctx, "tcp", "localhost:"+port)
	if err != nil {
		return err
	}
	defer conn.Close()
	accepted, err := l.Accept() // both handshakes were signed in the token
	if err != nil {
		return err
	}
	defer accepted.Close()
	server, _ := mtls.PeerOf(conn)
	client, _ := mtls.PeerOf(accepted)
	log.Printf("%s and %s have met", client.Name(), server.Name())
	return nil
}

// newKey makes a P-256 key in the token.
func newKey(hsm *crypto11.Context) (crypto.Signer, error) {
	key, err := hsm.GenerateECDSAKeyPair([]byte(rand.Text()), elliptic.P256())
	if err == nil {
		log.Print("a new key in the token")
	}
	return key, err
}

// token says which token to use, or makes one.
func token(ctx context.Context) (config *crypto11.Config, remove func(), err error) {
	config = &crypto11.Config{Path: os.Getenv("PKCS11_MODULE"), TokenLabel: os.Getenv("PKCS11_TOKEN"), Pin: os.Getenv("PKCS11_PIN")}
	if config.Path != "" {
		return config, func() {}, nil
	}
	*config = crypto11.Config{Path: "/usr/lib/softhsm/libsofthsm2.so", TokenLabel: "demo", Pin: "1234"}
	dir, err := os.MkdirTemp("", "softhsm-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	settings := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(settings, []byte("directories.tokendir = "+dir+"\nlog.level = ERROR\n"), 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", settings); err != nil {
		return nil, nil, err
	}
	made, err := exec.CommandContext(ctx, "softhsm2-util", "--init-token", "--free", "--label", config.TokenLabel, "--pin", config.Pin, "--so-pin", config.Pin).CombinedOutput()
	if err != nil {
		return nil, nil, fmt.Errorf("softhsm2-util (Debian: apt install softhsm2): %w\n%s", err, made)
	}
	return config, remove, nil
}

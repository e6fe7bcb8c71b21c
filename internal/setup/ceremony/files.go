package ceremony

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds a certificate, a request, a chain or a root's CRL: RSA-16384
// takes 6 KB, and a root withdraws a handful.
const maxFile = 256 << 10

// free says early that a file is in the way: before a key is made or asked.
func free(out string) error {
	switch _, err := os.Lstat(out); {
	case out == "":
		return errors.New("no file to write is named")
	case err == nil:
		return fmt.Errorf("%s is there already; nothing is overwritten", out)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxFile>>10)
	}
	return data, err
}

// readPEM returns the first block of a kind in a file.
func readPEM(path, kind string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("%s has no PEM %s", path, strings.ToLower(kind))
		}
		if block.Type == kind || kind == "CERTIFICATE REQUEST" && block.Type == "NEW CERTIFICATE REQUEST" {
			return block.Bytes, nil
		}
	}
}

// ReadCertificate returns the first certificate of a PEM file.
func ReadCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// ReplaceFile writes a file under another name first, so that it is there
// whole or as it was, also after a power cut.
func ReplaceFile(path string, data []byte) (err error) {
	// A name of its own: one that a power cut left is in nobody's way.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncFolder(filepath.Dir(path))
}

// SyncFolder sees the names in a folder to the disk.
func SyncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// EncodeCertificate returns the certificate in PEM.
func EncodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// WriteNew writes a file that must not be there yet, and sees it to the disk.
func WriteNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

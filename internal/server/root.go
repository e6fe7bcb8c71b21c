package server

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/config"
)

// maxKeyFile bounds what is looked at as a key: RSA-4096 in PEM is 3 KiB.
const maxKeyFile = 64 << 10

// refuseReadableRoot refuses to start where the key of a root can be read in
// clear (DESIGN section 7): a root's key belongs offline, or at least under a
// password. It looks beside the configuration, one folder down, and beside
// the chain files.
func refuseReadableRoot(c *config.Config) error {
	roots, folders := map[string]bool{}, map[string]bool{filepath.Dir(c.File()): true}
	for _, ic := range c.Issuers {
		for _, file := range append([]string{ic.Chain}, ic.AlternateChains...) {
			chain, err := readCertificates(c.Path(file))
			if err != nil {
				continue // wire says so, better
			}
			folders[filepath.Dir(c.Path(file))] = true
			for _, cert := range chain {
				if string(cert.RawIssuer) == string(cert.RawSubject) {
					roots[string(cert.RawSubjectPublicKeyInfo)] = true
				}
			}
		}
	}
	files := map[string]bool{}
	for folder := range folders {
		for _, pattern := range []string{"*", "*/*"} {
			found, _ := filepath.Glob(filepath.Join(folder, pattern)) // the pattern is good
			for _, file := range found {
				files[file] = true
			}
		}
	}
	var faults []error
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if spki, ok := clearKey(file); ok && roots[spki] {
			faults = append(faults, fmt.Errorf("%s is the root's private key in clear: take it offline, or encrypt it (openssl pkcs8 -topk8 -v2 aes-256-cbc)", file))
		}
	}
	return errors.Join(faults...)
}

// clearKey returns the SubjectPublicKeyInfo of an unencrypted private key in
// a PEM file.
func clearKey(file string) (spki string, ok bool) {
	switch filepath.Ext(file) {
	case ".pem", ".key", ".p8":
	default:
		return "", false
	}
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return "", false
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", false
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return "", false
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if der, ok := publicOf(block.Bytes); ok {
			return der, true
		}
	}
}

func publicOf(der []byte) (string, bool) {
	var key any
	var err error
	if key, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		if key, err = x509.ParseECPrivateKey(der); err != nil {
			if key, err = x509.ParsePKCS1PrivateKey(der); err != nil {
				return "", false
			}
		}
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return "", false
	}
	spki, err := x509.MarshalPKIXPublicKey(s.Public())
	return string(spki), err == nil
}

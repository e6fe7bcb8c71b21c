package place

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// files is the target for programs that want files.
type files struct{ o Options }

// The files of a TLS certificate. Programs may take keys and certificates at
// any time, also between two renames, so there is no telling which goes first;
// they try again.
const (
	certFile = "cert.pem" // leaf and intermediates
	keyFile  = "key.pem"  // PKCS#8
	rootFile = "root.pem"
)

// Put writes cert.pem, key.pem where the key can be had, and root.pem.
func (t files) Put(_ context.Context, p Pair) (Placed, error) {
	leaf, err := p.leaf()
	if err != nil {
		return Placed{}, err
	}
	write := []file{{certFile, encode("CERTIFICATE", p.Chain...)}}
	var remove []string
	if p.Key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(p.Key)
		if err != nil {
			return Placed{}, fmt.Errorf("%s: %w", p.Name, err)
		}
		write = append(write, file{keyFile, encode("PRIVATE KEY", der)})
	} else {
		remove = append(remove, keyFile)
	}
	if len(p.Roots) > 0 {
		write = append(write, file{rootFile, encode("CERTIFICATE", p.Roots...)})
	} else {
		remove = append(remove, rootFile)
	}
	return t.o.put(p.placed("files", leaf), write, remove)
}

// put writes a set of files into the folder of its name.
func (o Options) put(placed Placed, write []file, remove []string) (Placed, error) {
	dir, err := o.folder(placed.Name)
	if err != nil {
		return Placed{}, err
	}
	if err := replace(dir, write, remove...); err != nil {
		return Placed{}, fmt.Errorf("%s: %w", dir, err)
	}
	for _, f := range write {
		placed.Where = append(placed.Where, filepath.Join(dir, f.name))
	}
	return placed, nil
}

// Remove unlinks the files, unless they are a later certificate's. The
// certificate goes last, since it says whose the key is.
func (t files) Remove(_ context.Context, p Placed) error {
	if err := p.check("files"); err != nil {
		return err
	}
	if filepath.Base(first(p.Where)) == sshCertFile {
		return removeSSH(p)
	}
	dir, err := within(p, certFile, keyFile, rootFile)
	if err != nil {
		return err
	}
	text, err := read(filepath.Join(dir, certFile))
	if err != nil {
		return err
	}
	if text != nil { // else a removal was cut off
		block, _ := pem.Decode(text)
		if block == nil || mark(block.Bytes) != p.Mark {
			return nil
		}
	}
	return empty(dir, keyFile, rootFile, certFile)
}

func first(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// SSHPair is an SSH certificate to write into files, for programs that know no
// ssh-agent.
type SSHPair struct {
	Name        string
	Certificate []byte        // a line as in an id_…-cert.pub file
	Key         crypto.Signer // nil: the key is in the device
}

// The files of an SSH certificate, as ssh's -i finds them: the certificate by
// the key's name.
const (
	sshKeyFile    = "id"
	sshPublicFile = "id.pub"
	sshCertFile   = "id-cert.pub"
)

// PutSSH writes id-cert.pub, id.pub and, where the key can be had, id; the
// target "files" removes them.
func PutSSH(o Options, p SSHPair) (Placed, error) {
	if err := CheckName(p.Name); err != nil {
		return Placed{}, err
	}
	if err := o.fill(); err != nil {
		return Placed{}, err
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(p.Certificate)
	if err != nil {
		return Placed{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	c, ok := parsed.(*ssh.Certificate)
	if !ok {
		return Placed{}, fmt.Errorf("%s: a %s isn't a certificate", p.Name, parsed.Type())
	}
	write := []file{{sshCertFile, ssh.MarshalAuthorizedKey(c)}, {sshPublicFile, ssh.MarshalAuthorizedKey(c.Key)}}
	var remove []string
	if p.Key != nil {
		own, err := ssh.NewPublicKey(p.Key.Public())
		if err != nil {
			return Placed{}, fmt.Errorf("%s: %w", p.Name, err)
		}
		if string(own.Marshal()) != string(c.Key.Marshal()) {
			return Placed{}, fmt.Errorf("%s: the key isn't the certificate's", p.Name)
		}
		block, err := ssh.MarshalPrivateKey(p.Key, "chancery "+p.Name)
		if err != nil {
			return Placed{}, fmt.Errorf("%s: %w", p.Name, err)
		}
		write = append(write, file{sshKeyFile, pem.EncodeToMemory(block)})
	} else {
		remove = append(remove, sshKeyFile)
	}
	placed := Placed{Target: "files", Name: p.Name, Serial: fmt.Sprintf("%016x", c.Serial), Mark: mark(c.Marshal())}
	return o.put(placed, write, remove)
}

func removeSSH(p Placed) error {
	dir, err := within(p, sshCertFile, sshPublicFile, sshKeyFile)
	if err != nil {
		return err
	}
	text, err := read(filepath.Join(dir, sshCertFile))
	if err != nil {
		return err
	}
	if text != nil {
		c, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil || mark(c.Marshal()) != p.Mark {
			return nil
		}
	}
	return empty(dir, sshKeyFile, sshPublicFile, sshCertFile)
}

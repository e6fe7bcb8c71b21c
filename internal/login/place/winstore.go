package place

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"regexp"

	"software.sslmate.com/src/go-pkcs12"
)

// winstore is the user's store of Windows, changed by PowerShell's PKI module.
// Edge, Chrome and the system's TLS take certificates from there.
type winstore struct{ o Options }

// The scripts never change; what they work on comes in by the environment, the
// password by standard input, so nothing has to be quoted.
const (
	winImport = `$ErrorActionPreference = 'Stop'
$password = ConvertTo-SecureString -AsPlainText -Force -String ([Console]::In.ReadLine())
Import-PfxCertificate -FilePath $env:CHANCERY_PFX -CertStoreLocation Cert:\CurrentUser\My -Password $password | Out-Null`
	winRemove = `$ErrorActionPreference = 'Stop'
$path = 'Cert:\CurrentUser\My\' + $env:CHANCERY_THUMBPRINT
if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -DeleteKey }`
)

func powershell(ctx context.Context, env, in, script string) error {
	_, err := tool(ctx, []string{env}, in, "powershell.exe", "-NoProfile", "-NonInteractive", "-Command", script)
	return err
}

// Put imports the pair; the key can't be exported again.
func (t winstore) Put(ctx context.Context, p Pair) (Placed, error) {
	leaf, err := p.exportable("keychain", "slot, which Windows reads by itself")
	if err != nil {
		return Placed{}, err
	}
	placed := p.placed("keychain", leaf)
	placed.Mark, placed.Where = thumbprint(leaf.Raw), []string{`Cert:\CurrentUser\My`}
	return placed, t.o.scratch(func(dir string) error {
		password := rand.Text()
		data, err := p.encode(pkcs12.Modern2023, password) // from Windows 10 1709 on
		if err != nil {
			return err
		}
		path := filepath.Join(dir, "pair.pfx")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
		return powershell(ctx, "CHANCERY_PFX="+path, password+"\n", winImport)
	})
}

var thumb = regexp.MustCompile(`^[0-9A-F]{40}$`)

// Remove deletes certificate and key by the thumbprint.
func (t winstore) Remove(ctx context.Context, p Placed) error {
	if err := p.check("keychain"); err != nil {
		return err
	}
	if !thumb.MatchString(p.Mark) {
		return nil
	}
	return powershell(ctx, "CHANCERY_THUMBPRINT="+p.Mark, "", winRemove)
}

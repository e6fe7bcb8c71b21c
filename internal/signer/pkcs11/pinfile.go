package pkcs11

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
)

// maxPIN bounds a PIN: CK_TOKEN_INFO of the tokens known allows up to 255.
const maxPIN = 1 << 10

// pinFile reads the PIN that a URI's pin-source names. Only its owner may be
// able to read the file; one trailing line end is not part of the PIN.
func pinFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		// A look first, since opening a named pipe would block.
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return nil, fmt.Errorf("%s can be read by others than its owner (mode %04o); run: chmod 0600 %s", path, mode, path)
		}
		b, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
		if err != nil {
			return nil, err
		}
		b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		return b, nil
	}
}

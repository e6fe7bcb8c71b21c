package certkey

import (
	"context"
	"errors"

	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Check refuses keys that are used for something else, or known to others.
// directories are all there are. Its errors are badCSR problems, or the
// database's.
func Check(ctx context.Context, db *store.DB, directories []string, csr *issuer.CSR) error {
	if err := noAccountKey(ctx, db, directories, csr); err != nil {
		return err
	}
	blocked, err := db.KeyBlocked(ctx, csr.KeyHash)
	if err == nil && blocked {
		err = protocol.NewProblem(protocol.BadCSR, "the certificate's key was reported as compromised; make a new key")
	}
	return err
}

// noAccountKey refuses an account's key, of whichever directory.
func noAccountKey(ctx context.Context, db *store.DB, directories []string, csr *issuer.CSR) error {
	key, err := jws.KeyFromPublic(csr.PublicKey)
	if err != nil {
		return nil // no kind that an account could have
	}
	for _, directory := range directories {
		_, err := db.AccountByKey(ctx, directory, key.Thumbprint)
		if err == nil {
			return protocol.NewProblem(protocol.BadCSR,
				"the certificate's key is an account key; make a key of its own for the certificate (RFC 8555 section 11.1)")
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

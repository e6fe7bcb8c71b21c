package operator

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Role is what a caller may do.
type Role string

// The roles. An auditor sees everything but secrets; an administrator acts too.
const (
	Auditor       Role = "auditor"
	Administrator Role = "administrator"
)

// Caller is a person or program that runs the CA, authenticated by the admin
// API: "uid:0" over the unix socket.
type Caller struct {
	Name string
	Role Role
}

// Console is where operators act: on the authority, and on the database that
// it decides about. Its methods are safe for concurrent use, and their errors
// are as the authority's.
type Console struct {
	authority *ca.Authority
	db        *store.DB
	clock     func() time.Time
}

// New makes a console of the authority and its database. clock nil: time.Now.
func New(authority *ca.Authority, db *store.DB, clock func() time.Time) *Console {
	if clock == nil {
		clock = time.Now
	}
	return &Console{authority, db, clock}
}

// operate authorises and audits one call before it does anything: what can't
// be recorded doesn't happen. Reads are recorded too. The work of a change
// runs in the transaction of its record.
func (o *Console) operate(ctx context.Context, who Caller, action, object string, change func(*store.Tx, *audit.Entry) error) error {
	e := audit.Entry{Action: action, Actor: "operator:" + who.Name, Object: object, Detail: map[string]any{}}
	var refused error
	if allowed := who.Role == Administrator || who.Role == Auditor && change == nil; !allowed {
		p := protocol.NewProblem(protocol.Unauthorized, "role %q may not do %s", who.Role, action)
		e.Denied, refused = p.Error(), p
	}
	err := o.db.Update(ctx, func(tx *store.Tx) error {
		if change != nil && refused == nil {
			if err := change(tx, &e); err != nil {
				return err
			}
		}
		return tx.Audit(e)
	})
	return cmp.Or(err, refused)
}

// noSuch is the answer for what does not exist.
func noSuch(noun string) *protocol.Problem {
	return protocol.NewProblem(protocol.Malformed, "there is no such %s", noun).WithStatus(404)
}

// AuditEntries reads the audit log.
func (o *Console) AuditEntries(ctx context.Context, who Caller, f store.AuditFilter) ([]store.Record, error) {
	if err := o.operate(ctx, who, "audit.list", "", nil); err != nil {
		return nil, err
	}
	return o.db.AuditEntries(ctx, f)
}

// VerifyAudit walks the whole chain of the audit log and returns how many
// entries it has; an error names the first that doesn't fit.
func (o *Console) VerifyAudit(ctx context.Context, who Caller) (int64, error) {
	if err := o.operate(ctx, who, "audit.verify", "", nil); err != nil {
		return 0, err
	}
	return o.db.VerifyAudit(ctx)
}

// Status is what an operator sees at a glance.
type Status struct {
	Replica     string
	Engine      string
	Directories []string
	Validations int // running in this process
	Issuances   int // likewise
	Store       store.Stats
}

// Status describes this process.
func (o *Console) Status(ctx context.Context, who Caller) (Status, error) {
	if err := o.operate(ctx, who, "status.show", "", nil); err != nil {
		return Status{}, err
	}
	validations, issuances := o.authority.Running()
	return Status{
		Replica: o.authority.Replica(), Engine: o.db.Engine(), Directories: o.authority.DirectoryNames(),
		Validations: validations, Issuances: issuances, Store: o.db.Stats(),
	}, nil
}

// Backup writes everything in the database, as of one moment, while others
// go on writing.
func (o *Console) Backup(ctx context.Context, who Caller, w io.Writer) error {
	if who.Role != Administrator { // it holds EAB keys
		return o.operate(ctx, who, "backup.write", "", func(*store.Tx, *audit.Entry) error { return nil })
	}
	if err := o.operate(ctx, who, "backup.write", "", nil); err != nil {
		return err
	}
	return o.db.Dump(ctx, w)
}

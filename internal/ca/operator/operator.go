package operator

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Caller is a person or program that runs the CA, authenticated by the admin
// API: "uid:0" over the unix socket, "people/operators/alice.people.internal"
// (see [Gate]) over TLS.
type Caller struct {
	Name        string
	Role        Role
	Certificate cert.Serial // that was shown; "" over the unix socket
	Peer        string      // the caller's address; "" likewise
}

// mark says in an entry by what certificate and from where the caller came.
func (c Caller) mark(e *audit.Entry) {
	e.Peer = c.Peer
	if c.Certificate == "" {
		return
	}
	if e.Detail == nil {
		e.Detail = map[string]any{}
	}
	e.Detail["operator_certificate"] = string(c.Certificate)
}

// Console is where operators act: on the authority, and on the database that
// it decides about. Its methods are safe for concurrent use, and their errors
// are as the authority's.
type Console struct {
	// Enrolment says which devices are taken at the time; nil: none.
	Enrolment func() Enrolment
	// Sighted is told that a watched key was seen in use, once that is
	// recorded; it must not block. nil: nobody is.
	Sighted func(protocol.WatchedKey, Sighting)

	authority *ca.Authority
	db        *store.DB
	clock     func() time.Time
}

// New makes a console of the authority and its database. clock nil: time.Now.
func New(authority *ca.Authority, db *store.DB, clock func() time.Time) *Console {
	if clock == nil {
		clock = time.Now
	}
	return &Console{authority: authority, db: db, clock: clock}
}

// maxObject bounds what a caller says that it is about.
const maxObject = 200

// operate authorises and audits one call before it does anything: what can't
// be recorded doesn't happen. Reads are recorded too. The work of a change
// runs in the transaction of its record; what it refuses is recorded by itself.
func (o *Console) operate(ctx context.Context, who Caller, action, object string, change func(*store.Tx, *audit.Entry) error) error {
	e := audit.Entry{Action: action, Actor: "operator:" + who.Name, Object: cut(object, maxObject), Detail: map[string]any{}}
	switch {
	case !who.Role.may(action):
		return o.deny(ctx, who, e, protocol.NewProblem(protocol.Unauthorized, "role %q may not do %s", who.Role, action))
	case e.Object != object: // what PostgreSQL wouldn't take must be recorded too
		return o.deny(ctx, who, e, protocol.NewProblem(protocol.Malformed, "%q is not what anything here is called", e.Object))
	}
	err := o.db.Update(ctx, func(tx *store.Tx) error {
		if change != nil {
			if err := change(tx, &e); err != nil {
				return err
			}
		}
		who.mark(&e)
		return tx.Audit(e)
	})
	if p, ok := errors.AsType[*protocol.Problem](err); ok {
		return o.deny(ctx, who, e, p)
	}
	return err
}

// deny records a refusal and returns the problem. Failing to record it is the
// server's trouble, and wins.
func (o *Console) deny(ctx context.Context, who Caller, e audit.Entry, p *protocol.Problem) error {
	e.Denied = p.Error()
	who.mark(&e)
	if err := o.db.Update(ctx, func(tx *store.Tx) error { return tx.Audit(e) }); err != nil {
		return err
	}
	return p
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
	if err := o.operate(ctx, who, "backup.write", "", nil); err != nil {
		return err
	}
	return o.db.Dump(ctx, w)
}

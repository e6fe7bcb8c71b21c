package ca

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/ca/known"
	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/ca/sweep"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// Validator looks whether a challenge is met; see proof for what those of
// private types may do besides.
type Validator = proof.Validator

// CAAChecker asks whether the owner of a name lets this CA issue for it to
// this account by this method (RFC 8659, RFC 8657).
type CAAChecker interface {
	Check(ctx context.Context, id protocol.Identifier, wildcard bool, accountURL string, method protocol.ChallengeType) error
}

// Issuer signs for one name in the configuration: a local one, or later a CA
// that others run.
type Issuer interface {
	// Prepare builds and checks the to-be-signed certificate; nothing is signed.
	Prepare(ctx context.Context, r issuer.Request) (*issuer.Prepared, error)
	// Resume makes a token of the bytes of an earlier Prepare, after a crash.
	Resume(tbs []byte, turn signer.Request) (*issuer.Prepared, error)
	// Issue signs once, waiting for the key's queue until ctx ends. The
	// context's error means that the key never saw the certificate, and
	// signer.ErrAway that another key had better be asked.
	Issue(ctx context.Context, p *issuer.Prepared) ([]byte, error)
	// Chain returns the certificates above a leaf signed by the issuing
	// certificate with that key ID, without the root: alternate 0 is the
	// default, and count says how many there are.
	Chain(keyID string, alternate int) (chain [][]byte, count int, err error)
}

// Limits are a directory's rate limits; a zero Limit means none.
type Limits struct {
	AccountsPerAddress  store.Limit
	OrdersPerAccount    store.Limit
	OrdersPerClient     store.Limit // one EAB key; else one address
	CertificatesPerName store.Limit
	FailuresPerAccount  store.Limit // failed validations
	AccountsPerSubject  store.Limit // that prove by one pod or device
}

// Directory is one ACME endpoint as the authority runs it.
type Directory struct {
	Policy     policy.Directory
	Validators proof.Validators
	CAA        CAAChecker // nil: CAA records are not looked at
	Limits     Limits
	Lifetimes  Lifetimes
	// AccountURL makes an account's URL from its ID, which some proofs
	// are bound to; the edge knows how.
	AccountURL func(protocol.AccountID) string
	// ChallengeURL makes a challenge's URL, which a device's answer is bound
	// to.
	ChallengeURL func(protocol.AuthorizationID, protocol.ChallengeType) string
}

func (d *Directory) challengeURL(id protocol.AuthorizationID, t protocol.ChallengeType) string {
	if d.ChallengeURL == nil { // no validator here asks
		return ""
	}
	return d.ChallengeURL(id, t)
}

// Lifetimes say how long things are kept waiting or good; zero values stand
// for the defaults of [Lifetimes.withDefaults].
type Lifetimes struct {
	Order         time.Duration // to be finalized in; 24 hours
	Pending       time.Duration // an authorization to be proven in; 24 hours
	Authorization time.Duration // a proof stays good for other orders; 1 hour
	IdleAccount   time.Duration // an account without certificates is kept; 7 days
}

func (l Lifetimes) withDefaults() Lifetimes {
	const day = 24 * time.Hour
	l.Order = cmp.Or(l.Order, day)
	l.Pending = cmp.Or(l.Pending, day)
	l.Authorization = cmp.Or(l.Authorization, time.Hour)
	l.IdleAccount = cmp.Or(l.IdleAccount, 7*day)
	return l
}

// Options configure an Authority.
type Options struct {
	DB          *store.DB
	Directories map[string]*Directory // by name
	Issuers     map[string]Issuer     // by name
	Held        []string              // the IDs of the issuing keys that this process signs with
	Replica     string                // names this process in leases; random if ""
	Keep        Keep
	Logger      *slog.Logger     // nil: silent
	Clock       func() time.Time // nil: time.Now
	Hold        time.Duration    // how long a POST may wait for a job; one second
	RetryDelays []time.Duration  // between validation tries (RFC 8555 section 8.2); 1 s, 3 s
	Observe     Observer         // nil: none
}

// Keep says how long what has ended stays in the database.
type Keep = sweep.Keep

// Observer is told what happens, for metrics. Methods must not block.
type Observer interface {
	Validated(directory string, t protocol.ChallengeType, took time.Duration, err error)
	Issued(directory, profile string, took time.Duration, err error)
	Swept(what string, rows int)
}

// Authority decides. Its methods are safe for concurrent use.
type Authority struct {
	db          *store.DB
	rules       atomic.Pointer[rules] // replaced as a whole by Reload
	replica     string
	sweeper     *sweep.Sweeper
	log         *slog.Logger
	clock       func() time.Time
	hold        time.Duration
	observe     Observer
	planAge     time.Duration   // how long a plan is fresh, in tests; 0: see fresh
	known       *known.Accounts // where this process alone writes
	validations *validations    // running validation jobs
	issuances   *job.Set[cert.Serial]
	planned     chan struct{} // has a value when plans of ours were left by others
	issued      job.News      // of orders that others sign
	live        atomic.Pointer[map[string]store.Live]
}

// New makes an authority. It starts nothing: [Authority.Run] does the jobs.
func New(o Options) *Authority {
	a := &Authority{
		db: o.DB, replica: o.Replica, log: o.Logger,
		clock: o.Clock, hold: o.Hold, observe: o.Observe, planned: make(chan struct{}, 1),
		known: new(known.Accounts), validations: newValidations(o.RetryDelays), issuances: job.NewSet[cert.Serial](maxIssuances, maxOfClient),
	}
	if a.replica == "" {
		a.replica = rand.Text()
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.clock == nil {
		a.clock = time.Now
	}
	if a.hold <= 0 {
		a.hold = time.Second
	}
	if a.observe == nil {
		a.observe = silent{}
	}
	a.sweeper = &sweep.Sweeper{
		DB: a.db, Replica: a.replica, Keep: o.Keep.WithDefaults(), Clock: a.clock,
		Swept: func(what string, rows int) {
			a.known.ForgetAll()
			a.observe.Swept(what, rows)
			a.log.Info("swept", "what", what, "rows", rows)
		},
	}
	a.Reload(o.Directories, o.Issuers, o.Held)
	if a.db.Engine() == "sqlite" { // which belongs to this process
		a.known = known.New()
	}
	return a
}

// rules are what the configuration says; requests under way keep the ones
// they began with.
type rules struct {
	directories map[string]*Directory
	issuers     map[string]Issuer
	held        []string // IDs of the issuing keys that sign here
}

// Reload replaces the directories, the issuers and the list of the keys that
// sign here, all at once. They must not change afterwards.
func (a *Authority) Reload(directories map[string]*Directory, issuers map[string]Issuer, held []string) {
	r := &rules{make(map[string]*Directory, len(directories)), issuers, held}
	for name, d := range directories {
		whole := *d
		whole.Lifetimes = d.Lifetimes.withDefaults()
		r.directories[name] = &whole
	}
	a.rules.Store(r)
}

type silent struct{}

func (silent) Validated(string, protocol.ChallengeType, time.Duration, error) {}
func (silent) Issued(string, string, time.Duration, error)                    {}
func (silent) Swept(string, int)                                              {}

// Requester is an ACME client that has been authenticated: its account, which
// is valid, in one directory, and the address it came from.
type Requester struct {
	Directory string
	Account   protocol.Account
	Peer      netip.AddrPort
}

func (r Requester) actor() string { return "account:" + string(r.Account.ID) }

// client names who is asking where fairness counts: the EAB key that the
// account is bound to, else the network it comes from. Accounts can be made at
// will.
func (r Requester) client() string {
	if r.Account.EABKey != "" {
		return "eab:" + string(r.Account.EABKey)
	}
	return protocol.Network(r.Peer)
}

func (r Requester) peer() string { return protocol.Address(r.Peer) }

// issuer finds an issuer by name. A certificate or a profile named it, so not
// finding it is the configuration's fault.
func (a *Authority) issuer(name string) (Issuer, error) {
	if i, ok := a.rules.Load().issuers[name]; ok {
		return i, nil
	}
	return nil, fmt.Errorf("the configuration has no issuer %q any more", name)
}

// errNoSuch is the one answer for what does not exist and for what is
// somebody else's, so that a stranger can't tell them apart.
func errNoSuch(noun string) *protocol.Problem {
	return protocol.NewProblem(protocol.Malformed, "there is no such %s", noun).WithStatus(404)
}

// directory finds a directory by name.
func (a *Authority) directory(name string) (*Directory, error) {
	if d, ok := a.rules.Load().directories[name]; ok {
		return d, nil
	}
	return nil, errNoSuch("directory")
}

// Directory returns a directory by name, for the edge to describe it.
func (a *Authority) Directory(name string) (*Directory, bool) {
	d, ok := a.rules.Load().directories[name]
	return d, ok
}

// DirectoryNames returns the names of all directories, sorted.
func (a *Authority) DirectoryNames() []string {
	return slices.Sorted(maps.Keys(a.rules.Load().directories))
}

// Replica names this process in leases.
func (a *Authority) Replica() string { return a.replica }

// Running reports how many validations and issuances run in this process.
func (a *Authority) Running() (validations, issuances int) {
	return a.validations.Count(), a.issuances.Count()
}

// ForgetAccount is to be called after an account was changed in the database
// by others than the authority itself, and before anybody is told.
func (a *Authority) ForgetAccount(id protocol.AccountID) { a.known.Forget(id) }

// entry begins an audit entry for something an account did.
func (a *Authority) entry(who Requester, action, object string) audit.Entry {
	return audit.Entry{
		At: a.clock(), Action: action, Actor: who.actor(), Peer: who.peer(),
		Directory: who.Directory, Object: object,
	}
}

// deny records a refusal that nothing else in the database shows, and returns
// the problem. Failing to record is the server's trouble and wins.
func (a *Authority) deny(ctx context.Context, e audit.Entry, p *protocol.Problem) error {
	e.Denied = p.Error()
	if err := a.db.Update(ctx, func(tx *store.Tx) error { return tx.Audit(e) }); err != nil {
		return err
	}
	return p
}

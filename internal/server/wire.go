package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/challenge"
	"github.com/chancery-pki/chancery/internal/challenge/kubernetes"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/engine/postgres"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// parts are what one reading of the configuration makes; a reload makes them
// anew and swaps them in whole.
type parts struct {
	directories map[string]*ca.Directory
	issuers     map[string]*issuer.Local
	meta        map[string]acmeserver.Meta
	authorities []responder.Authority  // all issuing certificates, for OCSP and CRLs
	names       []string               // the issuers of these, in the configuration
	held        []string               // key IDs of those that sign certificates here
	lists       []*x509.RevocationList // CRLs made elsewhere
	above       []*x509.Certificate    // the CAs above the issuing ones
	ssh         sshParts
	enrolment   operator.Enrolment // which devices operators may enroll
	closers     []func()
}

// close lets go of what validators hold. Those that are asked meanwhile answer
// all the same.
func (p *parts) close() {
	for _, do := range p.closers {
		do()
	}
}

// wire opens keys and makes issuers, validators and directories. It reads
// files, opens no listener and writes nothing. keys are those of the reading
// before; nil: none is opened, as if all were on other replicas. enrolled is
// asked for devices once the server runs.
func wire(ctx context.Context, c *config.Config, keys *keyring, enrolled device.Registry, log *slog.Logger) (*parts, error) {
	p := &parts{directories: map[string]*ca.Directory{}, issuers: map[string]*issuer.Local{}, meta: map[string]acmeserver.Meta{}, held: []string{}}
	var faults []error
	for name, ic := range c.Issuers {
		local, err := p.issuer(ctx, c, name, ic, keys, log)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		p.issuers[name] = local
	}
	if err := p.sshIssuers(ctx, c, keys); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if err := p.foreignLists(c); err != nil {
		return nil, err
	}
	if keys == nil { // nothing is issued here either
		return p, nil
	}
	own := ownAddresses(c)
	devices, err := deviceProofs(c, enrolled)
	if err != nil {
		return nil, err
	}
	p.enrolment = enrolment(c, devices.Issuers)
	for name := range c.Directories {
		if err := p.directory(c, name, own, devices, log); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		p.close()
		return nil, errors.Join(faults...)
	}
	return p, nil
}

func (p *parts) issuer(ctx context.Context, c *config.Config, name string, ic config.Issuer, keys *keyring, log *slog.Logger) (*issuer.Local, error) {
	path := "issuers." + name
	above, err := readCertificates(c.Path(ic.Chain))
	if err != nil {
		return nil, c.At(path+".chain", err)
	}
	p.above = append(p.above, above...)
	ours := issuer.Config{Name: name, Log: log}
	for i, sc := range ic.Signers {
		o := opening{c: c, keys: keys, issuer: ic, signer: sc, path: fmt.Sprintf("%s.signers[%d]", path, i)}
		a, r, err := o.authority(ctx, above)
		if err != nil {
			return nil, c.At(o.path, err)
		}
		if keys != nil && !sc.Retired { // alone first: what is wrong with it has a line in the file
			if _, err := issuer.New(issuer.Config{Name: name, Authorities: []issuer.Authority{a}}, time.Now()); err != nil {
				return nil, c.At(o.path, err)
			}
		}
		if a.Queue != nil {
			p.held = append(p.held, keyID(r.Certificate))
		}
		ours.Authorities = append(ours.Authorities, a)
		p.authorities, p.names = append(p.authorities, r), append(p.names, name)
	}
	if ic.Blocklist != "" {
		if ours.Blocklist, err = issuer.LoadBlocklist(c.Path(ic.Blocklist)); err != nil {
			return nil, c.At(path+".blocklist", err)
		}
	}
	if keys == nil {
		return nil, nil
	}
	local, err := issuer.New(ours, time.Now())
	return local, c.At(path, err)
}

func keyID(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SubjectKeyId) }

// opening is one signer of the configuration on its way to becoming an issuing
// authority.
type opening struct {
	c      *config.Config
	keys   *keyring
	issuer config.Issuer
	signer config.Signer
	path   string // in the configuration
}

// authority opens the key, if it is here, and reads the CA certificate and
// chains: once for signing certificates, once for OCSP and CRLs.
func (o opening) authority(ctx context.Context, above []*x509.Certificate) (a issuer.Authority, r responder.Authority, err error) {
	mine, err := readCertificates(o.c.Path(o.signer.Certificate))
	if err == nil && len(mine) == 0 {
		err = errors.New("which file has the CA certificate of this key?")
	}
	if err != nil {
		return a, r, o.c.At(o.path+".certificate", err)
	}
	if a.Chains, err = o.chains(mine, above); err != nil {
		return a, r, err
	}
	r.Certificate = mine[0]
	uris := o.c.KeyURIs(o.signer)
	switch {
	case o.keys == nil: // nothing is signed here
	case len(uris) > 0:
		r.Queue, err = o.keys.open(ctx, where{
			uris: uris, key: certified(mine[0]), signing: o.c.Signing, path: o.path + o.keyField(), position: o.c.At,
			password: o.c.Path(o.signer.PasswordFile), pin: o.c.Path(o.signer.PINFile),
		})
		if err != nil {
			return a, r, err
		}
		if !o.signer.Retired {
			a.Queue = r.Queue
		}
	case !o.signer.Retired:
		a.Remote = o.keys.remote(keyID(mine[0]), mine[0].PublicKey)
	}
	return a, r, o.publishing(ctx, &a, &r)
}

// keyField is where the configuration names the key.
func (o opening) keyField() string {
	if len(o.signer.Keys) > 0 {
		return ".keys"
	}
	return ".key"
}

// chains are the default one and the alternates.
func (o opening) chains(mine, above []*x509.Certificate) ([][]*x509.Certificate, error) {
	chains := [][]*x509.Certificate{append(mine, above...)}
	for _, file := range o.issuer.AlternateChains {
		other, err := readCertificates(o.c.Path(file))
		if err != nil {
			return nil, err
		}
		// The file may begin with another certificate for this key, or with
		// what stands above the usual one.
		if len(other) > 0 && !bytes.Equal(other[0].RawSubjectPublicKeyInfo, mine[0].RawSubjectPublicKeyInfo) {
			other = append(mine[:1:1], other...)
		}
		chains = append(chains, other)
	}
	return chains, nil
}

// publishing says where relying parties find what about the authority's
// certificates.
func (o opening) publishing(ctx context.Context, a *issuer.Authority, r *responder.Authority) error {
	id := keyID(r.Certificate)
	if o.issuer.AIAURL != "" {
		a.IssuerURL = publishURL(o.issuer.AIAURL, "/ca/", id, ".cer")
	}
	if o.issuer.CRLURL != "" {
		shards := o.issuer.CRL.Shards
		point := func(shard int) string {
			if shard == 0 {
				return publishURL(o.issuer.CRLURL, "/crl/", id, ".crl")
			}
			return publishURL(o.issuer.CRLURL, "/crl/", id+"/"+strconv.Itoa(shard), ".crl")
		}
		a.CRLURL = func(serial cert.Serial) (string, int) {
			shard := revocation.Shard(serial, shards)
			return point(shard), shard
		}
		r.CRL = &responder.CRL{Validity: time.Duration(o.issuer.CRL.Validity), Shards: shards, PointURL: point}
	}
	if o.issuer.OCSPURL == "" {
		return nil
	}
	a.OCSPURL = publishURL(o.issuer.OCSPURL, "/ocsp", "", "")
	r.OCSP = &responder.OCSP{Validity: time.Duration(o.issuer.OCSP.Validity)}
	d := o.signer.OCSPResponder
	if d.Certificate == "" {
		return nil
	}
	path := o.path + ".ocsp_responder"
	delegate, err := readCertificates(o.c.Path(d.Certificate))
	if err == nil {
		err = revocation.CheckResponder(delegate[0], r.Certificate)
	}
	if err != nil {
		return o.c.At(path+".certificate", err)
	}
	r.OCSP.Delegate = &responder.Delegate{Certificate: delegate[0]}
	if d.Key == "" || o.keys == nil { // it is on another replica
		return nil
	}
	r.OCSP.Delegate.Queue, err = o.keys.open(ctx, where{
		uris: []string{o.c.KeyURI(d.Key)}, key: certified(delegate[0]), signing: o.c.Signing, path: path + ".key", position: o.c.At,
		password: o.c.Path(d.PasswordFile), pin: o.c.Path(d.PINFile),
	})
	return err
}

// publishURL is where the publish listener has something of a key's, seen
// from outside.
func publishURL(base, path, id, ending string) string {
	return strings.TrimSuffix(base, "/") + path + id + ending
}

// supports asks the issuer of a profile whether it can issue what that says.
func (p *parts) supports(profile cert.Profile) error {
	by, ok := p.caIssuers()[profile.Issuer].(interface{ Supports(cert.Profile) error })
	if !ok {
		return fmt.Errorf("profiles.%s.issuer: there is no issuer %q", profile.Name, profile.Issuer)
	}
	return by.Supports(profile)
}

// directory makes one directory's rules, validators and description.
func (p *parts) directory(c *config.Config, name string, own []netip.AddrPort, devices challenge.Devices, log *slog.Logger) error {
	rules, err := c.Directory(name)
	if err != nil {
		return err
	}
	for _, profile := range rules.Profiles {
		if err := p.supports(profile); err != nil {
			return err
		}
	}
	dc := c.Directories[name]
	network, err := newNetwork(c, dc.Validation, own)
	if err != nil {
		return fmt.Errorf("directories.%s.validation: %w", name, err)
	}
	d := &ca.Directory{
		Policy: rules, Limits: limits(c.Limits(name)),
		Lifetimes: ca.Lifetimes{
			Order: time.Duration(dc.OrderLifetime), Pending: time.Duration(dc.OrderLifetime),
			Authorization: time.Duration(dc.AuthorizationLifetime), IdleAccount: time.Duration(c.Accounts.Keep),
		},
		AccountURL: func(id protocol.AccountID) string { return acmeserver.AccountURL(c.ExternalURL, name, id) },
		ChallengeURL: func(id protocol.AuthorizationID, t protocol.ChallengeType) string {
			return acmeserver.ChallengeURL(c.ExternalURL, name, id, t)
		},
	}
	identities := dc.CAA.Identities
	if len(identities) == 0 { // dns-persist-01 needs a name for us in any case
		if u, err := url.Parse(c.ExternalURL); err == nil {
			identities = []string{u.Hostname()}
		}
	}
	// Records hold it, so it stays as long as external_url does.
	hashPrefix := strings.TrimSuffix(c.ExternalURL, "/") + "/acme/" + name + "/account-hash/"
	devices.PINPolicies, devices.TouchPolicies = dc.Devices.PINPolicies, dc.Devices.TouchPolicies
	// The one table of challenges.
	d.Validators = proof.Validators{
		protocol.HTTP01:       challenge.HTTP01{Network: network},
		protocol.TLSALPN01:    challenge.TLSALPN01{Network: network},
		protocol.DNS01:        challenge.DNS01{Resolver: network.Resolver},
		protocol.DNSAccount01: challenge.DNSAccount01{Resolver: network.Resolver},
		protocol.DNSPersist01: challenge.DNSPersist01{Resolver: network.Resolver, Issuers: identities, HashPrefix: hashPrefix, PlainAccountURL: true},

		protocol.YubiKey01:      challenge.YubiKey{Type: protocol.YubiKey01, Devices: devices},
		protocol.YubiKey02:      challenge.YubiKey{Type: protocol.YubiKey02, Devices: devices},
		protocol.DeviceAttest01: challenge.DeviceAttest01{Devices: devices},
	}
	if dc.Kubernetes.Cluster != "" {
		if d.Validators[protocol.Kubernetes01], err = p.cluster(c, name, log); err != nil {
			return err
		}
	}
	if dc.CAA.Enabled {
		d.CAA = challenge.CAA{Resolver: network.Resolver, Issuers: dc.CAA.Identities}
	}
	p.directories[name] = d
	p.meta[name] = acmeserver.Meta{
		TermsOfService: dc.TermsOfService, RequireTerms: dc.TermsOfService != "", Website: dc.Website,
		CAAIdentities: dc.CAA.Identities, ExternalAccountRequired: dc.EAB.Required, Profiles: rules.Profiles, IssuerNames: identities,
		AccountHashPrefix: hashPrefix, SSH: p.sshMeta(c, rules.Profiles),
	}
	return nil
}

// deviceProofs is what all directories' proofs by devices share.
func deviceProofs(c *config.Config, enrolled device.Registry) (challenge.Devices, error) {
	issuers := yubikey.Issuers()
	if c.Devices.Issuers != "" {
		var err error
		if issuers, err = readCertificates(c.Path(c.Devices.Issuers)); err != nil {
			return challenge.Devices{}, c.At("devices.issuers", err)
		}
	}
	return challenge.Devices{Registry: enrolled, Issuers: issuers}, nil
}

// askCluster bounds what a directory says of its validations' time, so that the
// client's POST still waits when a cluster's silence is known.
const askCluster = 10 * time.Second

// cluster makes the verifier of a directory's pods.
func (p *parts) cluster(c *config.Config, directory string, log *slog.Logger) (ca.Validator, error) {
	dc := c.Directories[directory]
	of := c.Clusters[dc.Kubernetes.Cluster]
	byAddress := dc.Kubernetes.Proof == config.ProofSourceAddress
	v, err := kubernetes.New(kubernetes.Config{
		Cluster: dc.Kubernetes.Cluster, Kubeconfig: c.Path(of.Kubeconfig), Audience: acmeserver.DirectoryURL(c.ExternalURL, directory),
		SourceAddress: byAddress, RequireReady: of.RequireReady, Timeout: min(time.Duration(dc.Validation.Timeout), askCluster), Logger: log,
		Domain: of.Domain, ShortNames: of.ShortNames, BareNamespace: of.BareNamespace, Templates: of.Templates, Namespaces: of.Namespaces,
	})
	if err != nil { // "kubernetes-01: ", and the verifier's own word for the setting
		field, why, ok := strings.Cut(strings.TrimPrefix(err.Error(), "kubernetes-01: "), ": ")
		path := "clusters." + dc.Kubernetes.Cluster
		setting := map[string]string{
			"Kubeconfig": ".kubeconfig", "Domain": ".domain", "BareNamespace": ".bare_namespace", "Templates": ".templates", "Namespaces": ".namespaces",
		}[field]
		if ok && setting != "" {
			return nil, c.At(path+setting, errors.New(why))
		}
		return nil, c.At(path, err)
	}
	p.closers = append(p.closers, v.Close)
	if byAddress {
		return v, nil
	}
	return struct { // without Whois: an address proves nothing here
		ca.Validator
		proof.Rechecker
	}{v, v}, nil
}

func limits(l config.RateLimits) ca.Limits {
	one := func(l config.Limit) store.Limit {
		if l.Off {
			return store.Limit{}
		}
		return store.Limit{Count: l.Count, Per: l.Per}
	}
	return ca.Limits{
		AccountsPerAddress: one(l.NewAccountsPerAddress), OrdersPerAccount: one(l.OrdersPerAccount),
		OrdersPerClient: one(l.OrdersPerClient), CertificatesPerName: one(l.CertificatesPerName),
		FailuresPerAccount: one(l.FailedValidationsPerAccount), AccountsPerSubject: one(l.AccountsPerPod),
	}
}

// readCertificates reads the PEM certificates of a file; "" has none.
func readCertificates(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no PEM certificate", path)
	}
	return all, nil
}

// dsn finds the database's address, which may hold a password and so may
// stand in a file or the environment.
func dsn(c *config.Config) (string, error) {
	switch d := c.Database; {
	case d.DSNFile != "":
		b, err := os.ReadFile(c.Path(d.DSNFile))
		return strings.TrimSpace(string(b)), err
	case d.DSNEnv != "":
		v := os.Getenv(d.DSNEnv)
		if v == "" {
			return "", fmt.Errorf("database.dsn_env: the environment has no %s", d.DSNEnv)
		}
		return v, nil
	default:
		return c.DatabasePath(d.DSN), nil
	}
}

// OpenDatabase opens the configured database and brings its schema up to date.
func OpenDatabase(ctx context.Context, c *config.Config, log *slog.Logger) (*store.DB, error) {
	address, err := dsn(c)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Options{DSN: address, Postgres: postgres.Open, UnsafeSync: c.Database.AllowUnsafeSync && config.IsPostgres(address), Logger: log})
}

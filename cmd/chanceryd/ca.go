package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

type caCommand struct {
	Create  caCreateCommand  `cmd:"" help:"Make the CA certificate of a key, by a CA whose key is at hand."`
	Request caRequestCommand `cmd:"" help:"Make a request for a CA certificate, to be carried to where the root's key is."`
	Sign    caSignCommand    `cmd:"" help:"Make the CA certificate for a request that was carried here."`
	CRL     caCRLCommand     `cmd:"" name:"crl" help:"Make the list of the CA certificates that a root has withdrawn."`
	Rotate  caRotateCommand  `cmd:"" help:"Put a new issuing certificate beside the old one, or a new root above all."`
	List    caListCommand    `cmd:"" help:"Show the issuing certificates, when they end, and who still uses them."`
}

// newCAFlags say what certificate is made.
type newCAFlags struct {
	Lifetime  config.Duration `help:"How long it is good, as in 1825d; five years unless given (a root: ten, an OCSP responder: 90 days), and never longer than its parent." placeholder:"DURATION"`
	Usage     []string        `help:"What may be issued below it: server, client; both unless given." enum:"server,client" placeholder:"USAGE"`
	Constrain []string        `help:"A domain or network in which all names below it must lie (name constraints)." placeholder:"NAME"`
	Responder bool            `name:"ocsp-responder" help:"No CA, but a key that signs OCSP responses in the parent's name."`
	CRLURL    string          `name:"crl-url" help:"Where the parent's CRL is found, as in http://crl.internal; /crl/KEYID.crl is added unless it names a file." placeholder:"URL"`
	AIAURL    string          `name:"aia-url" help:"Where the parent's certificate is found; /ca/KEYID.cer is added unless it names a file." placeholder:"URL"`
}

func (n newCAFlags) wanted() ceremony.NewCA {
	w := ceremony.NewCA{
		Lifetime: time.Duration(n.Lifetime), Constrain: n.Constrain, Responder: n.Responder, CRLURL: n.CRLURL, AIAURL: n.AIAURL,
	}
	for _, u := range n.Usage {
		w.Usages = append(w.Usages, cert.Usage(u))
	}
	return w
}

// nameFlags are what a CA is called.
type nameFlags struct {
	Name         string `help:"Its common name, as in \"Example Server CA\"." required:"" placeholder:"NAME"`
	Organization string `help:"Its organization." placeholder:"NAME"`
}

type caCreateCommand struct {
	ownKeyFlags
	nameFlags
	newCAFlags
	parentFlags
	Root bool   `name:"self-signed" help:"Make a root, which signs itself."`
	Out  string `help:"The file to write; it must not be there yet." required:"" placeholder:"FILE"`
}

func (a *caCreateCommand) Run(ctx context.Context, c console) error {
	n := a.wanted()
	n.Name, n.Organization, n.Root = a.Name, a.Organization, a.Root
	cards := new(yubikey.Cards)
	if a.Root && (a.Parent != "" || a.parentFlags.Key != "") {
		return usageError("--self-signed and --parent exclude each other")
	}
	if !a.Root {
		if err := a.given(); err != nil {
			return err
		}
	}
	made, err := ceremony.CreateCA(ctx, n, a.source(cards), a.parent(cards), a.Out)
	if err != nil {
		return err
	}
	return tell(c.out, made, a.Out)
}

// tell says what was made.
func tell(w io.Writer, c *x509.Certificate, file string) error {
	_, err := fmt.Fprintf(w, "wrote %s: %s, key id %s, good from %s to %s\n", file, c.Subject, hex.EncodeToString(c.SubjectKeyId),
		c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
	return err
}

type caRequestCommand struct {
	ownKeyFlags
	nameFlags
	Out string `help:"The file to write; it must not be there yet." required:"" placeholder:"FILE"`
}

func (a *caRequestCommand) Run(ctx context.Context, c console) error {
	n := ceremony.NewCA{Name: a.Name, Organization: a.Organization}
	if err := ceremony.RequestCA(ctx, n, a.source(new(yubikey.Cards)), a.Out); err != nil {
		return err
	}
	r, err := ceremony.ReadRequest(a.Out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "wrote %s: %s, fingerprint of the key %s\ncarry it to where the root's key is: chanceryd ca sign\n",
		a.Out, r.Subject, ceremony.Fingerprint(r.RawSubjectPublicKeyInfo))
	return err
}

type caSignCommand struct {
	Request string `arg:"" help:"The request." placeholder:"FILE"`
	newCAFlags
	parentFlags
	Yes bool   `help:"Sign without asking."`
	Out string `help:"The file to write; it must not be there yet." required:"" placeholder:"FILE"`
}

func (a *caSignCommand) Run(ctx context.Context, c console) error {
	if err := a.given(); err != nil {
		return err
	}
	sure := func(what string) error {
		fmt.Fprint(c.err, what)
		if a.Yes {
			return nil
		}
		return confirm(ctx, "Is the fingerprint what was noted when the request was made?")
	}
	made, err := ceremony.SignCA(ctx, a.wanted(), a.Request, a.parent(new(yubikey.Cards)), a.Out, sure)
	if err != nil {
		return err
	}
	return tell(c.out, made, a.Out)
}

type caCRLCommand struct {
	parentFlags
	Previous string          `help:"The list before, whose entries stay; the file to write, if it is there, unless given." placeholder:"FILE"`
	Number   int64           `help:"The list's number; one more than that of the list before unless given, so it is needed for the first." placeholder:"N"`
	Validity config.Duration `help:"How long it is believed; 365d unless given." placeholder:"DURATION"`
	Revoke   []string        `help:"A certificate to withdraw, and why, as in ca/old.pem=superseded: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn." sep:"none" placeholder:"FILE=REASON"`
	Out      string          `help:"The file to write; the list before is replaced." required:"" placeholder:"FILE"`
}

func (a *caCRLCommand) Run(ctx context.Context, c console) error {
	if err := a.given(); err != nil {
		return err
	}
	l := ceremony.RootCRL{
		By: a.parent(new(yubikey.Cards)), Previous: a.Previous, Number: a.Number, Validity: time.Duration(a.Validity), Out: a.Out,
	}
	for _, text := range a.Revoke {
		w, err := ceremony.ParseWithdrawal(text)
		if err != nil {
			return usageError("--revoke: " + err.Error())
		}
		l.Revoke = append(l.Revoke, w)
	}
	list, err := l.Run(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "wrote %s: number %v, %d withdrawn, the next one is due by %s\ncarry it to the server: publish.crls\n",
		a.Out, list.Number, len(list.RevokedCertificateEntries), list.NextUpdate.Format(time.DateOnly))
	return err
}

// configFlag is the configuration where it isn't the argument.
type configFlag struct {
	Config string `help:"The configuration file." default:"/etc/chancery/chancery.yaml" placeholder:"FILE"`
}

type caRotateCommand struct {
	Issuer string `arg:"" optional:"" help:"The issuer, as the configuration calls it." placeholder:"ISSUER"`
	configFlag
	Root     bool            `help:"Make a new root instead, and new certificates by it for the keys of all issuers; --parent is the old root."`
	Name     string          `help:"The new common name; the old one with the next number unless given." placeholder:"NAME"`
	Lifetime config.Duration `help:"How long the new certificate is good; as long as the old one was unless given." placeholder:"DURATION"`
	ownKeyFlags
	parentFlags
	Out string `help:"The file for the new certificate; with --root those of the others are named after it." required:"" placeholder:"FILE"`
}

func (a *caRotateCommand) Run(ctx context.Context, c console) error {
	if a.Root == (a.Issuer != "") {
		return usageError("expected an issuer, or --root")
	}
	if err := a.given(); err != nil {
		return err
	}
	loaded, err := configArg{Config: a.Config}.load(c)
	if err != nil {
		return err
	}
	cards := new(yubikey.Cards)
	var made *ceremony.Rotated
	if a.Root {
		made, err = ceremony.RootRotation{
			Config: loaded, Name: a.Name, Lifetime: time.Duration(a.Lifetime), Old: a.parent(cards), Out: a.Out,
		}.Run(ctx, a.source(cards))
	} else {
		made, err = ceremony.Rotation{
			Config: loaded, Issuer: a.Issuer, Name: a.Name, Lifetime: time.Duration(a.Lifetime),
			Key: a.key(a.ownKeyFlags.Key, cards), By: a.parent(cards), Out: a.Out,
		}.Run(ctx, a.source(cards))
	}
	if err != nil {
		return err
	}
	for i, made1 := range made.Certificates {
		if err := tell(c.out, made1, made.Files[i]); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.out, "\n%s", made.Advice)
	return err
}

type caListCommand struct {
	configFlag
	JSON bool `name:"json" help:"Print JSON."`
}

func (a *caListCommand) Run(ctx context.Context, c console) error {
	loaded, err := configArg{Config: a.Config}.load(c)
	if err != nil {
		return err
	}
	live, err := setup.ReadSigning(ctx, loaded.Path(loaded.Admin.Socket))
	known := &live
	if err != nil { // the certificates can be shown all the same
		known = nil
		fmt.Fprintf(c.err, "chanceryd: who uses them is not shown: %v\n", err)
	}
	all, err := ceremony.List(loaded, known, time.Now())
	if err != nil {
		return err
	}
	if a.JSON {
		return printJSON(c.out, all)
	}
	return ceremony.Print(c.out, all)
}

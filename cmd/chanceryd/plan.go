package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/plan"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// planCommand asks the simulator. A flag that isn't given is read from the
// running server, if it knows, else it has a default.
type planCommand struct {
	planFleet
	planDrain
	planRevocation
	planKeys
	planOutput
}

type planFleet struct {
	Certificates    int           `help:"Certificates alive, that is, unexpired." placeholder:"N"`
	Workloads       int           `help:"Workloads that hold certificates, instead of --certificates." placeholder:"N"`
	PerWorkload     float64       `help:"Certificates per workload; 2.5 unless given." default:"2.5" placeholder:"N"`
	Clients         int           `help:"EAB keys, namespaces or addresses among whom the workloads are; 20 unless given, 0: each is by itself." default:"20" placeholder:"N"`
	Lifetime        time.Duration `help:"Of a certificate; 24h unless given." placeholder:"TIME"`
	RenewAt         part          `help:"Part of the lifetime after which it is renewed; two thirds unless given." placeholder:"PART"`
	Spread          part          `help:"Width of the renewal window, as part of the lifetime; a twelfth unless given (the server widens the span to what its keys can sign), none: all to the second." placeholder:"PART"`
	Churn           float64       `help:"Workloads replaced per hour, one by one." placeholder:"N"`
	Precertificates bool          `help:"Each certificate goes to transparency logs first, which takes a second signature."`
}

type planDrain struct {
	Drain     int           `help:"Workloads that start anew at once." placeholder:"N"`
	DrainOver time.Duration `help:"The time within which they do; at the same moment unless given." placeholder:"TIME"`
	Within    time.Duration `help:"The wait of 99 of 100 drained workloads that is wanted; 1m unless given." default:"1m" placeholder:"TIME"`
}

type planRevocation struct {
	OCSPValidity time.Duration `name:"ocsp-validity" help:"Of an OCSP answer; no OCSP unless given." placeholder:"TIME"`
	OCSPAsked    part          `name:"ocsp-asked" help:"Share of the relying parties that ask, and so of the certificates asked about; all unless given." placeholder:"PART"`
	OCSPEvery    time.Duration `name:"ocsp-every" help:"Mean time between two questions about one certificate; 10m unless given." default:"10m" placeholder:"TIME"`
	OCSPStorm    part          `name:"ocsp-storm" help:"Part of all certificates asked about at once as the drain begins, when no answer is there." placeholder:"PART"`
	CRLLists     int           `name:"crl-lists" help:"Revocation lists per key: the full one and the shards." placeholder:"N"`
	CRLEvery     time.Duration `name:"crl-every" help:"Time between two makings of a list; 8h unless given." placeholder:"TIME"`
}

type planKeys struct {
	Key     []string      `help:"A key and its time for a signature, as in 200ms or 5/s; 4x200ms are four, 1ms@8 makes eight at once. May be given often." placeholder:"KEY" sep:"none"`
	Shares  string        `help:"Of a key while all want more: new certificates, renewals, OCSP, CRL; 60,35,4,1 unless given." placeholder:"A,B,C,D"`
	Vary    part          `help:"How far a signature's time may be from its mean; 5% unless given, none: not at all." placeholder:"PART"`
	Horizon time.Duration `help:"How long after the drain is shown; until its certificates are renewed unless given." placeholder:"TIME"`
	Seed    uint64        `help:"Another one, another draw of the same dice." default:"1" placeholder:"N"`
}

type planOutput struct {
	Socket string `help:"The running server's admin socket, to read from; /run/chancery/admin.sock when certificates or keys are not given." env:"CHANCERY_ADMIN" placeholder:"PATH"`
	Issuer string `help:"Which of the server's issuers." placeholder:"NAME"`
	SVG    string `name:"svg" help:"Write the picture to this file." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"Print JSON: spans in seconds, shares as parts of 1."`
}

// adminSocket is where a packaged server has its socket.
const adminSocket = "/run/chancery/admin.sock"

func (p *planCommand) Run(ctx context.Context, c console) error {
	found, err := p.ask(ctx)
	if err != nil {
		return err
	}
	for _, note := range found.Notes {
		fmt.Fprintln(c.err, "chanceryd:", note)
	}
	in, err := p.input(found)
	if err != nil {
		return err
	}
	result, err := plan.Run(in)
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if p.SVG != "" {
		if err := ceremony.ReplaceFile(p.SVG, result.SVG()); err != nil {
			return err
		}
	}
	if p.JSON {
		out := json.NewEncoder(c.out)
		out.SetEscapeHTML(false)
		return out.Encode(result)
	}
	_, err = io.WriteString(c.out, result.Text())
	return err
}

// ask reads what isn't given from the running server, if it is needed or
// wanted.
func (p *planCommand) ask(ctx context.Context) (setup.Found, error) {
	unsaid := len(p.Key) == 0 || p.Certificates == 0 && p.Workloads == 0 && p.Drain == 0
	if p.Socket == "" && p.Issuer == "" && !unsaid {
		return setup.Found{}, nil
	}
	socket := p.Socket
	if socket == "" {
		socket = adminSocket
	}
	answer, err := setup.ReadSigning(ctx, socket)
	if err != nil {
		if unsaid {
			return setup.Found{}, fmt.Errorf("%w (or say --certificates and --key)", err)
		}
		return setup.Found{}, err
	}
	return setup.PlanFrom(answer, p.Issuer)
}

// input puts together what was given, what the server said, and defaults.
func (p *planCommand) input(found setup.Found) (plan.Input, error) {
	in := plan.Input{
		Fleet: plan.Fleet{
			Workloads: p.Workloads, PerWorkload: p.PerWorkload, Clients: p.Clients, Lifetime: cmp.Or(p.Lifetime, found.Lifetime, 24*time.Hour),
			RenewAt: p.RenewAt.value, Spread: p.Spread.orNone(), Churn: p.Churn, Precertificates: p.Precertificates,
		},
		Drain: plan.Drain{Workloads: p.Drain, Over: p.DrainOver},
		OCSP:  plan.OCSP{Validity: cmp.Or(p.OCSPValidity, found.OCSPValidity), Every: p.OCSPEvery, Storm: p.OCSPStorm.value},
		CRL:   plan.CRL{Lists: cmp.Or(p.CRLLists, found.Lists), Every: cmp.Or(p.CRLEvery, found.ListEvery)},
		Keys:  found.Keys, Shares: found.Shares, Bound: p.Within, Horizon: p.Horizon, Vary: p.Vary.orNone(), Seed: p.Seed,
	}
	if p.Certificates != 0 && p.Workloads != 0 {
		return in, errors.New("--certificates and --workloads say the same thing: give one of them")
	}
	if in.Fleet.Workloads == 0 {
		in.Fleet.Workloads = in.Fleet.WorkloadsOf(cmp.Or(p.Certificates, found.Alive))
	}
	if in.OCSP.Validity > 0 {
		in.OCSP.Asked = 1
	}
	if p.OCSPAsked.given {
		in.OCSP.Asked = p.OCSPAsked.value
	}
	var err error
	if len(p.Key) > 0 {
		in.Keys = nil
	}
	for _, k := range p.Key {
		keys, kerr := parseKeys(k)
		in.Keys, err = append(in.Keys, keys...), errors.Join(err, kerr)
	}
	if p.Shares != "" {
		var serr error
		in.Shares, serr = parseShares(p.Shares)
		err = errors.Join(err, serr)
	}
	return in, err
}

// part is a part of a whole on the command line: 10%, 0.1, or none.
type part struct {
	value float64
	given bool
}

// UnmarshalText reads it.
func (p *part) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "none" {
		*p = part{given: true}
		return nil
	}
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return fmt.Errorf("%q is not a part of a whole: write it as 10%%, 0.1 or none", s)
	}
	*p = part{v, true}
	return nil
}

// orNone is the value for a field whose zero means a default and whose
// negative values mean none.
func (p part) orNone() float64 {
	if p.given && p.value == 0 {
		return -1
	}
	return p.value
}

// parseKeys reads COUNTxTIME@PARALLEL, of which only the time must be there;
// it may be a rate, as in 5/s.
func parseKeys(s string) ([]plan.Key, error) {
	bad := fmt.Errorf("--key %q: write it as 200ms, 5/s, 4x200ms or 1ms@8", s)
	n, places := 1, 1
	rest := s
	if before, after, ok := strings.Cut(rest, "x"); ok {
		var err error
		if n, err = strconv.Atoi(before); err != nil || n < 1 || n > plan.MaxKeys {
			return nil, bad
		}
		rest = after
	}
	if before, after, ok := strings.Cut(rest, "@"); ok {
		var err error
		if places, err = strconv.Atoi(after); err != nil || places < 1 {
			return nil, bad
		}
		rest = before
	}
	d, err := time.ParseDuration(rest)
	if rate, ok := strings.CutSuffix(rest, "/s"); ok {
		var r float64
		if r, err = strconv.ParseFloat(rate, 64); err == nil && r >= 1e-6 && r <= 1e9 {
			d = time.Duration(float64(time.Second) / r)
		}
	}
	if err != nil || d <= 0 {
		return nil, bad
	}
	keys := make([]plan.Key, n)
	for i := range keys {
		keys[i] = plan.Key{Signature: d, Parallel: places}
	}
	return keys, nil
}

// parseShares reads four percentages.
func parseShares(s string) (schedule.Shares, error) {
	var shares schedule.Shares
	fields := strings.Split(s, ",")
	if len(fields) != len(shares) {
		return shares, fmt.Errorf("--shares %q: write four percentages, as in 60,35,4,1", s)
	}
	for i, field := range fields {
		v, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(field), "%"), 64)
		if err != nil {
			return shares, fmt.Errorf("--shares %q: %q is not a percentage", s, field)
		}
		shares[i] = v / 100
	}
	if err := shares.Check(); err != nil {
		return shares, fmt.Errorf("--shares: %w", err)
	}
	return shares, nil
}

package ceremony

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/config"
)

// Listed is one issuing certificate, or the certificate of an OCSP responder.
type Listed struct {
	Issuer    string          `json:"issuer"` // its name in the configuration
	Subject   string          `json:"subject"`
	Responder bool            `json:"ocsp_responder,omitempty"`
	File      string          `json:"certificate"`
	KeyID     string          `json:"key_id"`
	Keys      []string        `json:"keys,omitempty"` // URIs; none: on another replica, or gone
	State     string          `json:"state"`          // "configured", or as the server has it: "ready", "away", "remote", "retired"
	NotBefore time.Time       `json:"not_before"`
	NotAfter  time.Time       `json:"not_after"`
	DaysLeft  int             `json:"days_left"`        // rounded down; negative: ended
	Ending    string          `json:"ending,omitempty"` // what to do, where the end is near
	Server    *api.SigningKey `json:"server,omitempty"` // what the running server says

	left time.Duration // until NotAfter
}

// List lists all issuing certificates of the configuration, with what the
// running server says of them; live is nil where none was asked.
func List(c *config.Config, live *api.Signing, now time.Time) ([]Listed, error) {
	var all []Listed
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		for i, s := range c.Issuers[name].Signers {
			at := fmt.Sprintf("issuers.%s.signers[%d]", name, i)
			l, err := listed(c, name, at, s.Certificate, now)
			if err != nil {
				return nil, err
			}
			l.Keys = c.KeyURIs(s)
			l.State = "configured"
			switch {
			case s.Retired:
				l.State = "retired"
			case len(l.Keys) == 0:
				l.State = "remote"
			}
			l.announce(c, s.Retired, "chanceryd ca rotate "+name)
			l.join(live)
			all = append(all, l)
			if s.OCSPResponder.Certificate == "" {
				continue
			}
			r, err := listed(c, name, at+".ocsp_responder", s.OCSPResponder.Certificate, now)
			if err != nil {
				return nil, err
			}
			if r.Responder, r.State = true, "configured"; s.OCSPResponder.Key != "" {
				r.Keys = []string{c.KeyURI(s.OCSPResponder.Key)}
			}
			r.announce(c, false, "chanceryd ca create --ocsp-responder")
			all = append(all, r)
		}
	}
	return all, nil
}

func listed(c *config.Config, name, at, file string, now time.Time) (Listed, error) {
	crt, err := ReadCertificate(c.Path(file))
	if err != nil {
		return Listed{}, c.At(at+".certificate", err)
	}
	return Listed{
		Issuer: name, Subject: crt.Subject.String(), File: c.Path(file), KeyID: keyIDOf(crt),
		NotBefore: crt.NotBefore, NotAfter: crt.NotAfter,
		DaysLeft: int(math.Floor(crt.NotAfter.Sub(now).Hours() / 24)), left: crt.NotAfter.Sub(now),
	}, nil
}

// keyIDOf is what certificates below it, and the server, call its key.
func keyIDOf(c *x509.Certificate) string {
	if len(c.SubjectKeyId) > 0 {
		return hex.EncodeToString(c.SubjectKeyId)
	}
	return subjectKeyID(c.RawSubjectPublicKeyInfo)
}

// announce says what to do where the end is near. What is retired needs
// nothing.
func (l *Listed) announce(c *config.Config, retired bool, next string) {
	issuer := l.Issuer
	if l.Responder {
		issuer = ""
	}
	notice := c.Notice(issuer, l.NotAfter.Sub(l.NotBefore))
	switch {
	case retired:
	case l.left <= 0:
		l.Ending = "it has ended: " + next
	case l.left < notice:
		l.Ending = "it ends soon: " + next
	}
}

// join adds what the server says of the key.
func (l *Listed) join(live *api.Signing) {
	if live == nil {
		return
	}
	for _, is := range live.Issuers {
		for _, k := range is.Keys {
			if is.Name == l.Issuer && k.KeyID == l.KeyID {
				l.Server, l.State = &k, cmp.Or(k.State, l.State)
			}
		}
	}
}

// Print writes the list for people.
func Print(w io.Writer, all []Listed) error {
	var b strings.Builder
	for _, l := range all {
		what := ""
		if l.Responder {
			what = ", OCSP responder"
		}
		fmt.Fprintf(&b, "%s%s: %s\n", l.Issuer, what, l.Subject)
		p := func(name, format string, args ...any) {
			fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{name}, args...)...)
		}
		p("certificate", "%s", l.File)
		p("key id", "%s", l.KeyID)
		for _, uri := range l.Keys {
			p("key", "%s", uri)
		}
		p("dates", "%s to %s, %d days left", l.NotBefore.Format(time.DateOnly), l.NotAfter.Format(time.DateOnly), l.DaysLeft)
		if l.Ending != "" {
			p("warning", "%s", l.Ending)
		}
		if l.Server != nil {
			l.server(p)
		} else {
			p("state", "%s", l.State)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// server writes what the running server says: who still uses the key.
func (l Listed) server(p func(name, format string, args ...any)) {
	s := l.Server
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	if s.Signature > 0 {
		rate := float64(max(s.Parallel, 1)) / s.Signature
		if rate >= 100 {
			rate = math.Round(rate)
		}
		state += fmt.Sprintf(", %s signatures/s", strconv.FormatFloat(math.Round(rate*10)/10, 'f', -1, 64))
	}
	p("state", "%s", state)
	switch {
	case s.Live == 0 && s.State == "retired":
		p("in use by", "no certificate that is still good: take it out of the configuration")
	case s.Live == 0:
		p("in use by", "no certificate that is still good")
	case s.LastEnd.IsZero():
		p("in use by", "%d certificates", s.Live)
	default:
		p("in use by", "%d certificates, the last of which ends %s", s.Live, s.LastEnd.UTC().Format("2006-01-02 15:04 MST"))
		p("", "which: chancery admin certs list --issuer-key %s", l.KeyID)
	}
}

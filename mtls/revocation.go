package mtls

import (
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/status"
)

// Revocation says whether peers' certificates are looked up, and what happens
// where nothing can be found out. Answers and lists are fetched in the
// background, verified, and kept until their nextUpdate; handshakes don't wait
// for them, but for what Hard says.
//
// A certificate that says noRevAvail (RFC 9608), as short-lived ones do, is
// never looked up. A good OCSP answer that the peer has stapled settles it
// without a look elsewhere. Of a chain all certificates but the root are looked
// up; intermediates that name nobody to be asked pass.
type Revocation struct {
	// Check is where to look. Default: CheckOff.
	Check Check
	// Hard refuses a peer about whose certificate nothing can be found out:
	// the responder is down, doesn't know it, or none is named. At first
	// sight of a certificate the handshake waits up to Wait. Default: such
	// peers are allowed, and their status is fetched for the next time.
	Hard bool
	// Wait is how long. Default: 5 s.
	Wait time.Duration
}

// Check is where a peer's revocation status is looked for.
type Check int

// The places. Where a certificate names only an OCSP responder, CheckCRL asks
// that, and the other way round.
const (
	CheckOff  Check = iota
	CheckCRL        // the certificate's CRL
	CheckOCSP       // the certificate's OCSP responder
	// CheckStaple demands that the peer staple a good OCSP answer, Hard or
	// not, unless its certificate says noRevAvail. Its intermediates are
	// looked up as under CheckOCSP.
	CheckStaple
)

// defaultWait is a handshake's patience where the program says nothing.
const defaultWait = 5 * time.Second

// policy translates and checks.
func (r Revocation) policy() (status.Policy, error) {
	p := status.Policy{Prefer: status.OCSP, Staple: r.Check == CheckStaple, Hard: r.Hard, Wait: r.Wait}
	switch {
	case r.Check < CheckOff || r.Check > CheckStaple:
		return p, fmt.Errorf("mtls: TrustConfig.Revocation.Check: there is no %d; use CheckOff, CheckCRL, CheckOCSP or CheckStaple", r.Check)
	case r.Check == CheckOff && r.Hard:
		return p, errors.New("mtls: TrustConfig.Revocation.Hard: nothing is looked up with CheckOff; set Check too")
	case r.Wait < 0:
		return p, fmt.Errorf("mtls: TrustConfig.Revocation.Wait: %v is negative", r.Wait)
	case r.Check == CheckCRL:
		p.Prefer = status.CRL
	}
	if p.Wait == 0 {
		p.Wait = defaultWait
	}
	return p, nil
}

package schedule

import (
	"fmt"
	"math"
	"time"
)

// Class is what a signature is for.
type Class int

// The classes. Classes is their number.
const (
	Issuance Class = iota // certificates for names that had none
	Renewal               // certificates that replace others
	OCSP
	CRL
	Classes
)

// String returns the class's name in metrics and the configuration.
func (c Class) String() string {
	if c < 0 || c >= Classes {
		return fmt.Sprintf("Class(%d)", int(c))
	}
	return [Classes]string{"issuance", "renewal", "ocsp", "crl"}[c]
}

// Shares is each class's part of the key while all want more than there is.
// What one doesn't use goes to the others: a certificate class's part to the
// other one first, so that OCSP and CRLs never press on certificates because
// nothing is being renewed.
type Shares [Classes]float64

// DefaultShares returns the shares of an ordinary authority: 60 % new
// certificates, 35 % renewals, 4 % OCSP, 1 % CRLs.
func DefaultShares() Shares {
	return Shares{Issuance: 0.60, Renewal: 0.35, OCSP: 0.04, CRL: 0.01}
}

// Check returns an error unless every share is more than nothing (else its
// class would starve) and they add up to 1, give or take a millionth.
func (s Shares) Check() error {
	sum := 0.0
	for c, share := range s {
		if !(share > 0) { // NaN too
			return fmt.Errorf("the signing share of %v is %v; each class needs more than 0", Class(c), share)
		}
		sum += share
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("the signing shares add up to %g %%; make it 100 %%", math.Round(sum*1e8)/1e6)
	}
	return nil
}

// How urgent a renewal is; a lower number goes strictly first.
const (
	urgent   = iota
	pressing // within the hour
	relaxed
	urgencies
)

// Urgency says how urgent a renewal is: left is the time until the certificate
// that it replaces ends, wait the time until its turn would come. 0: it would
// end within 10 minutes after that turn or before; 1: within an hour; 2: later.
func Urgency(left, wait time.Duration) int {
	switch {
	case left <= wait+10*time.Minute:
		return urgent
	case left <= wait+time.Hour:
		return pressing
	}
	return relaxed
}

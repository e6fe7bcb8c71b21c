package acme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The statuses of accounts, orders, authorizations and challenges (RFC 8555
// section 7.1.6). Not every object has every status.
const (
	StatusPending     = "pending"
	StatusReady       = "ready"
	StatusProcessing  = "processing"
	StatusValid       = "valid"
	StatusInvalid     = "invalid"
	StatusDeactivated = "deactivated"
	StatusExpired     = "expired"
	StatusRevoked     = "revoked"
)

// The identifier types with their own helpers here.
const (
	TypeDNS = "dns" // RFC 8555 section 9.7.7
	TypeIP  = "ip"  // RFC 8738 section 3
)

// The challenge types with their own helpers here.
const (
	HTTP01       = "http-01"        // RFC 8555 section 8.3
	DNS01        = "dns-01"         // RFC 8555 section 8.4
	TLSALPN01    = "tls-alpn-01"    // RFC 8737
	DNSAccount01 = "dns-account-01" // draft-ietf-acme-dns-account-label
	DNSPersist01 = "dns-persist-01" // draft-ietf-acme-dns-persist
)

// Directory tells where a server's resources are (RFC 8555 section 7.1.1).
// All members but Meta are URLs; an empty one is not offered.
type Directory struct {
	NewNonce    string `json:"newNonce"`              // RFC 8555 section 7.2
	NewAccount  string `json:"newAccount"`            // RFC 8555 section 7.3
	NewOrder    string `json:"newOrder"`              // RFC 8555 section 7.4
	NewAuthz    string `json:"newAuthz,omitempty"`    // RFC 8555 section 7.4.1
	RevokeCert  string `json:"revokeCert,omitempty"`  // RFC 8555 section 7.6
	KeyChange   string `json:"keyChange,omitempty"`   // RFC 8555 section 7.3.5
	RenewalInfo string `json:"renewalInfo,omitempty"` // RFC 9773 section 3
	Meta        Meta   `json:"meta,omitzero"`         // RFC 8555 section 7.1.1
}

// Meta describes a directory to people and programs (RFC 8555 section 7.1.1).
type Meta struct {
	TermsOfService          string   `json:"termsOfService,omitempty"` // a URL
	Website                 string   `json:"website,omitempty"`        // a URL
	CAAIdentities           []string `json:"caaIdentities,omitempty"`  // names for CAA records (RFC 8659)
	ExternalAccountRequired bool     `json:"externalAccountRequired,omitempty"`

	// Profiles maps names to descriptions for people, usually URLs
	// (draft-ietf-acme-profiles section 3).
	Profiles map[string]string `json:"profiles,omitempty"`

	SSH *SSH `json:"ssh,omitempty"` // nil: no SSH certificates (Chancery's own member)
}

// SSH tells how to trust the SSH certificates of a directory's CA.
type SSH struct {
	UserKeys []string `json:"userKeys,omitempty"` // CA keys of user certificates, as lines of authorized_keys
	HostKeys []string `json:"hostKeys,omitempty"` // CA keys of host certificates
	KRL      string   `json:"krl,omitempty"`      // URL of the revocation list; its signature is at that URL + ".sig"
}

// Account is an ACME account (RFC 8555 section 7.1.2).
type Account struct {
	Status                 string          `json:"status"`
	Contact                []string        `json:"contact,omitempty"` // URLs, mostly mailto:
	TermsOfServiceAgreed   bool            `json:"termsOfServiceAgreed,omitempty"`
	ExternalAccountBinding json.RawMessage `json:"externalAccountBinding,omitempty"` // RFC 8555 section 7.3.4
	Orders                 string          `json:"orders,omitempty"`                 // URL of the list, section 7.1.2.1

	URL     string `json:"-"` // where the account lives; also its key id
	Created bool   `json:"-"` // Register made it just now (201, not 200)
}

// Order is a request for one certificate (RFC 8555 section 7.1.3).
type Order struct {
	Status         string       `json:"status"`
	Expires        time.Time    `json:"expires,omitzero"`
	Identifiers    []Identifier `json:"identifiers"`
	NotBefore      time.Time    `json:"notBefore,omitzero"`
	NotAfter       time.Time    `json:"notAfter,omitzero"`
	Profile        string       `json:"profile,omitempty"`  // draft-ietf-acme-profiles section 4
	Replaces       string       `json:"replaces,omitempty"` // RFC 9773 section 5: a CertID
	Error          *Problem     `json:"error,omitempty"`
	Authorizations []string     `json:"authorizations"` // URLs
	Finalize       string       `json:"finalize"`       // URL
	Certificate    string       `json:"certificate,omitempty"`

	URL        string        `json:"-"` // from Location (RFC 8555 section 7.4)
	RetryAfter time.Duration `json:"-"` // when to look again, 0 if the server didn't say
}

// Authorization is an account's right to an identifier, or the way to it
// (RFC 8555 section 7.1.4).
type Authorization struct {
	Identifier Identifier  `json:"identifier"` // without "*." even if Wildcard
	Status     string      `json:"status"`
	Expires    time.Time   `json:"expires,omitzero"`
	Challenges []Challenge `json:"challenges"`
	Wildcard   bool        `json:"wildcard,omitempty"`

	URL        string        `json:"-"`
	RetryAfter time.Duration `json:"-"` // when to look again, 0 if the server didn't say
}

// Challenge is one way to prove an identifier (RFC 8555 section 8).
type Challenge struct {
	Type      string    `json:"type"`
	URL       string    `json:"url"`
	Status    string    `json:"status"`
	Validated time.Time `json:"validated,omitzero"`
	Error     *Problem  `json:"error,omitempty"`
	Token     string    `json:"token,omitempty"` // section 8.1; some types have none

	// Extra holds every member with another name, as it came, so that a
	// challenge type this package doesn't know can still be answered.
	Extra map[string]json.RawMessage `json:"-"`

	RetryAfter time.Duration `json:"-"` // of the answer that brought it, 0 if the server didn't say
}

// wireChallenge has Challenge's fields without its methods.
type wireChallenge Challenge

// UnmarshalJSON keeps unknown members in Extra. It is called by encoding/json.
func (ch *Challenge) UnmarshalJSON(data []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if all == nil { // JSON null
		return errors.New("a challenge is null")
	}
	*ch = Challenge{}
	for name, raw := range all {
		var err error
		switch name {
		case "type":
			err = readString(raw, &ch.Type)
		case "url":
			err = readString(raw, &ch.URL)
		case "status":
			err = readString(raw, &ch.Status)
		case "token":
			err = readString(raw, &ch.Token)
		case "validated":
			err = json.Unmarshal(raw, &ch.Validated)
		case "error":
			err = json.Unmarshal(raw, &ch.Error)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("challenge member %q: %w", name, err)
		}
		delete(all, name)
	}
	if len(all) > 0 {
		ch.Extra = all
	}
	return nil
}

// readString is json.Unmarshal, quicker for a string without escapes.
func readString(raw json.RawMessage, s *string) error {
	if len(raw) < 2 || raw[0] != '"' || bytes.IndexFunc(raw, func(r rune) bool { return r == '\\' || r >= 0x80 }) >= 0 {
		return json.Unmarshal(raw, s)
	}
	*s = string(raw[1 : len(raw)-1])
	return nil
}

// MarshalJSON writes the members of Extra beside the known ones, which win.
func (ch Challenge) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(wireChallenge(ch))
	if err != nil || len(ch.Extra) == 0 {
		return known, err
	}
	all := make(map[string]json.RawMessage, len(ch.Extra)+6)
	for name, raw := range ch.Extra {
		all[name] = raw
	}
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// Identifier is a name a certificate can carry (RFC 8555 section 9.7.7).
type Identifier struct {
	Type  string `json:"type"`  // "dns", "ip", …
	Value string `json:"value"` // addresses as in RFC 5952
}

// String returns the value, which says by itself whether it is an address.
func (id Identifier) String() string { return id.Value }

// Identifiers makes identifiers of names as people write them: addresses
// become type ip in their canonical form, anything else type dns as it is.
func Identifiers(names ...string) []Identifier {
	ids := make([]Identifier, len(names))
	for i, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			ids[i] = Identifier{TypeIP, addr.String()}
		} else {
			ids[i] = Identifier{TypeDNS, name}
		}
	}
	return ids
}

// RenewalInfo is the server's wish when a certificate should be renewed (RFC
// 9773 section 4.2).
type RenewalInfo struct {
	SuggestedWindow Window `json:"suggestedWindow"`
	ExplanationURL  string `json:"explanationURL,omitempty"`

	// RetryAfter is when to ask again, kept between one minute and one day;
	// six hours if the server didn't say (RFC 9773 section 4.3).
	RetryAfter time.Duration `json:"-"`
}

// Window is the time in which to renew. One in the past means at once.
type Window struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

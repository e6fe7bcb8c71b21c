package api

import "time"

// Signing is what the signing keys do and have to do: GET /v1/signing. Rates
// are per second, spans seconds, classes as in "issuance", "renewal", "ocsp"
// and "crl".
type Signing struct {
	Issuers []SigningIssuer    `json:"issuers"`
	Shares  map[string]float64 `json:"shares"` // by class; they add up to 1
}

// SigningIssuer is one issuer of the configuration.
type SigningIssuer struct {
	Name         string           `json:"name"`
	Keys         []SigningKey     `json:"keys"`
	Profiles     []SigningProfile `json:"profiles"`
	OCSPValidity float64          `json:"ocsp_validity,omitzero"` // 0: no OCSP
	CRLs         int              `json:"crls,omitzero"`          // lists of each key: the whole one and the parts; 0: none
	CRLValidity  float64          `json:"crl_validity,omitzero"`
}

// SigningKey is one issuing certificate and its key.
type SigningKey struct {
	KeyID     string            `json:"key_id"` // hex of the SubjectKeyId
	Subject   string            `json:"subject"`
	KeyType   string            `json:"key_type"`
	URIs      []string          `json:"uris,omitempty"` // where the key is; none: on another replica, or retired
	State     string            `json:"state"`          // "ready", "away", "remote" (on another replica) or "retired"
	Reason    string            `json:"reason,omitzero"`
	NotAfter  time.Time         `json:"not_after"` // of the issuing certificate
	Signature float64           `json:"signature"` // mean time of one; 0: none measured yet
	Parallel  int               `json:"parallel"`  // how many at once
	Waiting   map[string]int    `json:"waiting,omitempty"`
	Signed    map[string]uint64 `json:"signed,omitempty"` // since the start
	Live      int64             `json:"live"`             // unexpired certificates
	LastEnd   time.Time         `json:"last_end,omitzero"`
}

// SigningProfile is one kind of certificate of an issuer.
type SigningProfile struct {
	Name       string  `json:"name"`
	Lifetime   float64 `json:"lifetime"`
	Revocation string  `json:"revocation"`
}

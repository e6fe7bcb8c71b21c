package server

import (
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// The states of an issuing key.
const (
	keyReady   = "ready"
	keyAway    = "away"    // no token of it is at hand, or every one is stuck
	keyRemote  = "remote"  // another replica holds it
	keyRetired = "retired" // it signs no more certificates
)

// signing tells what the issuing keys do, for operators and the planner.
func (s *Server) signing() api.Signing {
	c := s.config.Load()
	out := api.Signing{Shares: map[string]float64{}}
	for class, share := range c.Signing.Shares() {
		out.Shares[schedule.Class(class).String()] = share
	}
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		ic := c.Issuers[name]
		is := api.SigningIssuer{Name: name, Keys: []api.SigningKey{}, Profiles: []api.SigningProfile{}}
		if ic.OCSPURL != "" {
			is.OCSPValidity = time.Duration(ic.OCSP.Validity).Seconds()
		}
		if ic.CRLURL != "" {
			is.CRLs, is.CRLValidity = 1+ic.CRL.Shards, time.Duration(ic.CRL.Validity).Seconds()
		}
		for _, sc := range ic.Signers {
			if certificates, err := readCertificates(c.Path(sc.Certificate)); err == nil && len(certificates) > 0 {
				is.Keys = append(is.Keys, s.signingKey(certificates[0], sc))
			}
		}
		for _, profile := range slices.Sorted(maps.Keys(c.Profiles)) {
			if p := c.Profiles[profile]; p.Issuer == name {
				is.Profiles = append(is.Profiles, api.SigningProfile{
					Name: profile, Lifetime: time.Duration(p.Lifetime).Seconds(), Revocation: string(p.Revocation),
				})
			}
		}
		out.Issuers = append(out.Issuers, is)
	}
	out.Issuers = append(out.Issuers, s.sshSigning(c)...)
	return out
}

// sshSigning tells the same of SSH issuers.
func (s *Server) sshSigning(c *config.Config) (all []api.SigningIssuer) {
	for _, name := range slices.Sorted(maps.Keys(c.SSHIssuers)) {
		is := api.SigningIssuer{Name: name, Keys: []api.SigningKey{}, Profiles: []api.SigningProfile{}}
		for _, k := range s.parts.Load().ssh.of[name] {
			key := api.SigningKey{KeyID: k.Authority.ID(), Subject: "SSH " + ssh.FingerprintSHA256(k.Authority.PublicKey())}
			if t, ok := sshca.KeyTypeOf(k.Authority.PublicKey()); ok {
				key.KeyType = string(t)
			}
			is.Keys = append(is.Keys, s.keyStats(key, k.Retired))
		}
		for _, profile := range slices.Sorted(maps.Keys(c.Profiles)) {
			if p := c.Profiles[profile]; p.Issuer == name {
				is.Profiles = append(is.Profiles, api.SigningProfile{
					Name: profile, Lifetime: time.Duration(p.Lifetime).Seconds(), Revocation: string(p.Revocation),
				})
			}
		}
		all = append(all, is)
	}
	return all
}

// keyType names the kind of a CA's key.
func keyType(c *x509.Certificate) string {
	if t, ok := issuer.KeyTypeOf(c.PublicKey); ok {
		return string(t)
	}
	return c.PublicKeyAlgorithm.String()
}

func (s *Server) signingKey(c *x509.Certificate, sc config.Signer) api.SigningKey {
	k := api.SigningKey{
		KeyID: keyID(c), Subject: c.Subject.String(), KeyType: keyType(c), NotAfter: c.NotAfter.UTC(),
	}
	return s.keyStats(k, sc.Retired)
}

// keyStats adds what the key's queue knows.
func (s *Server) keyStats(k api.SigningKey, retired bool) api.SigningKey {
	k.State = keyRemote
	if retired {
		k.State = keyRetired
	}
	queue, uris := s.keys.find(k.KeyID)
	if queue == nil {
		return k
	}
	stats := queue.Stats()
	k.URIs, k.Signature, k.Parallel, k.Reason = uris, stats.Mean.Seconds(), stats.Parallel, stats.Away
	switch {
	case stats.Away != "":
		k.State = keyAway
	case !retired:
		k.State = keyReady
	}
	k.Waiting, k.Signed = map[string]int{}, map[string]uint64{}
	for class := range schedule.Classes {
		k.Waiting[class.String()], k.Signed[class.String()] = stats.Waiting[class], stats.Signed[class]
	}
	return k
}

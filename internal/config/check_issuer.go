package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

func (k *checker) issuer(path, name string, is Issuer) {
	if len(is.Signers) == 0 {
		k.fail(path+".signers", "an issuer needs at least one signer: a key and its CA certificate")
	}
	keys := map[string]string{}
	retired := 0
	for i, s := range is.Signers {
		k.signer(fmt.Sprintf("%s.signers[%d]", path, i), is, s, keys)
		if s.Retired {
			retired++
		}
	}
	k.publishingURL(path+".crl_url", is.CRLURL)
	k.publishingURL(path+".ocsp_url", is.OCSPURL)
	k.publishingURL(path+".aia_url", is.AIAURL)
	// A third of this passes between lists of every key, each a signature.
	k.span(path+".crl.validity", is.CRL.Validity, time.Minute, 30*day)
	// Relying parties don't believe older ones (CA/Browser Forum: 10 days).
	k.span(path+".ocsp.validity", is.OCSP.Validity, time.Minute, 10*day)
	if is.CRL.Shards > 256 {
		k.fail(path+".crl.shards", "%d is not between 1 and 256", is.CRL.Shards)
	}
	if is.CRL.Shards > 0 && is.CRLURL == "" {
		k.warn(path+".crl.shards", "there is no crl_url, so no certificate points to a part")
	}
	k.revocation(path, name, is, retired == len(is.Signers))
}

// revocation holds what the issuer publishes against what the certificates of
// its profiles say.
func (k *checker) revocation(path, name string, is Issuer, retired bool) {
	used, withCRL, withOCSP := false, false, false
	for _, p := range k.c.Profiles {
		if p.Issuer == name {
			used = true
			withCRL = withCRL || p.Revocation.CRL()
			withOCSP = withOCSP || p.Revocation.OCSP()
		}
	}
	switch {
	case !used && !retired:
		k.warn(path, "no profile is signed by this issuer")
	case !used: // the one before, whose certificates live on
	case retired && len(is.Signers) > 0:
		k.fail(path+".signers", "all of them are retired, and profiles are signed by this issuer")
	default:
		if is.CRLURL != "" && !withCRL {
			k.warn(path+".crl_url", "no profile of this issuer has revocation crl, so no certificate points there")
		}
		if is.OCSPURL != "" && !withOCSP {
			if !withCRL {
				k.fail(path+".ocsp_url", "every profile of this issuer has revocation none, whose certificates say that nobody is to be asked; leave out ocsp_url, or use revocation ocsp")
			} else {
				k.warn(path+".ocsp_url", "no profile of this issuer has revocation ocsp, so no certificate points there")
			}
		}
	}
}

// signer checks one signer; keys are the key URIs of the issuer so far, and
// where they stood.
func (k *checker) signer(path string, is Issuer, s Signer, keys map[string]string) {
	k.signerKeys(path, s, keys)
	if s.Certificate == "" {
		k.fail(path+".certificate", "the file of the key's CA certificate is wanted")
	}
	if r := s.OCSPResponder; r != (OCSPResponder{}) {
		k.ocspResponder(path+".ocsp_responder", is, r, keys)
	}
}

func (k *checker) ocspResponder(at string, is Issuer, r OCSPResponder, keys map[string]string) {
	if r.Key != "" {
		k.key(at+".key", r.Key, keys)
	}
	k.secrets(at, slices.DeleteFunc([]string{r.Key}, func(s string) bool { return s == "" }), r.PasswordFile, r.PINFile)
	if r.Certificate == "" {
		k.fail(at+".certificate", "the file of the responder's certificate is wanted; make it with: chanceryd ca create --ocsp-responder")
	}
	if is.OCSPURL == "" {
		k.warn(at, "this issuer has no ocsp_url, so nobody is sent to this responder")
	}
}

// signerKeys checks where a signer's key is, and what opens it.
func (k *checker) signerKeys(path string, s Signer, keys map[string]string) {
	switch {
	case s.Key != "" && len(s.Keys) > 0:
		k.fail(path+".keys", "key and keys exclude each other; put all of them into keys")
	case s.Key != "":
		k.key(path+".key", s.Key, keys)
	}
	for i, uri := range s.Keys {
		at := fmt.Sprintf("%s.keys[%d]", path, i)
		k.key(at, uri, keys)
		if strings.HasPrefix(uri, "file:") {
			k.fail(at, "keys is for tokens that hold one key; a key in a file signs as fast as the machine can, so give it alone as key")
		}
	}
	uris := s.Keys
	if s.Key != "" {
		uris = []string{s.Key}
	}
	k.secrets(path, uris, s.PasswordFile, s.PINFile)
}

// key checks one key's URI, and that the issuer doesn't have it twice.
func (k *checker) key(path, uri string, keys map[string]string) {
	if strings.Contains(uri, "PRIVATE KEY") {
		k.fail(path, "a key doesn't belong into this file; name the file that holds it, as in \"file:ca/servers.key\"")
		return
	}
	canonical, err := k.c.canonicalKey(uri)
	if err != nil {
		k.fail(path, "%v", err)
		return
	}
	if other, ok := keys[canonical]; ok {
		k.fail(path, "this is the key of %s too", strings.TrimSuffix(other, ".key"))
		return
	}
	keys[canonical] = path
}

// canonicalKey checks that a URI can name a key, and returns the same text for
// all ways to write it; whether there is such a key shows when it is opened.
func (c *Config) canonicalKey(uri string) (string, error) {
	if err := signer.CheckURI(uri); err != nil {
		return "", err
	}
	switch {
	case strings.HasPrefix(uri, "pkcs11:"):
		u, err := pkcs11.ParseURI(uri)
		return u.String(), err
	case strings.HasPrefix(uri, "yubikey:"):
		u, err := yubikey.ParseURI(uri)
		return u.String(), err
	}
	return c.KeyURI(uri), nil
}

// secrets checks that passwords go with files and PINs with tokens.
func (k *checker) secrets(path string, uris []string, passwordFile, pinFile string) {
	isFile := func(uri string) bool { return strings.HasPrefix(uri, "file:") }
	isToken := func(uri string) bool { return !isFile(uri) }
	if passwordFile != "" && !slices.ContainsFunc(uris, isFile) {
		k.fail(path+".password_file", "a password is for an encrypted key in a file; a token's PIN goes into pin_file")
	}
	if pinFile != "" && !slices.ContainsFunc(uris, isToken) {
		k.fail(path+".pin_file", "a PIN is for a token; the password of an encrypted key file goes into password_file")
	}
	for _, uri := range uris {
		if pinFile != "" && strings.Contains(uri, "pin-source=") {
			k.fail(path+".pin_file", "the key's URI names a pin-source too; keep one of them")
		}
	}
}

// httpsOnly are the top-level domains under which browsers take every http
// URL for https, whatever the server says: the entries of policy
// "public-suffix" in Chromium's net/http/transport_security_state_static.json,
// from which the other browsers' lists are made, and the rest of those that
// Google Registry documents as HTTPS-only.
var httpsOnly = []string{
	"android", "app", "bank", "boo", "channel", "chrome", "dad", "day", "dev", "eat", "esq", "fly", "foo", "gle", "gmail",
	"google", "hangout", "ing", "insurance", "meet", "meme", "mov", "new", "nexus", "page", "phd", "play", "prof", "rsvp",
	"search", "youtube", "zip",
}

func (k *checker) publishingURL(path, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.RawQuery != "":
		k.fail(path, "%q is not an http URL", value)
	case u.Scheme == "https":
		k.fail(path, "use http: what is fetched is signed, and who checks a certificate can't be asked to check another one first")
	default:
		host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		if tld := host[strings.LastIndexByte(host, '.')+1:]; slices.Contains(httpsOnly, tld) {
			k.warn(path, "browsers force https for every name under .%s, so that those that check revocation can't reach this http URL; use another domain", tld)
		}
	}
}

// keepAfterExpiry checks that a withdrawn certificate is on at least one list
// made after its end (RFC 5280 section 3.3).
func (k *checker) keepAfterExpiry() {
	least := span(day)
	for _, is := range k.c.Issuers {
		if is.CRLURL != "" {
			least = max(least, is.CRL.Validity)
		}
	}
	if keep := k.c.Certificates.KeepAfterExpiry; keep < least {
		k.fail("certificates.keep_after_expiry", "this is %s; a withdrawn certificate must outlast the last CRL that lists it, so at least %s", keep, least)
	}
}

func (k *checker) signing() {
	s := k.c.Signing
	// Something must be left for new certificates.
	if sum := s.Renewal + s.OCSP + s.CRL; sum > 0.9901 {
		k.fail("signing", "renewal, ocsp and crl add up to %s; leave at least 1%% for new certificates", sum)
	}
	k.between("signing.max_waiting", s.MaxWaiting, 1, 1_000_000)
	k.span("signing.stuck", s.Stuck, time.Second, 10*time.Minute)
}

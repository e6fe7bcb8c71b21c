package config

import (
	"strings"
	"testing"
)

// revocable is a configuration with revocation of both kinds and every kind
// of signer, about which there is nothing to say either.
const revocable = `external_url: https://ca.internal
tls: {profile: server}
publish:
  listen: ":80"
  crls: [root/root.crl]
signing: {renewal: 30%, ocsp: 4.5%, crl: 0.5%, max_waiting: 100, stuck: 5s}
issuers:
  main:
    crl_url: http://crl.internal
    ocsp_url: http://ocsp.internal:8080/
    crl: {shards: 16, validity: 2d}
    ocsp: {validity: 4h}
    signers:
      - keys: ["pkcs11:token=a;serial=1;object=k", "pkcs11:token=a;serial=2;object=k"]
        pin_file: pin
        certificate: ca/1.pem
      - key: yubikey:serial=12345678;slot=9c
        pin_file: pin
        certificate: ca/2.pem
        ocsp_responder: {key: file:ca/2-ocsp.key, password_file: pw, certificate: ca/2-ocsp.pem}
      - certificate: ca/3.pem # on another replica
      - key: file:ca/4.key
        certificate: ca/4.pem
        retired: true
      - {certificate: ca/5.pem, retired: true}
profiles:
  server: {issuer: main, usages: [server], revocation: crl+ocsp, max_lifetime: 90d}
directories:
  servers:
    profiles: [server]
    names: {allow: ["*.prod.internal"]}
`

// Like TestCheck, on the configuration with all kinds of signers.
func TestCheckSigners(t *testing.T) {
	if found := Check(parse(t, revocable)); len(found) > 0 {
		t.Fatal(found.Error())
	}
	for _, c := range []struct{ name, edit, want string }{
		{"key and keys", "- keys: => - key: file:x\n        keys:", ":15:9: issuers.main.signers[0].keys: key and keys exclude each other"},
		{"files as tokens", `"pkcs11:token=a;serial=2;object=k"] => "file:x"]`, ":14:52: issuers.main.signers[0].keys[1]: keys is for tokens"},
		{"token twice", "serial=2 => serial=1", ":14:52: issuers.main.signers[0].keys[1]: this is the key of issuers.main.signers[0].keys[0] too"},
		{"key of another signer", "file:ca/4.key => yubikey:serial=12345678;slot=9c", ":22:14: issuers.main.signers[3].key: this is the key of issuers.main.signers[1] too"},
		{"responder with the CA's key", "file:ca/2-ocsp.key => yubikey:serial=12345678;slot=9c", "issuers.main.signers[1].ocsp_responder.key: this is the key of issuers.main.signers[1] too"},
		{"PIN in the URI", "serial=1;object=k => serial=1;object=k?pin-value=1234", "issuers.main.signers[0].keys[0]: "},
		{"bad token URI", "pkcs11:token=a;serial=1;object=k => pkcs11:token=a;token=b", "issuers.main.signers[0].keys[0]: "},
		{"bad slot", "slot=9c => slot=9b", "issuers.main.signers[1].key: "},
		{"PIN of a file", "key: file:ca/4.key => key: file:ca/4.key\n        pin_file: pin", "issuers.main.signers[3].pin_file: a PIN is for a token"},
		{"password of a token", "slot=9c\n        pin_file => slot=9c\n        password_file", "issuers.main.signers[1].password_file: a password is for an encrypted key in a file"},
		{"password of nothing", "{certificate: ca/5.pem, => {certificate: ca/5.pem, password_file: x,", "issuers.main.signers[4].password_file: "},
		{"two PIN sources", "serial=1;object=k => serial=1;object=k?pin-source=file:/pin", "issuers.main.signers[0].pin_file: the key's URI names a pin-source too"},
		{"remote without certificate", "- certificate: ca/3.pem # => - {} #", "issuers.main.signers[2].certificate: the file of the key's CA certificate is wanted"},
		{"responder without certificate", ", certificate: ca/2-ocsp.pem => ", "issuers.main.signers[1].ocsp_responder.certificate: "},
		{"responder for nobody", "    ocsp_url: http://ocsp.internal:8080/\n => ", "profiles.server.revocation: issuer \"main\" has no ocsp_url"},
		{"https OCSP", "http://ocsp.internal:8080/ => https://ocsp.internal", ":10:15: issuers.main.ocsp_url: use http"},
		{"OCSP with a query", "http://ocsp.internal:8080/ => http://ocsp.internal/?a", "issuers.main.ocsp_url: "},
		{"HTTPS-only domain", "http://crl.internal => http://crl.example.DEV.", "warning: issuers.main.crl_url: browsers force https for every name under .dev"},
		{"none, and OCSP", "revocation: crl+ocsp, max_lifetime: 90d => revocation: none", ":10:15: issuers.main.ocsp_url: every profile of this issuer has revocation none"},
		{"OCSP for nobody", "crl+ocsp => crl", "warning: issuers.main.ocsp_url: no profile of this issuer has revocation ocsp"},
		{"CRL for nobody", "crl+ocsp => ocsp", "warning: issuers.main.crl_url: no profile of this issuer has revocation crl"},
		{"many shards", "shards: 16 => shards: 257", ":11:19: issuers.main.crl.shards: 257 is not between 1 and 256"},
		{"long list", "validity: 2d => validity: 31d", "issuers.main.crl.validity: 31d is not between 1m and 30d"},
		{"list outlives the certificates", "validity: 2d => validity: 14d", "certificates.keep_after_expiry: this is 7d; a withdrawn certificate must outlast the last CRL that lists it, so at least 14d"},
		{"short responses", "validity: 4h => validity: 59s", "issuers.main.ocsp.validity: 59s is not between 1m and 10d"},
		{"long responses", "validity: 4h => validity: 11d", "issuers.main.ocsp.validity: 11d is not between 1m and 10d"},
		{"nothing for issuance", "renewal: 30% => renewal: 95%", ":6:1: signing: renewal, ocsp and crl add up to 100%"},
		{"queue", "max_waiting: 100 => max_waiting: 1000001", "signing.max_waiting: "},
		{"stuck", "stuck: 5s => stuck: 11m", "signing.stuck: 11m is not between 1s and 10m"},
		{"lists twice", "[root/root.crl] => [root/root.crl, root/root.crl]", ":5:25: publish.crls[1]: \"root/root.crl\" is listed twice"},
		{"lists not served", "  listen: \":80\"\n => ", "warning: publish.crls: there is no publish.listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, edited, _ := strings.Cut(c.edit, " => ")
			if strings.Count(revocable, old) == 0 {
				t.Fatalf("%q isn't in the configuration", old)
			}
			found := Check(parse(t, strings.Replace(revocable, old, edited, 1)))
			if !strings.Contains(found.Error(), c.want) {
				t.Fatalf("found:\n%s\nwant: %s", found.Error(), c.want)
			}
			if isWarning := strings.HasPrefix(c.want, "warning: "); isWarning != (len(found.Errors()) == 0) {
				t.Fatalf("an error and a warning mixed up:\n%s", found.Error())
			}
		})
	}
}

// After a rotation to a new root the old issuer stays for those that hold its
// certificates, and no profile is its.
func TestCheckRetired(t *testing.T) {
	old := "issuers:\n  old: {ocsp_url: http://a.internal, signers: [{key: file:old.key, certificate: old.pem, retired: true}]}\n"
	if found := Check(parse(t, strings.Replace(whole, "issuers:\n", old, 1))); len(found) > 0 {
		t.Error(found.Error())
	}
	found := Check(parse(t, strings.Replace(whole, "ca/main.pem\n", "ca/main.pem\n        retired: true\n", 1)))
	if !strings.Contains(found.Error(), ":6:5: issuers.main.signers: all of them are retired") {
		t.Error(found.Error())
	}
}

func TestShares(t *testing.T) {
	c := parse(t, whole)
	if s := c.Signing; s.Renewal != 0.35 || s.OCSP != 0.04 || s.CRL != 0.01 || s.MaxWaiting != 4096 || s.Stuck.String() != "30s" {
		t.Errorf("defaults: %+v", s)
	}
	for _, bad := range []string{"35", "35 %", "0%", "0.01%", "100%", "-1%", "+1%", "1e1%", "NaN%", "%", "0x10%"} {
		if err := new(Share).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for text, want := range map[string]Share{"35%": 0.35, "0.5%": 0.005, "99%": 0.99} {
		var s Share
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want || s.String() != text {
			t.Errorf("%q: %v (%s), %v", text, float64(s), s, err)
		}
	}
}

package yubikey

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
)

// issuersPEM is what Yubico publishes of the CAs that sign the certificates of
// slot f9: until firmware 5.7.4 one root for PIV (developers.yubico.com/PKI/
// yubico-ca-certs.txt); since then three intermediates for PIV below the Yubico
// Attestation Root 1 (yubico-intermediate.pem there). Those for FIDO, OpenPGP
// and secure channels below that root, and the root itself, are left out: what
// they sign is no PIV attestation. So is the U2F root, which some YubiKeys 4
// of 2018 have above them by a mistake in manufacture: their statements lack
// what is compared.
//
//go:embed issuers.pem
var issuersPEM []byte

// Issuers returns Yubico's pinned PIV issuers, for [Attestation.Verify].
func Issuers() []*x509.Certificate {
	var all []*x509.Certificate
	for block, rest := pem.Decode(issuersPEM); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic("yubikey: issuers.pem: " + err.Error()) // a test reads it
		}
		all = append(all, c)
	}
	return all
}

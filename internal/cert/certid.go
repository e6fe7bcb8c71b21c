package cert

import (
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// ParseCertID takes a certificate's identifier apart, base64url(AKI) "."
// base64url(serial) (RFC 9773 section 4.1): keyID is the hex of the authority
// key identifier. Error: malformed.
func ParseCertID(id string) (keyID string, serial Serial, err error) {
	malformed := protocol.NewProblem(protocol.Malformed,
		"not a certificate identifier: want base64url(authority key identifier) \".\" base64url(serial number) without padding (RFC 9773 section 4.1)")
	first, second, ok := strings.Cut(id, ".")
	if !ok || len(id) > 128 || strings.ContainsAny(id, "\r\n") { // which the decoder would leave out
		return "", "", malformed
	}
	strict := base64.RawURLEncoding.Strict()
	aki, err1 := strict.DecodeString(first)
	number, err2 := strict.DecodeString(second)
	if err1 != nil || err2 != nil || len(aki) == 0 || len(number) == 0 {
		return "", "", malformed
	}
	if len(number) > 1 && number[0] == 0 && number[1]&0x80 != 0 { // DER's sign octet
		number = number[1:]
	}
	return hex.EncodeToString(aki), Serial(hex.EncodeToString(number)), nil
}

// Replaced is the serial of the certificate that an order replaces (RFC 9773
// section 5), "" for none.
func Replaced(o protocol.Order) Serial {
	if o.Replaces == "" {
		return ""
	}
	_, serial, err := ParseCertID(o.Replaces)
	if err != nil { // it was parsed when the order was made
		return ""
	}
	return serial
}

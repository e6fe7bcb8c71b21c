package pkcs11

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	slot := uint64(327)
	for text, want := range map[string]URI{
		// RFC 7512 section 3, adapted to private keys.
		"pkcs11:":                              {},
		"pkcs11:object=my-pubkey;type=private": {Object: "my-pubkey"},
		"pkcs11:slot-id=327;type=private":      {SlotID: &slot},
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;object=my": {Token: "The Software PKCS#11 Softtoken", Object: "my"},
		"pkcs11:id=%69%95%3E%5C%F4%BD%EC%91":                            {ID: []byte("\x69\x95\x3e\x5c\xf4\xbd\xec\x91")},
		"pkcs11:id=%00":                                                 {ID: []byte{0}},
		"pkcs11:token=a?module-path=/usr/lib/x.so":                      {Token: "a", ModulePath: "/usr/lib/x.so"},
		"pkcs11:?module-name=softhsm2&pin-source=file:/etc/token_pin":   {ModuleName: "softhsm2", PINSource: "/etc/token_pin"},
		"pkcs11:?pin-source=file:///etc/token_pin":                      {PINSource: "/etc/token_pin"},
		"pkcs11:?pin-source=file%3A%2Fetc%2Fa%20b":                      {PINSource: "/etc/a b"},
		"pkcs11:token=a=b&c:d;serial=1":                                 {Token: "a=b&c:d", Serial: "1"},
		// What p11tool --list-token-urls prints.
		"pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=f5a2;token=ca": {Model: "SoftHSM v2", Manufacturer: "SoftHSM project", Serial: "f5a2", Token: "ca"},
		// Padding of CK_TOKEN_INFO doesn't count.
		"pkcs11:token=ca%20%20":                {Token: "ca"},
		"pkcs11:object=%C3%A4":                 {Object: "ä"},
		"pkcs11:token=a?chancery-parallel=4":   {Token: "a", Parallel: 4},
		"pkcs11:object=ends%20with%20space%20": {Object: "ends with space "},
	} {
		got, err := ParseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", text, got, want)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        `"pkcs11:"`,
		"file:/x":                                 `"pkcs11:"`,
		"PKCS11:token=a":                          `"pkcs11:"`,
		"pkcs11:token":                            "attribute=value",
		"pkcs11:token=a;":                         "attribute=value",
		"pkcs11:;token=a":                         "attribute=value",
		"pkcs11:=a":                               "attribute=value",
		"pkcs11:to%6ben=a":                        "attribute=value",
		"pkcs11:token=a;token=b":                  "twice", // RFC 7512 section 2.3
		"pkcs11:token=a;token=a":                  "twice",
		"pkcs11:token=":                           "empty token",
		"pkcs11:token=%20":                        "empty token",
		"pkcs11:token=my ca":                      "%20",
		"pkcs11:token=a/b":                        "%2F", // allowed in the query only
		"pkcs11:token=a\x00":                      "%00",
		"pkcs11:token=ä":                          "%C3",
		"pkcs11:token=a%00b":                      "UTF-8",
		"pkcs11:token=%ff":                        "UTF-8",
		"pkcs11:token=%2":                         "%XX",
		"pkcs11:token=%zz":                        "%25",
		"pkcs11:token=100%":                       "%XX",
		"pkcs11:token=%+1":                        "%25",
		"pkcs11:serial=12345678901234567":         "over 16 bytes",
		"pkcs11:model=12345678901234567":          "over 16 bytes",
		"pkcs11:token=" + strings.Repeat("a", 33): "over 32 bytes",
		"pkcs11:object=" + strings.Repeat("a", 256):       "over 255 bytes",
		"pkcs11:id=" + strings.Repeat("%00", 256):         "over 255 bytes",
		"pkcs11:object=" + strings.Repeat("a", 3000):      "over 2048",
		"pkcs11:slot-id=-1":                               "decimal",
		"pkcs11:slot-id=0x1":                              "decimal",
		"pkcs11:slot-id=01":                               "decimal",
		"pkcs11:slot-id=99999999999999999999":             "decimal",
		"pkcs11:type=public":                              "type=private",
		"pkcs11:type=cert":                                "type=private",
		"pkcs11:library-version=3":                        "library-version",
		"pkcs11:x-vendor=1":                               "x-vendor",
		"pkcs11:pin-value=1234":                           "pin-value",
		"pkcs11:token=a?pin-value=1234":                   "secret",
		"pkcs11:?pin-source=/etc/pin":                     "file:/path",
		"pkcs11:?pin-source=file:pin":                     "file:/path",
		"pkcs11:?pin-source=file://host/pin":              "file:/path",
		"pkcs11:?pin-source=|/usr/bin/pin":                "commands",
		"pkcs11:?module-path=softhsm.so":                  "absolute",
		"pkcs11:?module-name=../x":                        "module-path",
		"pkcs11:?module-name=a&module-path=/b":            "keep one",
		"pkcs11:?module-path=/a;pin-source=file:/b":       "%3B", // & separates there
		"pkcs11:?chancery-parallel=0":                     "1 to 64",
		"pkcs11:?chancery-parallel=65":                    "1 to 64",
		"pkcs11:?chancery-parallel=+1":                    "1 to 64",
		"pkcs11:?other=1":                                 "other",
		"pkcs11:token=a?module-path=/a?pin-source=file:/": "",
	} {
		u, err := ParseURI(text)
		if want == "" {
			// A second question mark is a character of the value.
			if err != nil || u.ModulePath != "/a?pin-source=file:/" {
				t.Errorf("%s: %+v, %v", text, u, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "1234") && strings.Contains(text, "pin-value") {
			t.Errorf("%s: the error shows the PIN: %v", text, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"pkcs11:", "pkcs11:token=ca;serial=1;manufacturer=m;model=x;slot-id=3;object=k;id=%01%ff;type=private?module-path=/m.so&pin-source=file:/pin&chancery-parallel=2",
		"pkcs11:?module-name=softhsm2", "pkcs11:token=%20a%20", "pkcs11:id=%", "pkcs11:a=b?c=d", "pkcs11:?pin-source=file:////x", "pkcs11:object=%25",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		again, err := ParseURI(u.String())
		if err != nil {
			t.Fatalf("%q gave %q, which doesn't parse: %v", s, u.String(), err)
		}
		if !reflect.DeepEqual(u, again) {
			t.Fatalf("%q gave %q:\n got %+v\nwant %+v", s, u.String(), again, u)
		}
		if len(u.Token) > maxLabel || len(u.ID) > maxID || bytes.ContainsRune([]byte(u.ModulePath+u.PINSource), 0) {
			t.Fatalf("%q is out of bounds: %+v", s, u)
		}
	})
}

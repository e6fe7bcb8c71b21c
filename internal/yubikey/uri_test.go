package yubikey_test

import (
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

func TestParseURI(t *testing.T) {
	for _, c := range []struct {
		text string
		want yubikey.URI
	}{
		{"yubikey:serial=12345678;slot=9c", yubikey.URI{Serial: 12345678, Slot: yubikey.Signature}},
		{"yubikey:slot=9a;serial=4294967295", yubikey.URI{Serial: 4294967295, Slot: yubikey.Authentication}},
		{"yubikey:serial=0042;slot=9D", yubikey.URI{Serial: 42, Slot: yubikey.KeyManagement}},
		{"yubikey:slot=9e", yubikey.URI{Slot: yubikey.CardAuthentication}},
		{"yubikey:slot=82", yubikey.URI{Slot: 0x82}},
		{"yubikey:slot=95", yubikey.URI{Slot: 0x95}},
	} {
		got, err := yubikey.ParseURI(c.text)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", c.text, got, err, c.want)
		}
		if again, err := yubikey.ParseURI(got.String()); err != nil || again != got {
			t.Errorf("%s: prints as %s, which is %v, %v", c.text, got, again, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "write yubikey:"},
		{"pkcs11:slot=9c", "write yubikey:"},
		{"YUBIKEY:slot=9c", "write yubikey:"},
		{"yubikey:" + strings.Repeat(";", 200), "write yubikey:"},
		{"yubikey:", `attribute ""`},
		{"yubikey:serial=1", "no slot"},
		{"yubikey:serial=1;slot=9c;", `attribute ""`},
		{"yubikey:slot=9b", "82 to 95"}, // the management key
		{"yubikey:slot=f9", "82 to 95"}, // the attestation key
		{"yubikey:slot=81", "82 to 95"},
		{"yubikey:slot=96", "82 to 95"},
		{"yubikey:slot=0x9c", "82 to 95"},
		{"yubikey:slot=", "82 to 95"},
		{"yubikey:slot=9c;slot=9c", "twice"},
		{"yubikey:serial=1;serial=2;slot=9c", "twice"},
		{"yubikey:serial=0;slot=9c", "printed on the card"},
		{"yubikey:serial=-1;slot=9c", "printed on the card"},
		{"yubikey:serial=+1;slot=9c", "printed on the card"},
		{"yubikey:serial=;slot=9c", "printed on the card"},
		{"yubikey:serial=4294967296;slot=9c", "printed on the card"},
		{"yubikey:slot=9c;pin=246813", "doesn't belong"},
		{"yubikey:slot=9c;pin-value=246813", "doesn't belong"},
		{"yubikey:slot=9c;object=x", `attribute "object"`},
	} {
		_, err := yubikey.ParseURI(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "246813") {
			t.Errorf("%s: the error tells the PIN: %v", c.text, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("yubikey:serial=12345678;slot=9c")
	f.Add("yubikey:slot=82;pin-value=1")
	f.Add("yubikey:;;=;slot")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := yubikey.ParseURI(text)
		if err != nil {
			return
		}
		if again, err := yubikey.ParseURI(u.String()); err != nil || again != u {
			t.Errorf("%q: %v prints as %s, which is %v, %v", text, u, u, again, err)
		}
	})
}

func TestPolicyNames(t *testing.T) {
	for p := yubikey.PINNever; p <= yubikey.PINMatchAlways; p++ {
		if got, err := yubikey.ParsePINPolicy(p.String()); got != p || err != nil {
			t.Errorf("PIN policy %s: %v, %v", p, got, err)
		}
	}
	for p := yubikey.TouchNever; p <= yubikey.TouchCached; p++ {
		if got, err := yubikey.ParseTouchPolicy(p.String()); got != p || err != nil {
			t.Errorf("touch policy %s: %v, %v", p, got, err)
		}
	}
	if _, err := yubikey.ParsePINPolicy("sometimes"); err == nil {
		t.Error("an unknown PIN policy was taken")
	}
	if _, err := yubikey.ParseTouchPolicy("once"); err == nil {
		t.Error("an unknown touch policy was taken")
	}
}

func TestFormFactor(t *testing.T) {
	for f, want := range map[yubikey.FormFactor]string{
		0: "unknown", 1: "USB-A Keychain", 4: "USB-C Nano", 0x83: "USB-C Keychain FIPS", 0x45: "USB-C/Lightning Keychain CSPN", 0x1f: "FormFactor(0x1f)",
	} {
		if f.String() != want {
			t.Errorf("%#x: %q, want %q", byte(f), f, want)
		}
	}
}

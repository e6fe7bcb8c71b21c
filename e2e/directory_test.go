package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// directory is what an ACME directory says (RFC 8555, 7.1.1).
type directory struct {
	NewNonce, NewAccount, NewOrder, NewAuthz, RevokeCert, KeyChange, RenewalInfo string

	Meta *struct {
		TermsOfService          string
		Profiles                map[string]string
		ExternalAccountRequired bool
	}
}

func readDirectory(w *harness.World, ca *harness.CA, url string) directory {
	w.Helper()
	res, err := ca.HTTPClient().Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	var d directory
	if err := json.NewDecoder(res.Body).Decode(&d); err != nil {
		w.Fatal(err)
	}
	return d
}

// profileOf is the name of a profile that the directory for servers offers.
func profileOf(w *harness.World, ca *harness.CA) string {
	w.Helper()
	d := readDirectory(w, ca, ca.Directory)
	if d.Meta == nil || len(d.Meta.Profiles) == 0 {
		w.Fatal("the directory offers no profile")
	}
	return slices.Sorted(maps.Keys(d.Meta.Profiles))[0]
}

// base64key decodes the key of an external account binding.
func base64key(w *harness.World, key string) []byte {
	w.Helper()
	b, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		w.Fatal(err)
	}
	return b
}

package place

import (
	"path/filepath"
	"strings"
	"testing"
)

// Whatever profiles.ini says, the folders are absolute and few.
func FuzzProfiles(f *testing.F) {
	for _, seed := range []string{
		"", "[Profile0]\nPath=x\nIsRelative=1\n", "[Profile0]\nIsRelative=0\nPath=/x", "[Profile0]\r\nPath=../../etc\r\n[General]\nPath=y", "Path=\x00", "[",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, ini []byte) {
		all := profiles("/home/alice/.mozilla/firefox", ini)
		if len(all) > 100 {
			t.Errorf("%d profiles", len(all))
		}
		for _, p := range all {
			if !filepath.IsAbs(p) || p != filepath.Clean(p) || !strings.Contains(string(ini), "Path=") {
				t.Errorf("%q", p)
			}
		}
	})
}

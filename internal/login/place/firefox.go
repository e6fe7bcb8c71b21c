package place

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// browsers returns the NSS databases that are there: Chromium's and all its
// kin's, and one for each profile of Firefox, in the places where they,
// snaps and flatpaks of them keep theirs.
func (o Options) browsers() []string {
	var found []string
	add := func(dir string) {
		if info, err := os.Stat(filepath.Join(dir, "cert9.db")); err == nil && info.Mode().IsRegular() && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	homes := append([]string{o.Home}, glob(o.Home, "snap", "*", "current")...)
	homes = append(homes, glob(o.Home, "snap", "*", "common")...)
	homes = append(homes, glob(o.Home, ".var", "app", "*")...)
	add(filepath.Join(o.DataDir, "pki", "nssdb"))
	for _, home := range homes {
		add(filepath.Join(home, ".pki", "nssdb"))
		add(filepath.Join(home, "data", "pki", "nssdb")) // a flatpak's XDG_DATA_HOME
	}
	inis := []string{
		filepath.Join(o.ConfigDir, "mozilla", "firefox"), // since Firefox 147
		filepath.Join(o.Home, "Library", "Application Support", "Firefox"),
	}
	for _, home := range homes {
		inis = append(inis, filepath.Join(home, ".mozilla", "firefox"), filepath.Join(home, "config", "mozilla", "firefox"))
	}
	for _, dir := range inis {
		// What can't be read is as good as not there.
		if text, err := read(filepath.Join(dir, "profiles.ini")); err == nil {
			for _, profile := range profiles(dir, text) {
				add(profile)
			}
		}
	}
	return found
}

// glob is filepath.Glob in a folder whose own name is no pattern.
func glob(dir string, pattern ...string) []string {
	names, _ := filepath.Glob(filepath.Join(append([]string{escape(dir)}, pattern...)...)) // the patterns are well formed
	if len(names) > 100 {
		names = names[:100]
	}
	return names
}

func escape(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}

// profiles reads Firefox's profiles.ini, which lies in dir: sections called
// Profile and a number, with Path and IsRelative.
func profiles(dir string, ini []byte) []string {
	var all []string
	var path string
	var in, relative bool
	done := func() {
		if in && path != "" && len(all) < 100 {
			if relative {
				path = filepath.Join(dir, filepath.FromSlash(path))
			}
			if filepath.IsAbs(path) {
				all = append(all, filepath.Clean(path))
			}
		}
		path, relative = "", true
	}
	lines := bufio.NewScanner(bytes.NewReader(ini))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			done()
			in = strings.HasPrefix(line, "[Profile")
			continue
		}
		switch key, value, _ := strings.Cut(line, "="); key {
		case "Path":
			path = value
		case "IsRelative":
			relative = value != "0"
		}
	}
	done()
	return all
}

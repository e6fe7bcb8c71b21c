package config

import "slices"

// Diff returns a warning for each change that can't be made while the server
// runs, at its place in the new file: addresses that it listens on, the URL
// that its clients hold, and the database. All else is taken over at SIGHUP.
func Diff(old, new *Config) Problems {
	var found Problems
	for _, f := range []struct {
		path     string
		old, new any
	}{
		{"external_url", old.ExternalURL, new.ExternalURL},
		{"listen", old.Listen, new.Listen},
		{"database", old.database(), new.database()},
		{"metrics.listen", old.Metrics.Listen, new.Metrics.Listen},
		{"metrics.client_ca", old.Metrics.ClientCA == "", new.Metrics.ClientCA == ""},
		{"admin.socket", old.Path(old.Admin.Socket), new.Path(new.Admin.Socket)},
		{"admin.listen", old.Admin.Listen, new.Admin.Listen},
		{"publish.listen", old.Publish.Listen, new.Publish.Listen},
		{"signing", old.Signing, new.Signing}, // a key's queue outlives a reading of the file
	} {
		if f.old != f.new {
			found = append(found, new.source.problem(f.path, "this change takes effect at the next start only"))
		}
	}
	if !slices.Equal(old.TrustedProxies, new.TrustedProxies) && (len(old.TrustedProxies) == 0) != (len(new.TrustedProxies) == 0) {
		found = append(found, new.source.problem("trusted_proxies", "PROXY protocol is turned on or off at the next start only"))
	}
	for i := range found {
		found[i].Warning = true
	}
	return found
}

// database is the section with paths resolved, for comparing.
func (c *Config) database() Database {
	d := c.Database
	d.DSN, d.DSNFile = c.DatabasePath(d.DSN), c.Path(d.DSNFile)
	return d
}

// Package settings is the one file that tells cmd/chancery which CAs there
// are and what its user wants of them: config.yaml in the folder chancery of
// the user's configuration (XDG_CONFIG_HOME), or /etc/chancery/client.yaml of a
// machine. `chancery devices enroll` writes it; `chancery login` and the
// operators' verbs read it.
//
// It may import the standard library, goccy/go-yaml and the words (cert,
// protocol).
package settings

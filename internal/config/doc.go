// Package config reads the server's one YAML file. There is one struct per
// section; the comments of their fields are the manual, from which
// docs/configuration.md is made (go test ./internal/config -update).
//
//	c, err := config.Load("/etc/chancery/chancery.yaml") // reads, fills in defaults
//	for _, p := range config.Check(c) { ... }            // what contradicts itself
//	d, err := c.Directory("servers")                     // as internal/policy wants it
//
// The rules: an unknown key is an error with file, line and column, and so is
// a value that can't be; what is left out is safe; a secret is the path of a
// file or the name of an environment variable, never the value itself;
// relative paths start at the file's own folder. The file is plain YAML 1.2
// without anchors, aliases, tags and merge keys: they hide what is said, and
// some make a small file unfold into gigabytes.
//
// Check looks at the configuration alone. Whether files exist and who may
// read them is for `chanceryd check`, which calls it.
//
// The package may import internal/policy, internal/cert, internal/protocol,
// internal/signer and its kinds of keys (for the form of their URIs and the
// usual shares), and github.com/goccy/go-yaml (its lexer and parser; the values
// are put into the structs here, so that every one keeps its position).
package config

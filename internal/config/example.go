package config

import (
	_ "embed"
	"io"
	"strconv"
	"strings"
	"text/template"

	"github.com/chancery-pki/chancery/internal/cert"
)

// Example is what `chanceryd init` and the demo know when they write a
// configuration file.
type Example struct {
	Name        string // of the CA, for people
	ExternalURL string
	Listen      string // "" for the default
	Database    string
	AdminSocket string
	Metrics     string // address and port; "" for none
	Allow       []string
	Wildcards   bool
	Issuers     []ExampleIssuer
	SSH         bool   // SSH issuers, profiles for people and SSH hosts, and a directory for people
	Publish     string // where CRLs are served, with SSH: address and port
	PublishURL  string // where relying parties find it
	Kubernetes  string // the domain of the cluster that the server runs in, whose pods get certificates; "" for none

	// What only the demo and tests ask for.
	HTTPPort, TLSPort int      // 0 for the default
	Resolvers         []string // none for the system's
	Networks          []string // that validation may reach
	NoRateLimits      bool
	OpenClients       bool // the classic challenges prove for clients too
	Workloads         bool // a third directory, for those who are both
}

// ExampleIssuer is one issuer with the one profile that it signs.
type ExampleIssuer struct {
	Name    string
	Profile string
	Usage   cert.Usage
	Signers []Signer
	Chain   string   // "" for none
	Chains  []string // alternate ones
}

//go:embed example.yaml.tmpl
var exampleText string

// Write writes a commented configuration file, which Load takes and about
// which Check has nothing to say unless OpenClients is set.
func (e Example) Write(w io.Writer) error {
	t, err := template.New("chancery.yaml").Funcs(template.FuncMap{
		"quote": strconv.Quote, // every escape of it is one of YAML too
		"list": func(items []string) string {
			quoted := make([]string, len(items))
			for i, s := range items {
				quoted[i] = strconv.Quote(s)
			}
			return "[" + strings.Join(quoted, ", ") + "]"
		},
	}).Parse(exampleText)
	if err != nil {
		return err
	}
	return t.Execute(w, e)
}

// Directory is the directory in which the issuer's profile is offered.
func (i ExampleIssuer) Directory() string { return string(i.Usage) + "s" }

// workloads and legacy are directories that offer all profiles: for programs
// that are servers and clients, and for those that can't prove what they are.
const workloads, legacy = "workloads", "legacy"

// people is the directory of those who have a YubiKey.
const people = "people"

// Directories returns the directories' names, servers first.
func (e Example) Directories() []string {
	var names []string
	for _, usage := range []cert.Usage{cert.Server, cert.Client} {
		if len(e.ProfilesOf(string(usage)+"s")) > 0 {
			names = append(names, string(usage)+"s")
		}
	}
	if e.SSH {
		names = append(names, people)
	}
	if e.Workloads || e.Kubernetes != "" {
		names = append(names, workloads)
	}
	if e.Kubernetes != "" {
		names = append(names, legacy)
	}
	return names
}

// ProfilesOf returns the profiles that a directory offers.
func (e Example) ProfilesOf(directory string) []string {
	var names []string
	for _, i := range e.Issuers {
		if i.Directory() == directory || directory == workloads || directory == legacy {
			names = append(names, i.Profile)
		}
	}
	switch {
	case e.SSH && directory == people:
		return []string{"person", "ssh-user"}
	case e.SSH && directory == "servers":
		return append(names, "ssh-host")
	}
	return names
}

// ClientIssuer is the first issuer of client certificates.
func (e Example) ClientIssuer() string {
	for _, i := range e.Issuers {
		if i.Usage == cert.Client {
			return i.Name
		}
	}
	return ""
}

// ServerProfile is the one under which the server issues its own certificate.
func (e Example) ServerProfile() string {
	for _, i := range e.Issuers {
		if i.Usage == cert.Server {
			return i.Profile
		}
	}
	return ""
}

package acmeserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// directory is one directory made ready: its URLs and what never changes.
type directory struct {
	name          string
	meta          Meta
	prefix        string // of all its URLs: "https://HOST/acme/NAME/"
	accountPrefix string // what an account's URL begins with
	terms         string // URL of the terms of service
	index         string // the Link value that names the directory
	document      []byte // the directory object
}

// directoryObject is RFC 8555 section 7.1.1, with renewalInfo of RFC 9773
// section 4.
type directoryObject struct {
	NewNonce    string     `json:"newNonce"`
	NewAccount  string     `json:"newAccount"`
	NewOrder    string     `json:"newOrder"`
	NewAuthz    string     `json:"newAuthz"`
	RevokeCert  string     `json:"revokeCert"`
	KeyChange   string     `json:"keyChange"`
	RenewalInfo string     `json:"renewalInfo"`
	Meta        metaObject `json:"meta"` // always there: some clients can't do without
}

type metaObject struct {
	TermsOfService          string            `json:"termsOfService"`
	Website                 string            `json:"website,omitempty"`
	CAAIdentities           []string          `json:"caaIdentities,omitempty"`
	ExternalAccountRequired bool              `json:"externalAccountRequired"`
	Profiles                map[string]string `json:"profiles,omitempty"`          // name to URL (profiles draft section 3)
	AccountHashPrefix       string            `json:"accountHashPrefix,omitempty"` // draft-ietf-acme-dns-persist-02 section 4.1
	SSH                     *SSHMeta          `json:"ssh,omitempty"`               // ours: docs/SSH.md
}

func newDirectory(base, name string, meta Meta) *directory {
	d := &directory{
		name: name, meta: meta, prefix: base + "/acme/" + name + "/",
		terms: cmp.Or(meta.TermsOfService, base+"/terms/"+name),
	}
	d.accountPrefix = d.prefix + "account/"
	d.index = link(d.prefix+"directory", "index")
	o := directoryObject{
		NewNonce: d.prefix + "new-nonce", NewAccount: d.prefix + "new-account",
		NewOrder: d.prefix + "new-order", NewAuthz: d.prefix + "new-authz",
		RevokeCert: d.prefix + "revoke-cert", KeyChange: d.prefix + "key-change",
		RenewalInfo: d.prefix + "renewal-info",
		Meta: metaObject{
			TermsOfService: d.terms, Website: meta.Website, CAAIdentities: meta.CAAIdentities,
			ExternalAccountRequired: meta.ExternalAccountRequired, Profiles: make(map[string]string, len(meta.Profiles)),
			AccountHashPrefix: meta.AccountHashPrefix, SSH: meta.SSH,
		},
	}
	for _, p := range meta.Profiles {
		o.Meta.Profiles[p.Name] = d.prefix + "profile/" + url.PathEscape(p.Name)
	}
	// Strings, booleans, and lists and maps of strings always encode.
	d.document, _ = json.MarshalIndent(o, "", "  ")
	return d
}

// The URLs of the other resources.

func (d *directory) accountURL(id protocol.AccountID) string { return d.accountPrefix + string(id) }

func (d *directory) orderURL(id protocol.OrderID) string { return d.prefix + "order/" + string(id) }

func (d *directory) authorizationURL(id protocol.AuthorizationID) string {
	return d.prefix + "authz/" + string(id)
}

func (d *directory) challengeURL(id protocol.AuthorizationID, t protocol.ChallengeType) string {
	return d.prefix + "challenge/" + string(id) + "/" + string(t)
}

func (d *directory) certificateURL(serial string) string { return d.prefix + "certificate/" + serial }

// AccountURL makes the URL of an account, as the Server with this BaseURL
// hands it out: proofs that name accounts (ca.Directory.AccountURL) need it.
func AccountURL(baseURL, directory string, id protocol.AccountID) string {
	return strings.TrimSuffix(baseURL, "/") + "/acme/" + directory + "/account/" + string(id)
}

// ChallengeURL makes the URL of a challenge, as the Server with this BaseURL
// has it: a device's answer is bound to it.
func ChallengeURL(baseURL, directory string, id protocol.AuthorizationID, t protocol.ChallengeType) string {
	return strings.TrimSuffix(baseURL, "/") + "/acme/" + directory + "/challenge/" + string(id) + "/" + string(t)
}

// DirectoryURL makes the URL of a directory, as the Server with this BaseURL
// has it: tokens for kubernetes-01 are made for it.
func DirectoryURL(baseURL, directory string) string {
	return strings.TrimSuffix(baseURL, "/") + "/acme/" + directory + "/directory"
}

func showDirectory(_ context.Context, q *request) (response, error) {
	return response{raw: q.dir.document}, nil
}

const plainText = "text/plain; charset=utf-8"

// showTerms is the page that meta.termsOfService names where the operator
// names none: clients ask their users to agree to something that can be read.
func showTerms(_ context.Context, q *request) (response, error) {
	text := "Terms of service of the ACME directory " + q.dir.prefix + "directory\n\n" +
		"This is a private certification authority; its operator has published no\n" +
		"further terms. Ask only for names that are yours, keep private keys private,\n" +
		"and have a certificate revoked when its key may be known to others.\n"
	return response{raw: []byte(text), contentType: plainText}, nil
}

// showProfile describes a profile to people (profiles draft section 3).
func showProfile(_ context.Context, q *request) (response, error) {
	for _, p := range q.dir.meta.Profiles {
		if url.PathEscape(p.Name) == q.id {
			return response{raw: describe(p), contentType: plainText}, nil
		}
	}
	return response{}, noSuch("profile")
}

func describe(p cert.Profile) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Profile %s\n\n", p.Name)
	if p.Description != "" {
		fmt.Fprintf(&b, "%s\n\n", p.Description)
	}
	fmt.Fprintf(&b, "Usage:     %s\n", join(p.Usages))
	fmt.Fprintf(&b, "Lifetime:  %v, or as asked for with notBefore and notAfter, at most %v\n", p.Lifetime, max(p.Lifetime, p.MaxLifetime))
	fmt.Fprintf(&b, "Keys:      %s\n", join(p.KeyTypes))
	fmt.Fprintf(&b, "Proof by:  %s\n", cmp.Or(join(p.Challenges), "an external account key with pre-approved names"))
	return []byte(b.String())
}

func join[T ~string](words []T) string {
	text := make([]string, len(words))
	for i, w := range words {
		text[i] = string(w)
	}
	return strings.Join(text, ", ")
}

package mtls

import (
	"context"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/prove"
)

// DNSProvider writes TXT records for [DNS01]. name is the record's full name
// without a final dot, value its content.
type DNSProvider interface {
	// Present adds the record beside others of that name and returns when the
	// zone's servers have it.
	Present(ctx context.Context, name, value string) error
	// CleanUp removes it. It is called for failed Presents too.
	CleanUp(ctx context.Context, name, value string) error
}

// DNS01 answers dns-01 (RFC 8555 section 8.4) through a provider.
func DNS01(provider DNSProvider) acme.Solver { return dns01{provider} }

type dns01 struct{ provider DNSProvider }

// Type returns acme.DNS01.
func (d dns01) Type() string { return acme.DNS01 }

// Present adds the proof's record.
func (d dns01) Present(ctx context.Context, proof acme.Proof) (any, error) {
	return nil, d.provider.Present(ctx, acme.DNS01Name(proof.Authorization.Identifier.Value), acme.DNS01Value(proof.KeyAuthorization))
}

// CleanUp removes it.
func (d dns01) CleanUp(ctx context.Context, proof acme.Proof) error {
	return d.provider.CleanUp(ctx, acme.DNS01Name(proof.Authorization.Identifier.Value), acme.DNS01Value(proof.KeyAuthorization))
}

// solvers are those for one CA, the preferred first.
func (id *Identity) solvers(ca CA) []acme.Solver {
	all := id.cfg.Proof.Solvers[:len(id.cfg.Proof.Solvers):len(id.cfg.Proof.Solvers)]
	kubernetes := prove.Kubernetes{Directory: ca.Directory, File: ca.TokenFile}
	if kubernetes.File == "" {
		kubernetes.File, kubernetes.CheckAudience = id.cfg.Proof.TokenFile, len(id.cfg.CAs) > 1
	}
	if kubernetes.File != "" {
		all = append(all, kubernetes)
	}
	if id.cfg.Usage != UsageClient && (!id.noALPN || id.cfg.Proof.ListenALPN != "") {
		all = append(all, &id.alpn)
	}
	if kubernetes.File == "" {
		all = append(all, kubernetes) // by the source address
	}
	return all
}

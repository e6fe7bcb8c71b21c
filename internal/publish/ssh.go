package publish

import (
	"strconv"
	"time"

	"github.com/chancery-pki/chancery/internal/responder/krl"
)

// Where hosts and people fetch what they need for SSH.
const (
	SSHPrefix       = "/ssh/"
	KRLPath         = SSHPrefix + "krl"
	signatureEnding = ".sig"
)

// SSH is what is served for relying parties of SSH certificates. The keys aren't
// signed: whoever begins to trust them here fetches them over HTTPS, where the
// server serves the same.
type SSH struct {
	KRL      func() *krl.List // the newest; nil until there is one
	UserKeys []byte           // lines as in authorized_keys, for TrustedUserCAKeys
	HostKeys []byte           // for known_hosts
}

const (
	// sshKeysFresh is how long caches may keep the CA keys. A new key is
	// published before it signs.
	sshKeysFresh = time.Hour
	// krlFresh is how long they may keep the KRL and its signature: a host
	// looks every few minutes, and must not wait for a day to see a revocation,
	// nor be given a list and another one's signature for long.
	krlFresh = 10 * time.Second
)

func (p *Publisher) addSSH(s *SSH) {
	p.ssh = s
	for path, keys := range map[string][]byte{"user_ca.pub": s.UserKeys, "host_ca.pub": s.HostKeys} {
		d := newDocument(keys, "ssh", "text/plain; charset=utf-8", time.Time{}, time.Time{})
		d.fresh = sshKeysFresh
		p.documents[SSHPrefix+path] = d
	}
}

// krl is the list, or its signature; both have one ETag, by which who fetched the
// two knows that they belong together.
func (p *Publisher) krl(path string) (d *document, known bool) {
	if p.ssh == nil {
		return nil, false
	}
	l := p.ssh.KRL()
	if l == nil {
		return nil, true
	}
	d = &document{
		resource: "krl", body: l.KRL, kind: "application/octet-stream", etag: `"` + strconv.FormatInt(l.Number, 10) + `"`,
		changed: l.Made, fresh: krlFresh,
	}
	if path != KRLPath {
		d.body, d.kind = l.Signature, "text/plain; charset=utf-8"
	}
	return d, true
}

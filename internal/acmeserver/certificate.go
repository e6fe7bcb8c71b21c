package acmeserver

import (
	"bytes"
	"context"
	"encoding/pem"
	"strconv"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// maxAlternates bounds the links to other chains; no root is cross-signed by
// more, and the number in the path has two digits at most.
const maxAlternates = 16

// sshCertificate is the type of an SSH certificate's one line (DESIGN section 6).
const sshCertificate = "application/vnd.chancery.ssh-certificate"

// showCertificate serves a chain in PEM, leaf first and without the root
// (RFC 8555 sections 7.4.2 and 9.1), whatever Accept asks for: other formats
// are optional, and clients that name them first take PEM too.
func showCertificate(ctx context.Context, q *request) (response, error) {
	serial, err := cert.ParseSerial(q.id)
	if err != nil {
		return response{}, noSuch("certificate")
	}
	alternate := 0
	if q.sub != "" {
		alternate, err = strconv.Atoi(q.sub)
		if err != nil || alternate < 1 || alternate > maxAlternates || q.sub != strconv.Itoa(alternate) {
			return response{}, noSuch("chain")
		}
	}
	chain, err := q.Authority.Certificate(ctx, q.who(), serial, alternate)
	if err != nil {
		return response{}, err
	}
	if chain.Format == cert.OpenSSH {
		line, err := sshca.CertificateLine(chain.Certificates[0])
		return response{raw: []byte(line), contentType: sshCertificate}, err
	}
	var text bytes.Buffer
	for _, der := range chain.Certificates {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return response{}, err
		}
	}
	answer := response{raw: text.Bytes(), contentType: "application/pem-certificate-chain"}
	url := q.dir.certificateURL(string(serial))
	for other := range min(chain.Alternates, maxAlternates) + 1 {
		switch {
		case other == alternate:
		case other == 0:
			answer.links = append(answer.links, link(url, "alternate"))
		default:
			answer.links = append(answer.links, link(url+"/"+strconv.Itoa(other), "alternate"))
		}
	}
	return answer, nil
}

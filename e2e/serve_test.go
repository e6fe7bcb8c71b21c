package e2e_test

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// served is the certificate that a server on port 443 shows for a name,
// verified by Go against the CA's root.
func served(w *harness.World, ca *harness.CA, name string) *x509.Certificate {
	w.Helper()
	cert, err := tryServed(w, ca, name)
	if err != nil {
		w.Fatalf("port 443 as %s: %v", name, err)
	}
	return cert
}

func tryServed(w *harness.World, ca *harness.CA, name string) (*x509.Certificate, error) {
	w.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.Read(ca.Root)))
	c, err := tls.Dial("tcp", "127.0.0.1:443", &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

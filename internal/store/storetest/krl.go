package storetest

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// testKRL: what a KRL names besides serials, and that compromised SSH certificates
// stay when others are swept away.
func testKRL(t *testing.T, f *fixture) {
	for n, state := range []protocol.DeviceState{protocol.DeviceActive, protocol.DeviceLost, protocol.DeviceRetired, protocol.DeviceLost} {
		d := protocol.Device{
			ID: protocol.NewID[protocol.DeviceID](f.Now().Add(time.Duration(n) * time.Second)), Owner: "anna", State: protocol.DeviceActive,
			Key: []byte{byte(n)}, KeyHash: string("0123"[n]) + "0", Serial: uint32(n), Slot: "9a", EnrolledAt: f.Now(),
		}
		f.update(func(tx *store.Tx) error { return tx.InsertDevice(d) })
		if state != protocol.DeviceActive {
			f.changed(true, func(tx *store.Tx) (bool, error) { return tx.EndDevice(d.ID, state) })
		}
	}
	equal(t, must(f.db.CountLostDevices(f.ctx())).or(t), 2)

	const key = "aa"
	issued := func(format cert.Format, body string, r cert.Reason) cert.Certificate {
		c := f.certificate("web.example")
		c.Format, c.IssuerKeyID, c.State, c.DER = format, key, cert.Issued, []byte(body)
		f.insertCertificate(c)
		if r >= 0 {
			f.changed(true, func(tx *store.Tx) (bool, error) {
				return tx.RevokeCertificate(c.Serial, cert.Revoked{At: tx.Now(), Reason: r})
			})
		}
		return c
	}
	stolen := issued(cert.OpenSSH, "stolen", cert.KeyCompromise)
	issued(cert.OpenSSH, "left", cert.CessationOfOperation)
	issued(cert.OpenSSH, "good", -1)
	issued(cert.X509, "stolen too", cert.KeyCompromise)
	if bodies := must(f.db.CompromisedCertificates(f.ctx(), key)).or(t); len(bodies) != 2 {
		t.Errorf("%q", bodies)
	}
	equal(t, len(must(f.db.CompromisedCertificates(f.ctx(), "bb")).or(t)), 0)
	f.Add(1000 * 24 * time.Hour)
	for n := 1; n > 0; {
		f.update(func(tx *store.Tx) (err error) { n, err = tx.SweepCertificates(f.Now(), 10); return err })
	}
	equal(t, f.serials(store.CertificateFilter{}), []cert.Serial{stolen.Serial})
	equal(t, must(f.db.CompromisedCertificates(f.ctx(), key)).or(t), [][]byte{[]byte("stolen")})
}

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// enrolment is what a card of the test's own sends.
func enrolment(t testing.TB) []byte {
	t.Helper()
	card, err := softcard.New(softcard.Options{Serial: 4711})
	if err != nil {
		t.Fatal(err)
	}
	key, err := card.Make(0x9a, softcard.P256, byte(yubikey.PINOnce), byte(yubikey.TouchAlways))
	if err != nil {
		t.Fatal(err)
	}
	a, err := yubikey.ParseAttestation(key.Statement, key.Device)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(api.NewDevice{Owner: "alice", Attestation: string(a.PEM()), Possession: []byte{1}, MadeAt: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What comes by mail is what attest writes, or refused.
func TestParseEnrolment(t *testing.T) {
	good := string(enrolment(t))
	d, err := parseEnrolment([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if a, hash, err := readAttestation(d); err != nil || a.Serial != 4711 || len(hash) != 64 {
		t.Errorf("%+v, %s, %v", a, hash, err)
	}
	for name, bad := range map[string]string{
		"nothing":            "",
		"a list":             "[]",
		"more":               good + "{}",
		"another field":      strings.Replace(good, "{", `{"colour":"blue",`, 1),
		"no owner":           strings.Replace(good, "alice", "", 1),
		"an owner to be":     strings.Replace(good, "alice", "Alice", 1),
		"a terminal's owner": strings.Replace(good, "alice", `\u001b[2J`, 1),
		"no possession":      strings.Replace(good, `"possession":"AQ=="`, `"possession":""`, 1),
	} {
		if d, err := parseEnrolment([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	d.Attestation = d.Attestation[:len(d.Attestation)/2]
	if _, _, err := readAttestation(d); err == nil {
		t.Error("half an attestation was read")
	}
}

func FuzzParseEnrolment(f *testing.F) {
	f.Add(enrolment(f))
	f.Add([]byte(`{"owner":"a","attestation":"x","possession":"AA==","made_at":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseEnrolment(data)
		if err != nil {
			return
		}
		if a, _, err := readAttestation(d); err == nil && (a.Statement == nil || a.Device == nil) {
			t.Errorf("%+v", a)
		}
	})
}

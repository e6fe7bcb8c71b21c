package sshca_test

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
)

// What ssh-keygen and we say of certificates and keys of two CAs that are revoked
// by one list, the other, both or none.
func TestMergeKRLs(t *testing.T) {
	one, two := newEd25519(), newEd25519()
	stolen, lost, good := public(newEd25519()), public(newEd25519()), public(newEd25519())
	first := must(sshca.ParseKRL(must(sshca.BuildKRL(sshca.Revocations{Version: 3, Generated: now, Keys: []ssh.PublicKey{stolen},
		Certificates: []sshca.RevokedCertificates{{CA: public(one), Serials: upTo(10, 20)}, {KeyIDs: []string{"mallory"}}}}))))
	second := must(sshca.ParseKRL(must(sshca.BuildKRL(sshca.Revocations{Version: 9, Generated: now.Add(-1), KeyHashes: [][32]byte{sshca.KRLHash(lost)},
		Certificates: []sshca.RevokedCertificates{{CA: public(one), Serials: []uint64{5}}, {CA: public(two), Serials: []uint64{11}}}}))))
	merged := must(sshca.MergeKRLs(first, second))
	if again := must(sshca.MergeKRLs(second, first, second)); !bytes.Equal(again, merged) {
		t.Error("the order matters")
	}
	k := must(sshca.ParseKRL(merged))
	if k.Version != 9 || !k.Generated.Equal(now) {
		t.Errorf("version %d of %v", k.Version, k.Generated)
	}
	dir := t.TempDir()
	writeFile(t, dir, "krl", merged)
	certificate := func(ca int, serial uint64, id string) ssh.PublicKey {
		r := request(good)
		r.Serial, r.KeyID = serial, id
		if ca == 1 {
			return issue(t, one, r)
		}
		return issue(t, two, r)
	}
	for name, c := range map[string]struct {
		key     ssh.PublicKey
		revoked bool
	}{
		"a key of the first":          {stolen, true},
		"a key of the second":         {lost, true},
		"a good key":                  {good, false},
		"a serial of the first":       {certificate(1, 15, "alice"), true},
		"a serial of the second":      {certificate(1, 5, "alice"), true},
		"the other CA's serial":       {certificate(2, 11, "alice"), true},
		"another CA's serial":         {certificate(2, 15, "alice"), false},
		"a key ID of any CA":          {certificate(2, 99, "mallory"), true},
		"a certificate of no concern": {certificate(1, 99, "alice"), false},
	} {
		writeFile(t, dir, "key.pub", ssh.MarshalAuthorizedKey(c.key))
		_, err := keygen(t, dir, "", "-Q", "-f", "krl", "key.pub")
		if ours := k.Revoked(c.key); ours != c.revoked || (err != nil) != c.revoked {
			t.Errorf("%s: revoked by us %v, by OpenSSH %v; want %v", name, ours, err != nil, c.revoked)
		}
	}
}

func TestMergeNothing(t *testing.T) {
	empty := must(sshca.MergeKRLs())
	dir := t.TempDir()
	writeFile(t, dir, "krl", empty)
	writeFile(t, dir, "key.pub", ssh.MarshalAuthorizedKey(public(newEd25519())))
	mustKeygen(t, dir, "", "-Q", "-f", "krl", "key.pub")
	if must(sshca.ParseKRL(empty)).Revoked(public(newEd25519())) {
		t.Error("it revokes a key")
	}
}

func TestMergeTooMuch(t *testing.T) {
	large := func(first string) *sshca.KRL {
		var ids []string
		for i := range 36_000 {
			ids = append(ids, fmt.Sprintf("%s%0999d", first, i))
		}
		return must(sshca.ParseKRL(must(sshca.BuildKRL(revocations(sshca.RevokedCertificates{KeyIDs: ids})))))
	}
	one, two := large("1"), large("2")
	if _, err := sshca.MergeKRLs(one, two); err == nil {
		t.Error("72 MB are taken")
	}
	if _, err := sshca.MergeKRLs(one, one); err != nil {
		t.Errorf("one list twice: %v", err)
	}
}

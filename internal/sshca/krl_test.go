package sshca_test

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
)

// str is RFC 4251's string, sect a section of a KRL.
func str(parts ...string) string {
	all := strings.Join(parts, "")
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(all)))) + all
}

func sect(kind byte, parts ...string) string { return string([]byte{kind}) + str(parts...) }

func u64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// header is PROTOCOL.krl section 1, with nothing special in it.
func header(version uint64) string {
	return "SSHKRL\n\x00" + "\x00\x00\x00\x01" + u64(version) + u64(uint64(now.Unix())) + u64(0) + str() + str("comment")
}

func revocations(certificates ...sshca.RevokedCertificates) sshca.Revocations {
	return sshca.Revocations{Version: 3, Generated: now, Comment: "comment", Certificates: certificates}
}

// The bytes that PROTOCOL.krl describes.
func TestKRLBytes(t *testing.T) {
	ca, key, other := public(newEd25519()), public(newEd25519()), public(newEd25519())
	blob := func(k ssh.PublicKey) string { return string(k.Marshal()) }
	scope := str(blob(ca)) + str()
	keys := []string{str(blob(key)), str(blob(other))}
	slices.Sort(keys)
	hash := sshca.KRLHash(key)
	for name, c := range map[string]struct {
		in   sshca.Revocations
		want string
	}{
		"nothing":          {revocations(), ""},
		"a CA, no entries": {revocations(sshca.RevokedCertificates{CA: ca}), ""},
		"2.1 serials":      {revocations(sshca.RevokedCertificates{CA: ca, Serials: []uint64{5, 1 << 60, 5}}), sect(1, scope, sect(0x20, u64(5), u64(1<<60)))},
		"2.2 a range":      {revocations(sshca.RevokedCertificates{CA: ca, Serials: upTo(1, 1000)}), sect(1, scope, sect(0x21, u64(1), u64(1000)))},
		"2.2 to the end":   {revocations(sshca.RevokedCertificates{CA: ca, Serials: upTo(math.MaxUint64-999, math.MaxUint64)}), sect(1, scope, sect(0x21, u64(math.MaxUint64-999), u64(math.MaxUint64)))},
		"2.3 a bitmap":     {revocations(sshca.RevokedCertificates{CA: ca, Serials: []uint64{10, 12, 14, 16}}), sect(1, scope, sect(0x22, u64(10), str("\x55")))},
		"2.3 its sign":     {revocations(sshca.RevokedCertificates{CA: ca, Serials: []uint64{10, 12, 14, 17}}), sect(1, scope, sect(0x22, u64(10), str("\x00\x95")))},
		"2.4 key IDs":      {revocations(sshca.RevokedCertificates{CA: ca, KeyIDs: []string{"bob", "alice", "bob"}}), sect(1, scope, sect(0x23, str("alice"), str("bob")))},
		"any CA":           {revocations(sshca.RevokedCertificates{KeyIDs: []string{"bob"}}), sect(1, str(), str(), sect(0x23, str("bob")))},
		"3 keys":           {sshca.Revocations{Version: 3, Generated: now, Comment: "comment", Keys: []ssh.PublicKey{other, key, other}}, sect(2, keys...)},
		"4 a hash":         {sshca.Revocations{Version: 3, Generated: now, Comment: "comment", KeyHashes: [][32]byte{hash}}, sect(5, str(string(hash[:])))},
	} {
		got, err := sshca.BuildKRL(c.in)
		if want := header(3) + c.want; err != nil || string(got) != want {
			t.Errorf("%s: got %x, %v\nwant %x", name, got, err, want)
		}
	}
}

func upTo(lo, hi uint64) (all []uint64) {
	for n := lo; ; n++ {
		if all = append(all, n); n == hi {
			return all
		}
	}
}

func TestBuildKRLRefuses(t *testing.T) {
	ca := public(newEd25519())
	certificate := issue(t, newEd25519(), request(ca))
	certs := func(c ...sshca.RevokedCertificates) sshca.Revocations { return revocations(c...) }
	with := func(change func(*sshca.Revocations)) sshca.Revocations {
		r := revocations()
		change(&r)
		return r
	}
	for name, bad := range map[string]sshca.Revocations{
		"version 0":               with(func(r *sshca.Revocations) { r.Version = 0 }),
		"no date":                 with(func(r *sshca.Revocations) { r.Generated = time.Time{} }),
		"a comment in lines":      with(func(r *sshca.Revocations) { r.Comment = "a\nb" }),
		"a comment with NUL":      with(func(r *sshca.Revocations) { r.Comment = "a\x00b" }),
		"no key":                  with(func(r *sshca.Revocations) { r.Keys = []ssh.PublicKey{nil} }),
		"a certificate for a key": with(func(r *sshca.Revocations) { r.Keys = []ssh.PublicKey{certificate} }),
		"serial 0":                certs(sshca.RevokedCertificates{CA: ca, Serials: []uint64{1, 0}}),
		"an empty key ID":         certs(sshca.RevokedCertificates{CA: ca, KeyIDs: []string{""}}),
		"a key ID with NUL":       certs(sshca.RevokedCertificates{CA: ca, KeyIDs: []string{"a\x00b"}}),
		"a long key ID":           certs(sshca.RevokedCertificates{CA: ca, KeyIDs: []string{strings.Repeat("a", 1025)}}),
		"a CA twice":              certs(sshca.RevokedCertificates{CA: ca, Serials: []uint64{1}}, sshca.RevokedCertificates{CA: ca, Serials: []uint64{2}}),
		"any CA twice":            certs(sshca.RevokedCertificates{KeyIDs: []string{"a"}}, sshca.RevokedCertificates{KeyIDs: []string{"b"}}),
		"a certificate for a CA":  certs(sshca.RevokedCertificates{CA: certificate, Serials: []uint64{1}}),
	} {
		if got, err := sshca.BuildKRL(bad); err == nil || got != nil {
			t.Errorf("%s: got %d bytes", name, len(got))
		}
	}
}

// leastBytes is the size of the smallest sections for sorted serials, the slow
// way: each way to cut them into lists, ranges and bitmaps is tried.
func leastBytes(serials []uint64) int {
	type run struct{ lo, hi uint64 }
	var runs []run
	for _, n := range serials {
		if len(runs) > 0 && runs[len(runs)-1].hi+1 == n {
			runs[len(runs)-1].hi = n
		} else {
			runs = append(runs, run{n, n})
		}
	}
	best := math.MaxInt
	for _, list := range []bool{false, true} {
		least := make([]int, len(runs)+1)
		for i := range runs {
			least[i+1] = least[i] + len(sect(0x21, u64(0), u64(0)))
			if list {
				least[i+1] = min(least[i+1], least[i]+8*int(runs[i].hi-runs[i].lo+1))
			}
			for j := i; j >= 0; j-- {
				if length := runs[i].hi - runs[j].lo + 1; length <= 16384 {
					mpint := 4 + int(length/8) + 1 // one bit more than the number's, for the sign
					least[i+1] = min(least[i+1], least[j]+len(sect(0x22))+8+mpint)
				}
			}
		}
		if total := least[len(runs)]; list {
			best = min(best, total+len(sect(0x20)))
		} else {
			best = min(best, total)
		}
	}
	return best
}

// No other choice of sections would be smaller, and the file says just what was
// asked for.
func TestSectionsAreTheSmallest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ca := newEd25519()
	empty := len(header(1)) + len(sect(1, str(string(public(ca).Marshal())), str()))
	for i := range 400 {
		spread := uint64(1) << random.IntN(17)
		n := 1 + random.IntN(300)
		base := random.Uint64() >> random.IntN(64)
		var serials []uint64
		for range n {
			if base += 1 + random.Uint64N(spread)*random.Uint64N(2); base != 0 {
				serials = append(serials, base)
			}
		}
		slices.Sort(serials)
		serials = slices.Compact(serials)
		shuffled := slices.Clone(serials)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		krl := must(sshca.BuildKRL(revocations(sshca.RevokedCertificates{CA: public(ca), Serials: shuffled})))
		if got, want := len(krl)-empty, leastBytes(serials); got != want {
			t.Errorf("%d: %d serials take %d bytes, could %d", i, len(serials), got, want)
		}
		says(t, must(sshca.ParseKRL(krl)), public(ca), serials, 1)
	}
}

// says checks that the KRL revokes the sorted serials, or one of so many, and not
// those beside them.
func says(t *testing.T, krl *sshca.KRL, ca ssh.PublicKey, serials []uint64, step int) {
	t.Helper()
	c := &ssh.Certificate{Key: ca, SignatureKey: ca} // whose key isn't revoked
	for i := 0; i < len(serials); i += step {
		n := serials[i]
		c.Serial = n
		if !krl.Revoked(c) {
			t.Fatalf("serial %d isn't revoked", n)
		}
		c.Serial = n + 1
		if next := i+1 < len(serials) && serials[i+1] == n+1; c.Serial != 0 && krl.Revoked(c) != next {
			t.Fatalf("serial %d is revoked: %v", n+1, !next)
		}
		c.Serial = n - 1
		if before := i > 0 && serials[i-1] == n-1; c.Serial != 0 && krl.Revoked(c) != before {
			t.Fatalf("serial %d is revoked: %v", n-1, !before)
		}
	}
}

// A distribution is a way in which n serials may lie. OpenSSH reads what it writes
// of them, but for those marked: there it writes bitmaps that it refuses to read.
type distribution struct {
	name   string
	broken bool
	make   func(r *rand.Rand, n int) []uint64
}

var distributions = []distribution{
	{"sparse", false, func(r *rand.Rand, n int) []uint64 { return draw(n, func(int) uint64 { return r.Uint64() }) }},
	{"contiguous", false, func(_ *rand.Rand, n int) []uint64 { return upTo(1, uint64(n)) }},
	{"runs", false, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(i int) uint64 {
			if base++; i%500 == 0 {
				base += 1 + r.Uint64N(1e6)
			}
			return base
		})
	}},
	{"clustered", false, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(i int) uint64 {
			if base += 1 + r.Uint64N(3); i%1000 == 0 {
				base += 1e9
			}
			return base
		})
	}},
	{"pairs", false, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(i int) uint64 {
			if base++; i%2 == 0 {
				base += 1 + r.Uint64N(1000)
			}
			return base
		})
	}},
	{"one of 100", false, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(int) uint64 { base += 1 + r.Uint64N(200); return base })
	}},
	{"one of 10", true, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(int) uint64 { base += 1 + r.Uint64N(20); return base })
	}},
	{"dense", true, func(r *rand.Rand, n int) []uint64 {
		base := uint64(1)
		return draw(n, func(int) uint64 { base += 1 + r.Uint64N(2); return base })
	}},
}

func draw(n int, next func(int) uint64) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = max(next(i), 1)
	}
	slices.Sort(all)
	return all
}

// serialLines are ssh-keygen's input.
func serialLines(serials []uint64) []byte {
	var b []byte
	for _, n := range serials {
		b = fmt.Appendf(b, "serial: %d\n", n)
	}
	return b
}

// Our KRL is never larger than that of ssh-keygen -k, where that is one that
// OpenSSH reads; it reads ours in any case, and both say the same.
func TestNoLargerThanOpenSSH(t *testing.T) {
	for _, d := range distributions {
		t.Run(d.name, func(t *testing.T) { t.Parallel(); noLarger(t, d) })
	}
}

func noLarger(t *testing.T, d distribution) {
	ca := newEd25519()
	dir := t.TempDir()
	serials := d.make(rand.New(rand.NewPCG(3, 4)), 100_000)
	writeFile(t, dir, "ca.pub", ssh.MarshalAuthorizedKey(public(ca)))
	writeFile(t, dir, "serials", serialLines(serials))
	mustKeygen(t, dir, "", "-k", "-f", "theirs", "-s", "ca.pub", "-z", "3", "serials")
	theirs := readFile(t, dir, "theirs")
	ours := must(sshca.BuildKRL(sshca.Revocations{Version: 3, Generated: now, Certificates: []sshca.RevokedCertificates{{CA: public(ca), Serials: serials}}}))
	t.Logf("%-10s %7d bytes, OpenSSH's %7d, ratio %.4f", d.name, len(ours), len(theirs), float64(len(ours))/float64(len(theirs)))
	writeFile(t, dir, "ours", ours)
	names, revoked := someCertificates(t, dir, ca, serials)
	agree(t, dir, "ours", names, revoked)
	krl := must(sshca.ParseKRL(ours))
	says(t, krl, public(ca), slices.Compact(serials), 97)
	if d.broken {
		// 17 bytes for each 2 KiB: what it takes to stay readable.
		if out, err := keygen(t, dir, "", "-Q", "-l", "-f", "theirs"); err == nil {
			t.Errorf("%s: OpenSSH reads its long bitmaps now; then write them too: %.80s", d.name, out)
		}
		if _, err := sshca.ParseKRL(theirs); err == nil {
			t.Errorf("%s: we read a KRL with which sshd would lock everybody out", d.name)
		}
		if len(ours) > len(theirs)+len(theirs)/100 {
			t.Errorf("%s: %d bytes, OpenSSH's unreadable one has %d", d.name, len(ours), len(theirs))
		}
		return
	}
	if len(ours) > len(theirs) {
		t.Errorf("%s: %d bytes, OpenSSH's has %d", d.name, len(ours), len(theirs))
	}
	agree(t, dir, "theirs", names, revoked)
}

// someCertificates writes certificates, half of them with serials of the list.
func someCertificates(t *testing.T, dir string, ca crypto.Signer, serials []uint64) (names []string, revoked []bool) {
	r := request(public(newEd25519()))
	for i := range 20 {
		r.Serial = serials[i*len(serials)/20] + uint64(i%2)
		if r.Serial == 0 {
			continue
		}
		name := fmt.Sprintf("c%d", i)
		writeFile(t, dir, name, ssh.MarshalAuthorizedKey(issue(t, ca, r)))
		_, found := slices.BinarySearch(serials, r.Serial)
		names, revoked = append(names, name), append(revoked, found)
	}
	return names, revoked
}

// agree checks that OpenSSH and we say of each key or certificate in a file
// whether the KRL in dir revokes it.
func agree(t *testing.T, dir, krl string, names []string, revoked []bool) {
	t.Helper()
	out, _ := keygen(t, dir, "", append([]string{"-Q", "-f", krl}, names...)...) // fails if one is revoked
	lines := strings.Split(strings.TrimSpace(out), "\n")
	ours, err := sshca.ParseKRL(readFile(t, dir, krl))
	if err != nil || len(lines) != len(names) {
		t.Fatalf("%s: %v; OpenSSH says %.200s", krl, err, out)
	}
	for i, name := range names {
		key, _, _, _, err := ssh.ParseAuthorizedKey(readFile(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if theirs := strings.HasSuffix(lines[i], "REVOKED"); theirs != revoked[i] || ours.Revoked(key) != revoked[i] {
			t.Errorf("%s: %s: OpenSSH says %v, we %v, want %v", krl, name, theirs, ours.Revoked(key), revoked[i])
		}
	}
}

// Every way to revoke something, written by us and by ssh-keygen, read by both.
func TestBothSides(t *testing.T) {
	dir := t.TempDir()
	ca, second, third := newEd25519(), signers()["p256"], newEd25519()
	keys := plainKeys()
	certificate := func(name string, by crypto.Signer, change func(*sshca.Request)) {
		r := request(public(newEd25519()))
		r.KeyID = "nobody"
		change(&r)
		writeFile(t, dir, name, ssh.MarshalAuthorizedKey(issue(t, by, r)))
	}
	serial := func(n uint64) func(*sshca.Request) { return func(r *sshca.Request) { r.Serial = n } }
	id := func(s string) func(*sshca.Request) { return func(r *sshca.Request) { r.Serial, r.KeyID = 1000, s } }
	of := func(key ssh.PublicKey) func(*sshca.Request) {
		return func(r *sshca.Request) { r.Serial, r.Key = 1000, key }
	}
	revokedCA := newEd25519()
	want := map[string]bool{}
	for name, c := range map[string]struct {
		by      crypto.Signer
		change  func(*sshca.Request)
		revoked bool
	}{
		"listed":                {ca, serial(42), true},
		"not listed":            {ca, serial(43), false},
		"in a range":            {ca, serial(150), true},
		"after a range":         {ca, serial(201), false},
		"in a bitmap":           {ca, serial(303), true},
		"not in a bitmap":       {ca, serial(304), false},
		"another CA's serial":   {second, serial(42), false},
		"that CA's own":         {second, serial(77), true},
		"no CA's":               {third, serial(42), false},
		"by key ID":             {ca, id("mallory"), true},
		"by key ID, another CA": {second, id("mallory"), false},
		"by key ID of any CA":   {third, id("lost-device"), true},
		"a key ID's beginning":  {ca, id("mallor"), false},
		"for a key in full":     {third, of(keys["p384"]), true},
		"for a key by hash":     {third, of(keys["sk-p256"]), true},
		"for a good key":        {third, of(keys["p521"]), false},
		"by a revoked CA":       {revokedCA, serial(1000), true},
	} {
		certificate(name, c.by, c.change)
		want[name] = c.revoked
	}
	for name, key := range keys {
		writeFile(t, dir, name, ssh.MarshalAuthorizedKey(key))
		want[name] = name == "p384" || name == "sk-p256" || name == "rsa"
	}
	var names []string
	var revoked []bool
	for name, r := range want {
		names, revoked = append(names, name), append(revoked, r)
	}
	serials := append([]uint64{42}, upTo(100, 200)...)
	for n := uint64(301); n < 400; n += 2 {
		serials = append(serials, n)
	}
	ours := must(sshca.BuildKRL(sshca.Revocations{
		Version: 9, Generated: now, Comment: "all of it",
		Certificates: []sshca.RevokedCertificates{
			{CA: public(ca), Serials: serials, KeyIDs: []string{"mallory"}},
			{CA: public(second), Serials: []uint64{77}},
			{KeyIDs: []string{"lost-device"}},
		},
		Keys:      []ssh.PublicKey{keys["p384"], public(revokedCA)},
		KeyHashes: [][32]byte{sshca.KRLHash(keys["sk-p256"]), sshca.KRLHash(keys["rsa"])},
	}))
	writeFile(t, dir, "ours", ours)
	agree(t, dir, "ours", names, revoked)

	writePrivate(t, dir, "ca", ca)
	writePrivate(t, dir, "second", second)
	lines := "serial: 42\nserial: 100-200\nid: mallory\n"
	for n := 301; n < 400; n += 2 {
		lines += fmt.Sprintf("serial: %d\n", n)
	}
	sha256 := ssh.FingerprintSHA256(keys["sk-p256"])
	lines += "key: " + line(keys["p384"]) + "\nhash: " + sha256 + "\nsha1: " + line(keys["rsa"]) + "\nkey: " + line(public(revokedCA)) + "\n"
	mustKeygen(t, dir, lines, "-k", "-f", "theirs", "-s", "ca.pub", "-z", "9", "-")
	mustKeygen(t, dir, "serial: 77\n", "-k", "-u", "-f", "theirs", "-s", "second.pub", "-z", "9", "-")
	mustKeygen(t, dir, "id: lost-device\n", "-k", "-u", "-f", "theirs", "-s", "none", "-z", "9", "-")
	agree(t, dir, "theirs", names, revoked)
	for name, data := range map[string][]byte{"ours": ours, "theirs": readFile(t, dir, "theirs")} {
		if krl := must(sshca.ParseKRL(data)); krl.Version != 9 || name == "ours" && (krl.Comment != "all of it" || !krl.Generated.Equal(now)) {
			t.Errorf("%s: version %d of %v: %q", name, krl.Version, krl.Generated, krl.Comment)
		}
	}
	if out := mustKeygen(t, dir, "", "-Q", "-l", "-f", "ours"); !strings.Contains(out, "# KRL version 9\n# Generated at 20260301T120000\n# Comment: all of it\n") {
		t.Errorf("OpenSSH reads %s", out)
	}
}

func TestParseKRLRefuses(t *testing.T) {
	ca := string(public(newEd25519()).Marshal())
	certificate := string(issue(t, newEd25519(), request(public(newEd25519()))).Marshal())
	certs := func(parts ...string) string {
		return header(3) + sect(1, append([]string{str(ca), str()}, parts...)...)
	}
	bitmap := func(lo uint64, bits string) string { return certs(sect(0x22, u64(lo), str(bits))) }
	h := func(b byte) string { return str(strings.Repeat(string([]byte{b}), 32)) }
	change := func(at int, b byte) string {
		s := []byte(header(3))
		s[at] = b
		return string(s)
	}
	for name, bad := range map[string]string{
		"nothing":                     "",
		"another file":                "ssh-ed25519 AAAA",
		"the magic alone":             "SSHKRL\n\x00",
		"format 2":                    change(11, 2),
		"flags":                       change(35, 1),
		"far in the future":           change(20, 1),
		"a byte too few":              header(3)[:len(header(3))-1],
		"a byte too many":             header(3) + "\x01",
		"reserved bytes":              strings.Replace(header(3), u64(0)+str(), u64(0)+str("x"), 1),
		"a comment with NUL":          strings.Replace(header(3), "comment", "com\x00ent", 1),
		"an unknown section":          header(3) + sect(6),
		"an extension":                header(3) + sect(255, str("bloom-explicit-key"), "\x00", str()),
		"a signature":                 header(3) + sect(4, ca) + str("sig"),
		"no keys":                     header(3) + sect(2),
		"an empty key":                header(3) + sect(2, str()),
		"a hash of 31 bytes":          header(3) + sect(5, h(1)[:35]),
		"a SHA-1 of 32":               header(3) + sect(3, h(1)),
		"hashes out of order":         header(3) + sect(5, h(2), h(1)),
		"a hash twice":                header(3) + sect(5, h(1), h(1)),
		"no CA":                       header(3) + sect(1),
		"a CA that isn't one":         header(3) + sect(1, str("ca"), str()),
		"a certificate as CA":         header(3) + sect(1, str(certificate), str()),
		"a CA with a byte more":       header(3) + sect(1, str(ca, "\x00"), str()),
		"reserved bytes after the CA": header(3) + sect(1, str(ca), str("x")),
		"an unknown part":             certs(sect(0x24)),
		"an extension of a part":      certs(sect(0x39, str("x"), "\x00", str())),
		"a serial cut short":          certs(sect(0x20, u64(1)[:7])),
		"serial 0":                    certs(sect(0x20, u64(0))),
		"a range from 0":              certs(sect(0x21, u64(0), u64(1))),
		"a range backwards":           certs(sect(0x21, u64(2), u64(1))),
		"a range and more":            certs(sect(0x21, u64(1), u64(2), u64(3))),
		"half a range":                certs(sect(0x21, u64(1))),
		"no bitmap":                   bitmap(1, ""),
		"an empty bitmap":             bitmap(1, "\x00"),
		"a negative bitmap":           bitmap(1, "\x80"),
		"a zero more":                 bitmap(1, "\x00\x01"),
		"a bitmap and more":           certs(sect(0x22, u64(1), str("\x01"), "\x00")),
		"a bitmap with serial 0":      bitmap(0, "\x03"),
		"a bitmap beyond the end":     bitmap(math.MaxUint64, "\x03"),
		"a bitmap of 16,385 bits":     bitmap(1, "\x01"+strings.Repeat("\xff", 2048)),
		"no key IDs":                  certs(sect(0x23)),
		"an empty key ID":             certs(sect(0x23, str())),
		"a key ID with NUL":           certs(sect(0x23, str("a\x00b"))),
		"a key ID cut short":          certs(sect(0x23, str("ab")[:5])),
		"far too long":                header(3) + strings.Repeat("x", sshca.MaxKRL),
	} {
		if krl, err := sshca.ParseKRL([]byte(bad)); err == nil || krl != nil {
			t.Errorf("%s: was read", name)
		}
	}
	for name, good := range map[string]string{
		"an empty one":            header(3),
		"a CA without entries":    certs(),
		"a bitmap of 16,384 bits": bitmap(1, "\x00"+strings.Repeat("\xff", 2048)),
		"a bitmap from 0":         bitmap(0, "\x02"),
		"a bitmap to the end":     bitmap(math.MaxUint64-1, "\x03"),
		"ranges that overlap":     certs(sect(0x21, u64(5), u64(9)), sect(0x21, u64(1), u64(7)), sect(0x20, u64(9), u64(3), u64(11))),
		"a CA twice":              certs() + sect(1, str(ca), str()),
	} {
		if _, err := sshca.ParseKRL([]byte(good)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What we read, OpenSSH reads: a host that trusts our check isn't locked out.
func TestOpenSSHReadsWhatWeRead(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	ca := newEd25519()
	base := must(sshca.BuildKRL(sshca.Revocations{
		Version: 1, Generated: now,
		Certificates: []sshca.RevokedCertificates{{CA: public(ca), Serials: []uint64{1, 3, 5, 9, 11, 1 << 40}, KeyIDs: []string{"a", "b"}}},
		Keys:         []ssh.PublicKey{public(newEd25519())}, KeyHashes: [][32]byte{{1}, {2}},
	}))
	dir := t.TempDir()
	taken := 0
	for i := 0; taken < 60; i++ {
		mutant := bytes.Clone(base)
		for range 1 + random.IntN(2) {
			mutant[random.IntN(len(mutant))] = byte(random.IntN(256)) >> random.IntN(8)
		}
		if _, err := sshca.ParseKRL(mutant); err != nil {
			continue
		}
		taken++
		writeFile(t, dir, "krl", mutant)
		if out, err := keygen(t, dir, "", "-Q", "-l", "-f", "krl"); err != nil {
			t.Errorf("OpenSSH refuses what we read: %.200s\n%x", out, mutant)
		}
	}
}

func TestKRLSignature(t *testing.T) {
	krl := must(sshca.BuildKRL(revocations(sshca.RevokedCertificates{CA: public(newEd25519()), Serials: []uint64{1}})))
	other := newEd25519()
	dir := t.TempDir()
	for name, ca := range signers() {
		signature, err := authority(ca).SignKRL(krl, signWith(ca))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		trusted := []ssh.PublicKey{public(other), public(ca)}
		got, err := sshca.OpenKRL(krl, signature, trusted)
		if err != nil || got.Version != 3 || line(got.SignedBy) != line(public(ca)) {
			t.Fatalf("%s: %v", name, err)
		}
		without := must(sshca.BuildKRL(sshca.Revocations{Version: 2, Generated: now, Keys: []ssh.PublicKey{public(ca)}}))
		if err := got.Replaces(must(sshca.ParseKRL(without)), now, time.Hour); err == nil {
			t.Errorf("%s: a revoked CA key takes back its revocation", name)
		}
		writeFile(t, dir, "trusted", []byte("ca "+line(public(ca))+"\n"))
		writeFile(t, dir, "sig", signature)
		if out, err := keygen(t, dir, string(krl), "-Y", "verify", "-f", "trusted", "-I", "ca", "-n", sshca.KRLNamespace, "-s", "sig"); err != nil {
			t.Errorf("%s: OpenSSH says %s", name, out)
		}
		changed := bytes.Clone(krl)
		changed[19]++ // the version
		signer := must(ssh.NewSignerFromSigner(ca))
		for what, err := range map[string]error{
			"another list":                second(sshca.OpenKRL(changed, signature, trusted)),
			"another CA":                  second(sshca.OpenKRL(krl, signature, trusted[:1])),
			"no CA":                       second(sshca.OpenKRL(krl, signature, nil)),
			"no signature":                second(sshca.OpenKRL(krl, nil, trusted)),
			"an order's":                  second(sshca.OpenKRL(krl, must(sshca.Sign(signer, sshca.OrderNamespace, krl)), trusted)),
			"one that revokes its signer": second(sshca.OpenKRL(without, must(authority(ca).SignKRL(without, signWith(ca))), trusted)),
			"a damaged list":              second(sshca.OpenKRL(krl[:9], must(sshca.Sign(signer, sshca.KRLNamespace, krl[:9])), trusted)),
			"a faulty key":                second(authority(ca).SignKRL(krl, signWith(other))),
			"not a KRL at all":            second(authority(ca).SignKRL([]byte("x"), signWith(ca))),
		} {
			if err == nil {
				t.Errorf("%s: %s: passes", name, what)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReplaces(t *testing.T) {
	krl := func(version uint64, generated time.Time, comment string) *sshca.KRL {
		return must(sshca.ParseKRL(must(sshca.BuildKRL(sshca.Revocations{Version: version, Generated: generated, Comment: comment}))))
	}
	old := krl(5, now.Add(-time.Hour), "")
	for name, c := range map[string]struct {
		krl, old *sshca.KRL
		ok       bool
	}{
		"the first":                 {krl(1, now, ""), nil, true},
		"the next":                  {krl(6, now, ""), old, true},
		"the same":                  {krl(5, now.Add(-time.Hour), ""), old, true},
		"the version, another list": {krl(5, now, "x"), old, false},
		"one before":                {krl(4, now, ""), old, false},
		"just in time":              {krl(6, now.Add(-24*time.Hour), ""), old, true},
		"held back":                 {krl(6, now.Add(-24*time.Hour-time.Second), ""), old, false},
		"held back, the first":      {krl(6, now.Add(-25*time.Hour), ""), nil, false},
		"a clock a little ahead":    {krl(6, now.Add(5*time.Minute), ""), old, true},
		"from the future":           {krl(6, now.Add(6*time.Minute), ""), old, false},
	} {
		if err := c.krl.Replaces(c.old, now, 24*time.Hour); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseKRL(f *testing.F) {
	ca := public(fixedEd25519())
	h := sha1.Sum([]byte("x"))
	f.Add(must(sshca.BuildKRL(sshca.Revocations{
		Version: 1, Generated: now, Comment: "c",
		Certificates: []sshca.RevokedCertificates{{CA: ca, Serials: append(upTo(1, 50), 60, 62, 64, 66, 68, 1<<40), KeyIDs: []string{"a", "b"}}, {KeyIDs: []string{"c"}}},
		Keys:         []ssh.PublicKey{ca}, KeyHashes: [][32]byte{sha256.Sum256(nil)},
	})))
	f.Add([]byte(header(3) + sect(3, str(string(h[:])))))
	f.Add([]byte(header(3) + sect(1, str(string(ca.Marshal())), str(), sect(0x22, u64(1), str("\x00\x80")))))
	c := &ssh.Certificate{Key: ca, SignatureKey: ca}
	empty := must(sshca.ParseKRL(must(sshca.BuildKRL(sshca.Revocations{Version: 1, Generated: now}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		krl, err := sshca.ParseKRL(data)
		if err != nil {
			return
		}
		again, err := sshca.ParseKRL(data)
		if err != nil || again.Replaces(krl, krl.Generated, time.Hour) != nil {
			t.Fatal("a KRL doesn't replace itself")
		}
		merged, err := sshca.MergeKRLs(krl, empty)
		if err != nil {
			t.Fatal(err)
		}
		both, err := sshca.ParseKRL(merged)
		if err != nil {
			t.Fatalf("merged with an empty one it can't be read: %v", err)
		}
		for _, c.Serial = range []uint64{0, 1, 2, 60, 61, 1 << 40, math.MaxUint64} {
			if krl.Revoked(c) != both.Revoked(c) {
				t.Fatalf("merged with an empty one it says otherwise of %d", c.Serial)
			}
		}
	})
}

func FuzzSerials(f *testing.F) {
	ca := public(newEd25519())
	f.Add([]byte{1, 0, 3, 0, 5, 0, 0, 64, 1, 0}, uint64(1))
	f.Add([]byte{255, 255, 1, 0, 1, 0, 2, 0}, uint64(math.MaxUint64-70000))
	f.Fuzz(func(t *testing.T, steps []byte, base uint64) {
		var serials []uint64
		for ; len(steps) >= 2; steps = steps[2:] {
			if base += uint64(binary.LittleEndian.Uint16(steps)); base != 0 {
				serials = append(serials, base)
			}
		}
		if len(serials) == 0 {
			return
		}
		krl := must(sshca.BuildKRL(revocations(sshca.RevokedCertificates{CA: ca, Serials: serials})))
		slices.Sort(serials)
		serials = slices.Compact(serials)
		if got, want := len(krl)-len(header(3))-len(sect(1, str(string(ca.Marshal())), str())), leastBytes(serials); got != want {
			t.Fatalf("%d bytes, could be %d", got, want)
		}
		says(t, must(sshca.ParseKRL(krl)), ca, serials, 1)
	})
}

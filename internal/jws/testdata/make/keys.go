package main

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"log"
	"math/big"
	"strings"
)

func keys() {
	k := func(name, ref, why, says, jwk string) {
		write("jwk-"+name, vector{Why: why, Ref: ref, Read: "request", Expect: "badPublicKey", Says: says, Body: withJWK(p256, jwk)})
	}
	x, y := coordinates(p256)
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		k("private-"+name, "RFC 7515 section 4.1.3", "the jwk has "+name+", a private key's member", "never be sent", ec("P-256", x, y, fmt.Sprintf(`,%q:"AQAB"`, name)))
	}
	k("private-D", "RFC 7515 section 4.1.3", "the jwk has D, which looks like d", "never be sent", ec("P-256", x, y, `,"D":"AQAB"`))
	for _, name := range []string{"x5u", "x5c", "x5t", "x5t#S256"} {
		k("certificate-"+strings.ReplaceAll(name, "#", "-"), "RFC 7517 section 4", "the jwk has "+name+", a second place to take a key from", "must not have the member", ec("P-256", x, y, fmt.Sprintf(`,%q:"AQAB"`, name)))
	}
	k("lookalike", "RFC 7517 section 4", "the jwk has Use, which looks like use", "must not have the member", ec("P-256", x, y, `,"Use":"sig"`))
	fault("jwk-duplicate-x", "RFC 7517 section 4", "x twice in the jwk", "twice", withJWK(p256, ec("P-256", x, y, fmt.Sprintf(`,"x":%q`, x))))
	fault("jwk-lookalike-x", "RFC 7517 section 4", "x and X in the jwk", "twice", withJWK(p256, ec("P-256", x, y, fmt.Sprintf(`,"X":%q`, x))))
	fault("jwk-number-x", "RFC 7518 section 6.2.1.2", "x is a number", "string", withJWK(p256, `{"kty":"EC","crv":"P-256","x":1,"y":1}`))
	fault("jwk-number-kid", "RFC 7517 section 4.5", "kid is a number", "string", withJWK(p256, ec("P-256", x, y, `,"kid":1`)))
	k("empty", "RFC 7517 section 4.1", "an empty jwk", "kty", "{}")
	k("oct", "RFC 7518 section 6.4", "kty oct", "kty must be", `{"kty":"oct"}`)
	k("kty-case", "RFC 7517 section 4.1", "kty in lower case", "kty must be", strings.Replace(ec("P-256", x, y, ""), "EC", "ec", 1))
	k("AKP", "rule of ours", "kty AKP (ML-DSA)", "kty must be", `{"kty":"AKP","alg":"ML-DSA-65","pub":"AAAA"}`)
	k("alg-disagrees", "RFC 7517 section 4.4", "the jwk says another alg", "says alg", ec("P-256", x, y, `,"alg":"ES384"`))
	k("use-enc", "RFC 7517 section 4.2", "the jwk is for encryption", "says use", ec("P-256", x, y, `,"use":"enc"`))
	k("mixed-kinds", "RFC 7518 section 6", "an EC key with RSA's n and e", "another kind", ec("P-256", x, y, `,"n":"AQAB","e":"AQAB"`))
	k("rsa-with-crv", "RFC 7518 section 6", "an RSA key with EC's crv", "another kind", strings.Replace(rs.jwk, "{", `{"crv":"P-256",`, 1))
	k("okp-with-y", "RFC 8037 section 2", "an Ed25519 key with y", "another kind", strings.Replace(ed.jwk, "{", `{"y":"AAAA",`, 1))

	for _, crv := range []string{"P-224", "P-192", "secp256k1", "p-256", "Ed25519", ""} {
		k("crv-"+strings.ToLower(crv)+"-"+fmt.Sprint(len(crv)), "RFC 7518 section 6.2.1.1", "an EC key on "+crv, "crv must be", ec(crv, x, y, ""))
	}
	k("ec-no-crv", "RFC 7518 section 6.2.1", "no crv", "crv must be", fmt.Sprintf(`{"kty":"EC","x":%q,"y":%q}`, x, y))
	k("ec-no-x", "RFC 7518 section 6.2.1", "no x", "no x", fmt.Sprintf(`{"kty":"EC","crv":"P-256","y":%q}`, y))
	k("ec-no-y", "RFC 7518 section 6.2.1", "no y", "no y", fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q}`, x))
	k("ec-off-curve", "RFC 7518 section 6.2.1", "x and y swapped: not on the curve", "not on P-256", ec("P-256", y, x, ""))
	zero := b64(make([]byte, 32))
	k("ec-zero", "RFC 7518 section 6.2.1", "the point 0, 0, which some take for infinity", "not on P-256", ec("P-256", zero, zero, ""))
	prime := b64(elliptic.P256().Params().P.Bytes())
	k("ec-unreduced", "SEC 1 section 2.3.4", "x is the field's prime", "not on P-256", ec("P-256", prime, y, ""))
	k("ec-long-x", "RFC 7518 section 6.2.1.2", "x with a leading zero byte", "33 bytes", ec("P-256", b64(append([]byte{0}, un64(x)...)), y, ""))
	k("ec-short-y", "RFC 7518 section 6.2.1.3", "y one byte short", "31 bytes", ec("P-256", x, b64(un64(y)[1:]), ""))
	k("ec-empty-x", "RFC 7518 section 6.2.1.2", "x is empty", "0 bytes", ec("P-256", "", y, ""))
	k("ec-padded-x", "RFC 7515 section 2", "x is padded", "base64url", ec("P-256", x+"=", y, ""))
	k("ec-spare-bits", "RFC 7515 section 2", "x has spare bits: one key, two thumbprints", "base64url", ec("P-256", nextLast(x), y, ""))
	k("ec-newline", "RFC 7515 section 2", "y has a line break: one key, two thumbprints", "base64url", strings.Replace(ec("P-256", x, y, ""), y, y[:4]+`\n`+y[4:], 1))
	x3, y3 := coordinates(p384)
	k("ec-P-384-as-P-256", "RFC 7518 section 6.2.1", "a P-384 point that says P-256", "48 bytes", ec("P-256", x3, y3, ""))

	k("okp-x25519", "RFC 8037 section 2", "a key agreement key", "crv must be Ed25519", strings.Replace(ed.jwk, "Ed25519", "X25519", 1))
	k("okp-ed448", "RFC 8037 section 2", "Ed448", "crv must be Ed25519", strings.Replace(ed.jwk, "Ed25519", "Ed448", 1))
	okp := func(name, why, says string, le []byte) {
		k("okp-"+name, "RFC 8032 section 5.1.3", why, says, fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(le)))
	}
	okp("short", "31 bytes", "31 bytes", make([]byte, 31))
	okp("long", "33 bytes", "33 bytes", make([]byte, 33))
	le := func(first byte, rest byte, last byte) []byte {
		b := bytes.Repeat([]byte{rest}, 32)
		b[0], b[31] = first, last
		return b
	}
	okp("off-curve", "y = 2 belongs to no point", "not a point", le(2, 0, 0))
	okp("unreduced", "y = 2^255-16, that is 3, not reduced", "canonical", le(0xf0, 0xff, 0x7f))
	okp("unreduced-identity", "y = 2^255-18, that is 1, not reduced", "canonical", le(0xee, 0xff, 0x7f))
	okp("identity", "the identity: order 1", "small order", le(1, 0, 0))
	okp("identity-sign", "the identity with the sign bit", "small order", le(1, 0, 0x80))
	okp("order-2", "y = -1: order 2", "small order", le(0xec, 0xff, 0x7f))
	okp("order-4", "y = 0: order 4", "small order", le(0, 0, 0))
	okp("order-4-sign", "y = 0 with the sign bit: order 4", "small order", le(0, 0, 0x80))
	for i, s := range []string{
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			log.Fatal(err)
		}
		okp(fmt.Sprintf("order-8-%d", i), "a point of order 8", "small order", b)
		b[31] |= 0x80
		okp(fmt.Sprintf("order-8-%d-sign", i), "a point of order 8", "small order", b)
	}
	k("okp-no-x", "RFC 8037 section 2", "no x", "no x", `{"kty":"OKP","crv":"Ed25519"}`)

	r := func(name, ref, why, says, n, e string) {
		k("rsa-"+name, ref, why, says, fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, n, e))
	}
	size := "2048 to 4096 bits"
	n := bytes.Repeat([]byte{0xc5}, 512)
	r("1024", "bound of ours", "1024 bits", size, b64(n[:128]), "AQAB")
	r("2047", "bound of ours", "2047 bits", size, b64(append([]byte{0x7f}, n[:255]...)), "AQAB")
	r("4097", "bound of ours", "4097 bits", size, b64(append([]byte{1}, n...)), "AQAB")
	r("even", "RFC 8017 section 3.1", "an even modulus", "even", b64(append(bytes.Clone(n[:255]), 0xc4)), "AQAB")
	r("leading-zero", "RFC 7518 section 6.3.1.1", "n with a leading zero byte, as some libraries write it", "leading zero", b64(append([]byte{0}, n[:256]...)), "AQAB")
	r("zero-n", "RFC 7518 section 6.3.1.1", "n is zero", "leading zero", "AA", "AQAB")
	r("empty-n", "RFC 7518 section 6.3.1.1", "n is empty", "0 bytes", "", "AQAB")
	r("padded-n", "RFC 7515 section 2", "n is padded", "base64url", b64(n[:256])+"==", "AQAB")
	exponent := "exponent must be odd"
	r("e-leading-zero", "RFC 7518 section 6.3.1.2", "e with a leading zero byte", "leading zero", b64(n[:256]), "AAEAAQ")
	r("e-0", "RFC 8017 section 3.1", "e is zero", "leading zero", b64(n[:256]), "AA")
	r("e-1", "RFC 8017 section 3.1", "e = 1: every message is its own signature", exponent, b64(n[:256]), "AQ")
	r("e-2", "RFC 8017 section 3.1", "e = 2", exponent, b64(n[:256]), "Ag")
	r("e-even", "RFC 8017 section 3.1", "e is even", exponent, b64(n[:256]), b64([]byte{1, 0, 0}))
	r("e-2-31", "bound of ours", "e = 2^31+1", exponent, b64(n[:256]), b64([]byte{0x80, 0, 0, 1}))
	r("e-2-32", "bound of ours", "e = 2^32+1, which is 1 in 32 bits", exponent, b64(n[:256]), b64([]byte{1, 0, 0, 0, 1}))
	r("e-2-64", "bound of ours", "e = 2^64+1, which is 1 in 64 bits", exponent, b64(n[:256]), b64([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1}))
	r("e-huge", "bound of ours", "e of 2048 bits, to make verification slow", exponent, b64(n[:256]), b64(n[:256]))
	k("rsa-no-e", "RFC 7518 section 6.3.1", "no e", "no e", fmt.Sprintf(`{"kty":"RSA","n":%q}`, b64(n[:256])))
	k("rsa-no-n", "RFC 7518 section 6.3.1", "no n", "no n", `{"kty":"RSA","e":"AQAB"}`)
}

func signatures() {
	bad := func(name, why, expect, says string, k signer, body string) {
		write("signature-"+name, vector{Why: why, Ref: "RFC 7515 section 5.2", Read: "request", Body: body, Key: k.jwk, Expect: expect, Says: says})
	}
	for _, k := range []signer{p256, p384, p521, ed, rs} {
		m := good(k)
		sig := un64(m.signature)
		sig[len(sig)/2-1] ^= 1
		m.signature = b64(sig)
		bad(k.alg+"-flipped-bit", "one bit of the signature is another", "unauthorized", "does not verify", k, m.json())
		m = good(k)
		m.payload = b64([]byte(strings.Replace(order, "www", "xxx", 1)))
		bad(k.alg+"-other-payload", "the payload isn't the signed one", "unauthorized", "does not verify", k, m.json())
		m = good(k)
		m.protected = b64([]byte(head(k, kid, nonce, `"url":"https://ca.example/acme/revoke"`)))
		bad(k.alg+"-other-header", "the header isn't the signed one", "unauthorized", "does not verify", k, m.json())
	}
	m := good2
	bad("other-key", "another key signed", "unauthorized", "does not verify", ecSigner("ES256", elliptic.P256(), crypto.SHA256, b64(bytes.Repeat([]byte{7}, 32))), m.json())
	m.signature = ""
	bad("empty", "no signature", "malformed", "signature is empty", p256, m.json())
	half := "64 bytes"
	m.signature = b64(asn1(un64(good2.signature)))
	bad("asn1", "an ECDSA signature in ASN.1, as X.509 has it", "malformed", half, p256, m.json())
	m.signature = b64(un64(good2.signature)[:63])
	bad("short", "one byte short", "malformed", half, p256, m.json())
	m.signature = b64(append(un64(good2.signature), 0))
	bad("long", "one byte long", "malformed", half, p256, m.json())
	m.signature = b64(slicePad(un64(good2.signature)))
	bad("wide", "r and s with a leading zero byte each", "malformed", half, p256, m.json())
	m.signature = b64(make([]byte, 64))
	bad("zero", "r = s = 0 (CVE-2022-21449)", "unauthorized", "does not verify", p256, m.json())
	order256 := elliptic.P256().Params().N.Bytes()
	m.signature = b64(append(bytes.Clone(order256), order256...))
	bad("r-is-the-order", "r = s = n, that is 0", "unauthorized", "does not verify", p256, m.json())
	e := good(ed)
	e.signature = b64(un64(e.signature)[:63])
	bad("EdDSA-short", "one byte short", "unauthorized", "does not verify", ed, e.json())
	e = good(ed)
	sig := un64(e.signature)
	s := new(big.Int).SetBytes(reverse(sig[32:]))
	l, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	copy(sig[32:], reverse(s.Add(s, l).FillBytes(make([]byte, 32))))
	e.signature = b64(sig)
	bad("EdDSA-malleable", "S + L: the same signature in another form (RFC 8032 section 5.1.7)", "unauthorized", "does not verify", ed, e.json())
	w := good(rs)
	w.signature = b64(append([]byte{0}, un64(w.signature)...))
	bad("RS256-leading-zero", "a leading zero byte", "unauthorized", "does not verify", rs, w.json())

	for name, c := range map[string]struct{ says, key signer }{
		"ES256-with-P-384": {p256, p384}, "ES384-with-P-256": {p384, p256}, "ES512-with-P-256": {p521, p256},
		"RS256-with-P-256": {rs, p256}, "ES256-with-RSA": {p256, rs}, "EdDSA-with-P-256": {ed, p256}, "RS256-with-Ed25519": {rs, ed},
	} {
		k := c.key
		k.alg = c.says.alg
		write("alg-"+name, vector{Why: "alg says " + k.alg + " but the key signs with " + c.key.alg, Ref: "RFC 7518 section 3.1", Read: "request",
			Body: good(k).json(), Key: k.jwk, Expect: "badSignatureAlgorithm", Says: "this key signs with " + c.key.alg})
	}
}

func reverse(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[len(b)-1-i] = c
	}
	return out
}

func slicePad(sig []byte) []byte {
	out := append([]byte{0}, sig[:32]...)
	return append(append(out, 0), sig[32:]...)
}

func asn1(sig []byte) []byte {
	part := func(b []byte) []byte {
		b = bytes.TrimLeft(b, "\x00")
		if b[0]&0x80 != 0 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(part(sig[:32]), part(sig[32:])...)
	return append([]byte{0x30, byte(len(body))}, body...)
}

func inner() {
	const ref, change = "RFC 8555 section 7.3.5", `"url":"https://ca.example/acme/key-change"`
	payload := fmt.Sprintf(`{"account":"https://ca.example/acme/acct/1","oldKey":%s}`, rs.jwk)
	w := func(name, why, expect, says, body string) {
		v := vector{Why: why, Ref: ref, Read: "inner", Body: body, Key: p256.jwk, Expect: expect, Says: says}
		if expect == "ok" {
			v.Payload = payload
		}
		write(name, v)
	}
	w("ok-inner", "a key change, signed by the new key", "ok", "", jws(p256, head(p256, `"jwk":`+p256.jwk, change), payload).json())
	w("inner-kid", "kid instead of the new key", "malformed", "must carry the new key as jwk", jws(p256, head(p256, kid, change), payload).json())
	w("inner-nonce", "a nonce", "malformed", "must not have a nonce", jws(p256, head(p256, `"jwk":`+p256.jwk, nonce, change), payload).json())
	w("inner-nonce-empty", "an empty nonce", "malformed", "must not have a nonce", jws(p256, head(p256, `"jwk":`+p256.jwk, `"nonce":""`, change), payload).json())
	w("inner-no-url", "no url", "malformed", "no url", jws(p256, head(p256, `"jwk":`+p256.jwk), payload).json())
	w("inner-payload-empty", "POST-as-GET's payload", "malformed", "JSON object", "")
	w("inner-mac", "a MAC", "badSignatureAlgorithm", "supported", jws(hs256, head(hs256, `"jwk":`+p256.jwk, change), payload).json())
	w("inner-old-key", "signed by the old key", "badSignatureAlgorithm", "this key signs with ES256", jws(rs, head(rs, `"jwk":`+p256.jwk, change), payload).json())
	other := ecSigner("ES256", elliptic.P256(), crypto.SHA256, b64(bytes.Repeat([]byte{7}, 32)))
	w("inner-not-held", "the new key didn't sign: someone claims a key that isn't theirs", "unauthorized", "does not verify", jws(other, head(p256, `"jwk":`+p256.jwk, change), payload).json())
}

func bindings() {
	const ref, id, to = "RFC 8555 section 7.3.4", `"kid":"eab-1"`, `"url":"https://ca.example/acme/new-account"`
	w := func(name, why, expect, says string, body string) {
		v := vector{Why: why, Ref: ref, Read: "eab", Body: body, Key: hs256.jwk, Expect: expect, Says: says}
		if expect == "ok" {
			v.Payload = p256.jwk
		}
		write(name, v)
	}
	h := head(hs256, id, to)
	flat := jws(hs256, h, p256.jwk)
	w("ok-eab-HS256", "an external account binding", "ok", "", flat.json())
	hs384, hs512 := macSigner("HS384", sha512.New384, macKey), macSigner("HS512", sha512.New, macKey)
	w("ok-eab-HS384", "with HS384", "ok", "", jws(hs384, head(hs384, id, to), p256.jwk).json())
	w("ok-eab-HS512", "with HS512", "ok", "", jws(hs512, head(hs512, id, to), p256.jwk).json())
	x, y := coordinates(p256)
	w("ok-eab-jwk-order", "the payload's members in another order, with space", "ok", "", jws(hs256, h, "{ \"y\":\""+y+"\",\n\"x\":\""+x+`","kty":"EC","crv":"P-256"}`).json())
	w("eab-nonce", "a nonce", "malformed", "must not have a nonce", jws(hs256, head(hs256, id, to, nonce), p256.jwk).json())
	w("eab-no-kid", "no kid", "malformed", "as kid", jws(hs256, head(hs256, to), p256.jwk).json())
	w("eab-empty-kid", "an empty kid", "malformed", "empty kid", jws(hs256, head(hs256, `"kid":""`, to), p256.jwk).json())
	w("eab-jwk", "jwk instead of kid", "malformed", "no jwk", jws(hs256, head(hs256, `"jwk":`+p256.jwk, to), p256.jwk).json())
	w("eab-jwk-and-kid", "jwk and kid", "malformed", "no jwk", jws(hs256, head(hs256, id, `"jwk":`+p256.jwk, to), p256.jwk).json())
	w("eab-no-url", "no url", "malformed", "no url", jws(hs256, head(hs256, id), p256.jwk).json())
	w("eab-crit", "crit", "malformed", "must not have the member", jws(hs256, head(hs256, id, to, `"crit":["x"],"x":1`), p256.jwk).json())
	w("eab-signature-alg", "signed by the account key, no MAC", "badSignatureAlgorithm", "supported: HS256", jws(p256, head(p256, id, to), p256.jwk).json())
	none := hs256
	none.alg = "none"
	w("eab-none", "alg none", "badSignatureAlgorithm", "supported: HS256", jws(none, head(none, id, to), p256.jwk).json())
	w("eab-payload-empty", "no key in the payload", "malformed", "JSON object", jws(hs256, h, "").json())
	w("eab-payload-null", "null for a key", "malformed", "JSON object", jws(hs256, h, "null").json())
	w("eab-payload-duplicate", "x twice in the payload", "malformed", "twice", jws(hs256, h, ec("P-256", x, y, `,"x":"AAAA"`)).json())
	w("eab-payload-trailing", "data after the payload's key", "malformed", "more data", jws(hs256, h, p256.jwk+"{}").json())
	w("eab-payload-private", "a private key in the payload", "badPublicKey", "never be sent", jws(hs256, h, ec("P-256", x, y, `,"d":"AAAA"`)).json())
	w("eab-payload-oct", "the MAC key itself in the payload", "badPublicKey", "never be sent", jws(hs256, h, `{"kty":"oct","k":"AAAA"}`).json())
	w("eab-null", "null", "malformed", "JSON object", "null")
	w("eab-string", "a JWS in a string", "malformed", "JSON object", `"x"`)
	w("eab-other-key", "another MAC key", "unauthorized", "does not verify", flat.resign(macSigner("HS256", sha256.New, bytes.Repeat([]byte{1}, 32))).json())
	cut := flat
	cut.signature = b64(un64(flat.signature)[:16])
	w("eab-short-mac", "half of the MAC", "unauthorized", "does not verify", cut.json())
	cut.signature = ""
	w("eab-empty-mac", "no MAC", "malformed", "signature is empty", cut.json())
	w("eab-other-hash", "HS256's MAC under HS512", "unauthorized", "does not verify", jws(signer{"HS512", "", hs256.sign}, head(hs512, id, to), p256.jwk).json())
}

func stored() {
	w := func(name, why, expect, says, body string) {
		write(name, vector{Why: why, Ref: "RFC 7638 section 3", Read: "key", Body: body, Expect: expect, Says: says})
	}
	for name, k := range map[string]signer{"P-256": p256, "P-384": p384, "P-521": p521, "Ed25519": ed, "RSA": rs} {
		w("ok-key-"+name, "a canonical "+name+" key", "ok", "", k.jwk)
	}
	canonical := "canonical form"
	x, y := coordinates(p256)
	w("key-order", "members in another order", "malformed", canonical, ec("P-256", x, y, ""))
	w("key-space", "white space", "malformed", canonical, strings.Replace(p256.jwk, ",", ", ", 1))
	w("key-more", "a member more than needed", "malformed", canonical, strings.Replace(p256.jwk, "}", `,"z":1}`, 1))
	w("key-escape", "an escaped character", "malformed", canonical, strings.Replace(p256.jwk, `"EC"`, `"\u0045C"`, 1))
	w("key-empty", "nothing", "malformed", "JSON object", "")
	w("key-private", "a private key", "badPublicKey", "never be sent", strings.Replace(p256.jwk, "}", `,"d":"AAAA"}`, 1))
	w("key-too-long", "more than 8 KiB", "malformed", "longer than", p256.jwk+strings.Repeat(" ", 8<<10))
}

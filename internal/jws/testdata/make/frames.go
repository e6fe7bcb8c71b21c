package main

import (
	"encoding/json"
	"fmt"
	"log"
	"strings"
)

func taken() {
	for _, k := range []signer{p256, p384, p521, ed, rs} {
		ok("kid-"+k.alg, "RFC 8555 section 6.2", "a request of an account with "+k.alg, k, good(k).json(), order)
		ok("jwk-"+k.alg, "RFC 8555 section 6.2", "a request with its own key and "+k.alg, k, withJWK(k, k.jwk), order)
	}
	m := jws(p256, head(p256, kid, nonce, url), "")
	ok("post-as-get", "RFC 8555 section 6.3", "the payload is the empty string", p256, m.json(), "")
	ok("empty-object", "RFC 8555 section 7.5.1", "the payload is {}, which is not POST-as-GET", p256, jws(p256, head(p256, kid, nonce, url), "{}").json(), "{}")
	ok("no-nonce", "RFC 8555 section 6.5", "no nonce: the caller answers badNonce so that the client tries again", p256, jws(p256, head(p256, kid, url), order).json(), order)
	ok("space", "RFC 8259 section 2", "white space around every token", p256,
		fmt.Sprintf("\r\n{ \"signature\" :\t%q ,\n\"payload\": %q,\"protected\":%q }\n", good2.signature, good2.payload, good2.protected), order)
	ok("header-space-and-escapes", "RFC 8259 section 7", "the header has white space and escaped slashes, as PHP clients send them", p256,
		jws(p256, `{ "alg": "\u0045S256", "kid": "https:\/\/ca.example\/acme\/acct\/1", "nonce": "bm9uY2U", "url": "https:\/\/ca.example\/acme\/new-order" }`, order).json(), order)
	ok("frame-escapes", "RFC 8259 section 7", "an escaped character in the frame's strings", p256,
		strings.Replace(good2.json(), `"protected":"e`, `"\u0070rotected":"\u0065`, 1), order)
	ok("header-typ", "RFC 7515 section 4", "header members that mean nothing here are ignored", p256,
		jws(p256, head(p256, `"typ":"JOSE","cty":{"a":[1,-2.5e+3,true,false,null]}`, kid, nonce, url), order).json(), order)
	odd := `{"resource":"new-order","🔑":"\ud83d\udd11","n":[0,-0,1.5,1e9,2E-3,{}],"identifiers":[]}`
	ok("payload-unknown-members", "RFC 8555 section 6.2", "payload members nobody knows are the caller's to ignore; x/crypto sends some", p256,
		jws(p256, head(p256, kid, nonce, url), odd).json(), odd)
	deep := strings.Repeat(`{"a":`, 8) + "1" + strings.Repeat("}", 8)
	ok("payload-depth-8", "bound of ours", "eight levels of nesting, the most we take", p256, jws(p256, head(p256, kid, nonce, url), deep).json(), deep)
	x, y := coordinates(p256)
	ok("jwk-extra-members", "RFC 7517 section 4", "the jwk has kid, use, alg and key_ops that agree with its key", p256,
		withJWK(p256, ec("P-256", x, y, `,"kid":"me","use":"sig","alg":"ES256","key_ops":["verify"],"ext":true`)), order)
}

var good2 = good(p256)

func coordinates(k signer) (x, y string) {
	var v struct{ X, Y string }
	if err := json.Unmarshal([]byte(k.jwk), &v); err != nil {
		log.Fatal(err)
	}
	return v.X, v.Y
}

func frames() {
	m, flat := good2, "RFC 8555 section 6.2"
	body := m.json()
	fault("frame-empty", flat, "no body at all", "JSON object", "")
	fault("frame-compact", flat, "the compact form of RFC 7515 section 7.1", "JSON object", m.protected+"."+m.payload+"."+m.signature)
	fault("frame-compact-as-string", flat, "the compact form in a JSON string", "JSON object", `"`+m.protected+"."+m.payload+"."+m.signature+`"`)
	fault("frame-general", flat, "the general form with one signature", "several signatures",
		fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, m.payload, m.protected, m.signature))
	fault("frame-flattened-and-general", flat, "flattened and general at once", "several signatures",
		strings.TrimSuffix(body, "}")+fmt.Sprintf(`,"signatures":[{"protected":%q,"signature":%q}]}`, m.protected, m.signature))
	fault("frame-unprotected-header", flat, "an unprotected header", "unprotected header", strings.TrimSuffix(body, "}")+`,"header":{"kid":"x"}}`)
	fault("frame-unprotected-header-empty", flat, "an unprotected header, even an empty one", "unprotected header", strings.TrimSuffix(body, "}")+`,"header":{}}`)
	fault("frame-unknown-member", "rule of ours", "a fourth member", "unknown member", strings.TrimSuffix(body, "}")+`,"extra":1}`)
	fault("frame-lookalike-member", "rule of ours", "Payload for payload: encoding/json would take it", "unknown member", strings.Replace(body, `"payload"`, `"Payload"`, 1))
	for _, name := range []string{"protected", "payload", "signature"} {
		fault("frame-without-"+name, "RFC 7515 section 7.2.2", "no "+name, "must be a flattened JWS", without(m, name))
		fault("frame-number-as-"+name, "RFC 7515 section 7.2.2", name+" is a number", "must have a JSON string", numberAs(m, name))
		fault("frame-null-as-"+name, "RFC 7515 section 7.2.2", name+" is null", "must have a JSON string", strings.Replace(numberAs(m, name), "42", "null", 1))
	}
	fault("frame-duplicate-payload", "RFC 7515 section 4", "payload twice: readers may take the first or the last", "twice", strings.TrimSuffix(body, "}")+`,"payload":"e30"}`)
	fault("frame-duplicate-escaped", "RFC 7515 section 4", "payload twice, once with an escape in its name", "twice", strings.TrimSuffix(body, "}")+`,"pa\u0079load":"e30"}`)
	fault("frame-duplicate-case", "RFC 7515 section 4", "payload and PAYLOAD", "twice", strings.TrimSuffix(body, "}")+`,"PAYLOAD":"e30"}`)
	fault("frame-trailing-data", "RFC 8259 section 2", "a second value after the object", "more data", body+"{}")
	fault("frame-trailing-brace", "RFC 8259 section 2", "one brace too many", "more data", body+"}")
	fault("frame-trailing-nul", "RFC 8259 section 2", "a NUL byte after the object", "more data", body+"\x00")
	fault("frame-truncated", "RFC 8259 section 4", "the closing brace is missing", "not valid JSON", strings.TrimSuffix(body, "}"))
	fault("frame-truncated-string", "RFC 8259 section 7", "ends inside a string", "does not end", body[:len(body)-9])
	fault("frame-trailing-comma", "RFC 8259 section 4", "a comma before the closing brace", "string", strings.TrimSuffix(body, "}")+",}")
	fault("frame-no-comma", "RFC 8259 section 4", "no comma between two members", "comma", strings.Replace(body, `,"payload"`, ` "payload"`, 1))
	fault("frame-no-colon", "RFC 8259 section 4", "no colon after a name", "colon", strings.Replace(body, `"payload":`, `"payload" `, 1))
	fault("frame-bom", "RFC 8259 section 8.1", "a byte order mark", "JSON object", "\ufeff"+body)
	fault("frame-array", flat, "an array of one JWS", "JSON object", "["+body+"]")
	fault("frame-comment", "RFC 8259 section 2", "a comment", "string", strings.Replace(body, `{`, `{/**/`, 1))
	fault("frame-single-quotes", "RFC 8259 section 7", "single quotes", "string", strings.ReplaceAll(body, `"`, `'`))
	fault("frame-form-feed", "RFC 8259 section 2", "a form feed as white space", "comma", strings.Replace(body, `,"payload"`, "\f,\"payload\"", 1))
	fault("frame-deep", "bound of ours", "nesting without end where a string belongs", "must have a JSON string",
		strings.Replace(body, `"payload":"`+m.payload, `"payload":`+strings.Repeat("[", 5000)+`"`, 1))
}

func without(m message, name string) string {
	members := map[string]string{"protected": m.protected, "payload": m.payload, "signature": m.signature}
	delete(members, name)
	out, err := json.Marshal(members)
	if err != nil {
		log.Fatal(err)
	}
	return string(out)
}

func numberAs(m message, name string) string {
	members := map[string]any{"protected": m.protected, "payload": m.payload, "signature": m.signature}
	members[name] = 42
	out, err := json.Marshal(members)
	if err != nil {
		log.Fatal(err)
	}
	return string(out)
}

func encodings() {
	const ref = "RFC 7515 section 2"
	says := "must be base64url"
	h := head(p256, kid, nonce, url)
	for len(h)%3 != 1 { // so that two characters of padding fit, and four bits are spare
		h = strings.Replace(h, "acct/1", "acct/11", 1)
	}
	at := jws(p256, h, `{"a":1111}`) // ten bytes: likewise
	padded, spare := at, at
	padded.protected += "=="
	fault("base64-padded-protected", ref, "protected is padded", "protected "+says, padded.resign(p256).json())
	padded = at
	padded.payload += "=="
	fault("base64-padded-payload", ref, "payload is padded", "payload "+says, padded.resign(p256).json())
	padded = at
	padded.signature += "=="
	fault("base64-padded-signature", ref, "signature is padded", "signature "+says, padded.json())
	spare.protected = nextLast(spare.protected)
	fault("base64-spare-bits-protected", ref, "the unused bits of protected's last character aren't zero", "protected "+says, spare.resign(p256).json())
	spare = at
	spare.payload = nextLast(spare.payload)
	fault("base64-spare-bits-payload", ref, "the unused bits of payload's last character aren't zero", "payload "+says, spare.resign(p256).json())
	spare = at
	spare.signature = nextLast(spare.signature)
	fault("base64-spare-bits-signature", ref, "the unused bits of the signature's last character aren't zero: a second form of one signature", "signature "+says, spare.json())
	for name, insert := range map[string]string{"newline": `\n`, "return": `\r`, "space": " ", "plus": "+", "slash": "/", "dot": "."} {
		for _, part := range []string{"protected", "payload", "signature"} {
			m := at
			switch part {
			case "protected":
				m.protected = m.protected[:8] + insert + m.protected[8:]
			case "payload":
				m.payload = m.payload[:8] + insert + m.payload[8:]
			case "signature":
				m.signature = m.signature[:8] + insert + m.signature[8:]
			}
			fault("base64-"+name+"-in-"+part, ref, "a "+name+" inside "+part, part+" "+says, m.json())
		}
	}
	m := at
	m.payload += "e30"
	fault("base64-impossible-length", ref, "one character more than a multiple of four", "payload "+says, m.resign(p256).json())
	m = at
	m.payload = "é" + m.payload
	fault("base64-not-ascii", ref, "a letter that is no base64", "payload "+says, m.json())
}

// nextLast sets a spare bit of the last character.
func nextLast(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + alphabet[i|1:i|1+1]
}

// texts are faults of JSON strings, in the header and in the payload.
func texts() {
	for name, c := range map[string]struct{ why, text, says string }{
		"invalid-utf8":   {"a byte that is no UTF-8", "a\xffb", "UTF-8"},
		"overlong-utf8":  {"an overlong slash", "a\xc0\xafb", "UTF-8"},
		"surrogate-utf8": {"a surrogate as UTF-8", "a\xed\xa0\x80b", "UTF-8"},
		"nul":            {"a raw NUL", "a\x00b", "control character"},
		"nul-escape":     {"an escaped NUL", `a\u0000b`, `\u0000`},
		"newline":        {"a raw line break", "a\nb", "control character"},
		"newline-late":   {"a raw line break after an escape", "a\\tx\nb", "control character"},
		"half-surrogate": {"half a surrogate pair", `a\ud800b`, "surrogate"},
		"two-high":       {"two high surrogates", `a\ud800\ud800b`, "surrogate"},
		"low-first":      {"a low surrogate first", `a\udc00\ud800b`, "surrogate"},
		"bad-escape":     {"an escape that JSON doesn't have", `a\x41b`, "escape"},
		"short-escape":   {"an escape with three digits", `a\u041`, "escape"},
		"signed-escape":  {"an escape with a sign", `a\u+041b`, "escape"},
	} {
		fault("text-header-"+name, "RFC 8259 section 7", c.why+" in the header", c.says,
			jws(p256, head(p256, `"kid":"`+c.text+`"`, nonce, url), order).json())
		fault("text-payload-"+name, "RFC 8259 section 7", c.why+" in the payload", c.says,
			jws(p256, head(p256, kid, nonce, url), `{"contact":["`+c.text+`"]}`).json())
	}
}

func headers() {
	const ref = "RFC 8555 section 6.2"
	h := func(name, ref, why, says, protected string) {
		fault("header-"+name, ref, why, says, jws(p256, protected, order).json())
	}
	alg := func(name, why, value string) {
		write("alg-"+name, vector{Why: why, Ref: ref, Read: "request", Key: p256.jwk, Expect: "badSignatureAlgorithm", Says: "supported: ES256",
			Body: jws(p256, "{"+strings.Join([]string{`"alg":` + value, kid, nonce, url}, ",")+"}", order).json()})
	}
	alg("none", "no signature at all", `"none"`)
	alg("none-case", "none in another case", `"nOnE"`)
	alg("HS256", "a MAC, keyed perhaps with the public key", `"HS256"`)
	alg("PS256", "RSASSA-PSS", `"PS256"`)
	alg("RS512", "an RSA hash that we don't offer", `"RS512"`)
	alg("ES256K", "ECDSA on secp256k1", `"ES256K"`)
	alg("lower-case", "alg is case-sensitive (RFC 7515 section 4.1.1)", `"es256"`)
	alg("empty", "an empty alg", `""`)
	alg("long", "a long alg, which must not come back whole in the error", `"`+strings.Repeat("A", 4000)+`"`)
	h("empty", ref, "an empty header", "no alg", "{}")
	h("no-alg", ref, "no alg", "no alg", "{"+kid+","+nonce+","+url+"}")
	h("number-alg", "RFC 7515 section 4.1.1", "alg is a number", "string", `{"alg":256,`+kid+","+nonce+","+url+"}")
	h("no-url", "RFC 8555 section 6.4", "no url", "no url", head(p256, kid, nonce))
	h("empty-url", "RFC 8555 section 6.4", "url is empty", "no url", head(p256, kid, nonce, `"url":""`))
	h("number-url", "RFC 8555 section 6.4.1", "url is a number", "string", head(p256, kid, nonce, `"url":1`))
	h("number-nonce", "RFC 8555 section 6.5.2", "nonce is a number", "string", head(p256, kid, url, `"nonce":1`))
	h("nonce-not-base64url", "RFC 8555 section 6.5.2", "the nonce has a character that base64url has not", "nonce", head(p256, kid, url, `"nonce":"bm9+Y2U"`))
	h("nonce-padded", "RFC 8555 section 6.5.2", "the nonce is padded", "nonce", head(p256, kid, url, `"nonce":"bm9uY2U="`))
	h("neither-jwk-nor-kid", ref, "no key", "either jwk or kid", head(p256, nonce, url))
	h("both-jwk-and-kid", ref, "two keys", "either jwk or kid", head(p256, kid, `"jwk":`+p256.jwk, nonce, url))
	h("empty-kid", ref, "kid is empty", "empty kid", head(p256, `"kid":""`, nonce, url))
	h("empty-kid-and-jwk", ref, "an empty kid beside a jwk", "empty kid", head(p256, `"kid":""`, `"jwk":`+p256.jwk, nonce, url))
	h("number-kid", ref, "kid is a number", "string", head(p256, `"kid":1`, nonce, url))
	h("null-kid", ref, "kid is null", "string", head(p256, `"kid":null`, nonce, url))
	h("null-jwk", ref, "jwk is null", "as jwk", head(p256, `"jwk":null`, nonce, url))
	h("string-jwk", ref, "jwk is a string", "as jwk", head(p256, `"jwk":"x"`, nonce, url))
	for name, member := range map[string]string{
		"crit": `"crit":["exp"],"exp":1`, "crit-empty": `"crit":[]`, "crit-b64": `"crit":["b64"],"b64":false`,
		"b64-false": `"b64":false`, "b64-true": `"b64":true`,
		"jku": `"jku":"https://evil.example/keys"`, "x5u": `"x5u":"https://evil.example/cert"`, "x5c": `"x5c":["MIIB"]`,
		"x5t": `"x5t":"AAAA"`, "x5t-S256": `"x5t#S256":"AAAA"`,
		"lookalike-Alg": `"Alg":"none"`, "lookalike-long-s": `"x5t#ſ256":"AAAA"`, "lookalike-Kelvin": `"jw` + "\u212a" + `":{}`, "lookalike-URL": `"URL":"https://evil.example/"`, "lookalike-Crit": `"Crit":["exp"]`,
	} {
		says := "must not have the member"
		if name == "lookalike-Alg" {
			says = "twice" // alg came first
		}
		h(name, "RFC 7515 section 4.1, RFC 7797", "the header has "+name+", which changes how it is read or whose key counts, or looks like one that does", says, head(p256, member, kid, nonce, url))
	}
	h("lookalike-alone", "RFC 7515 section 4", "Nonce instead of nonce", "must not have the member", head(p256, kid, url, `"Nonce":"bm9uY2U"`))
	h("duplicate-alg", "RFC 7515 section 4", "alg twice", "twice", head(p256, kid, nonce, url, `"alg":"ES256"`))
	h("duplicate-kid", "RFC 7515 section 4", "kid twice", "twice", head(p256, kid, kid, nonce, url))
	h("duplicate-url-case", "RFC 7515 section 4", "url and Url", "twice", head(p256, kid, nonce, url, `"Url":"x"`))
	h("duplicate-unknown", "RFC 7515 section 4", "a member that nobody knows, twice", "twice", head(p256, kid, nonce, url, `"typ":"a","typ":"b"`))
	h("duplicate-nested", "RFC 7515 section 4", "a duplicate inside an unknown member", "twice", head(p256, kid, nonce, url, `"cty":{"a":1,"a":2}`))
	h("array", ref, "the header is an array", "JSON object", "["+head(p256, kid, nonce, url)+"]")
	h("trailing-data", ref, "data after the header's object", "more data", head(p256, kid, nonce, url)+" 1")
	h("deep", "bound of ours", "an unknown member nested without end", "levels deep", head(p256, kid, nonce, url, `"cty":`+strings.Repeat("[", 2000)))
	h("too-long", "bound of ours", "a header of more than 8 KiB", "longer than", head(p256, kid, nonce, url, `"typ":"`+strings.Repeat("a", 8<<10)+`"`))
	fault("header-not-encoded", "RFC 7515 section 7.2.2", "protected is the header itself, not its base64url", "JSON string",
		fmt.Sprintf(`{"protected":%s,"payload":%q,"signature":%q}`, head(p256, kid, nonce, url), good2.payload, good2.signature))
	fault("header-empty-string", "RFC 8555 section 6.2", "protected is empty", "JSON object", jws(p256, "", order).json())
}

func payloads() {
	p := func(name, why, says, payload string) {
		fault("payload-"+name, "RFC 8555 section 6.2", why, says, jws(p256, head(p256, kid, nonce, url), payload).json())
	}
	p("null", "null is no object", "JSON object", "null")
	p("array", "an array is no object", "JSON object", "[]")
	p("string", "a string is no object", "JSON object", `""`)
	p("space", "white space is neither empty nor an object", "JSON object", " ")
	p("text", "no JSON", "JSON object", "hello")
	p("trailing-data", "two objects", "more data", "{}{}")
	p("trailing-comma", "a comma before the brace", "string", `{"a":1,}`)
	p("array-trailing-comma", "a comma before the bracket", "value", `{"a":[1,]}`)
	p("leading-zero", "a number with a leading zero", "comma", `{"a":01}`)
	p("plus", "a number with a plus", "value", `{"a":+1}`)
	p("no-fraction", "a number that ends with its point", "value", `{"a":1.}`)
	p("no-exponent", "a number without its exponent", "value", `{"a":1e}`)
	p("nan", "NaN", "value", `{"a":NaN}`)
	p("no-value", "a member without a value", "value", `{"a":}`)
	p("True", "a literal in the wrong case", "value", `{"a":True}`)
	p("unclosed", "the object isn't closed", "comma", `{"a":1`)
	p("mismatched", "closed by the wrong bracket", "comma", `{"a":[1}]`)
	p("number-name", "a name that is no string", "string", `{1:1}`)
	p("duplicate", "a member twice", "twice", `{"csr":"AA","csr":"AQ"}`)
	p("duplicate-case", "csr and CSR: encoding/json takes the later one for both", "twice", `{"csr":"AA","CSR":"AQ"}`)
	p("duplicate-long-s", "status with a long s, which encoding/json folds", "twice", `{"status":"valid","ſtatus":"deactivated"}`)
	p("duplicate-nested", "a duplicate three levels down", "twice", `{"identifiers":[{"type":"dns","value":"a","value":"b"}]}`)
	p("duplicate-escaped", "a duplicate that only decoding shows", "twice", `{"csr":"AA","c\u0073r":"AQ"}`)
	p("deep-objects", "nine levels of objects", "levels deep", strings.Repeat(`{"a":`, 9)+"1"+strings.Repeat("}", 9))
	p("deep-arrays", "5,000 open brackets", "levels deep", `{"a":`+strings.Repeat("[", 5000))
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf(`"m%d":1`, i))
	}
	p("many-members", "65 members in one object", "64 members", "{"+strings.Join(many, ",")+"}")
	p("not-encoded-nul", "a NUL byte after the object", "more data", "{}\x00")
	fault("payload-object", "RFC 7515 section 7.2.2", "the payload is an object, not its base64url", "JSON string",
		fmt.Sprintf(`{"protected":%q,"payload":{},"signature":%q}`, good2.protected, good2.signature))
}

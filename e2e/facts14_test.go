package e2e_test

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestFacts14To23(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		f := newFacts(w)
		w.Sub("14 renewing at every run", func(w *harness.World) {
			// A life of a day makes most clients renew whenever they are started.
			r := f.client(w)
			var was *x509.Certificate
			for range 5 {
				cert := w.Chain(r.Issue(f.responder, w.NewKey(), nil, "a.test"))[0]
				if life := cert.NotAfter.Sub(cert.NotBefore); life > 24*time.Hour {
					w.Errorf("a certificate lasts %v by default, want a day", life)
				}
				if was != nil {
					w.Renewed(was, cert)
				}
				was = cert
			}
		})
		w.Sub("15 renewal information", func(w *harness.World) { f.renewalInfo(w) })
		w.Sub("16 profiles", func(w *harness.World) { f.profiles(w) })
		w.Sub("17 revocation", func(w *harness.World) { f.revocation(w) })
		w.Sub("18 IP addresses", func(w *harness.World) {
			newAcmez(w, f.ca, solveHTTP01(f.responder)).obtain(w.NewKey(), nil, "127.0.0.1")
			newAcmez(w, f.ca, solveALPN01(f.responder)).obtain(w.NewKey(), nil, "127.0.0.1")
			if snis := f.responder.SNIs(); !slices.Contains(snis, "1.0.0.127.in-addr.arpa") {
				w.Errorf("tls-alpn-01 for an address came with the server names %q", snis)
			}
			r := f.client(w) // lego 4.9
			r.Problem(r.Order(nil, "127.0.0.1"), "malformed", "rejectedIdentifier", "unsupportedIdentifier")
		})
		w.Sub("19 subjects and chains", func(w *harness.World) {
			r := f.client(w) // its CSR has no subject
			key := w.NewKey()
			file := w.Write("chain.pem", r.Issue(f.responder, key, nil, "a.test", "b.test"))
			w.Verify(f.ca, []string{"a.test", "b.test"}, file)
			if chain := w.Chain(w.Read(file)); len(chain) < 2 {
				w.Errorf("the chain has %d certificates, want the leaf and its issuer", len(chain))
			}
		})
		w.Sub("20 wildcards", func(w *harness.World) { f.wildcards(w) })
		w.Sub("21 external account binding", func(w *harness.World) { f.eab(w) })
		w.Sub("22 keyChange", func(w *harness.World) {
			r := f.client(w)
			old := r.Key
			r.Want(http.StatusOK, r.RollTo(w.NewKey()))
			r.Want(http.StatusOK, r.Post(r.KID, nil))
			gone := w.Raw(f.ca, f.ca.Directory)
			gone.Key = old
			gone.Problem(gone.Post(gone.URL("newAccount"), j{"onlyReturnExisting": true}), "accountDoesNotExist")
			if harness.Pebble { // it gives two accounts one key
				return
			}
			other := f.client(w)
			if a := r.RollTo(other.Key); a.Status != http.StatusConflict || a.Header.Get("Location") != other.KID {
				w.Errorf("a key that another account has is answered by %d, Location %q, want 409 and %q", a.Status, a.Header.Get("Location"), other.KID)
			}
		})
		w.Sub("23 client certificates", func(w *harness.World) { f.clientCerts(w) })
	})
}

func (f facts) renewalInfo(w *harness.World) {
	r := f.client(w)
	cert := w.Chain(r.Issue(f.responder, w.NewKey(), nil, "ari.test"))[0]
	id := certID(cert)
	a := r.Want(http.StatusOK, r.Get(strings.TrimSuffix(r.URL("renewalInfo"), "/")+"/"+id))
	if a.Header.Get("Retry-After") == "" {
		w.Error("renewal information comes without Retry-After")
	}
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
	}
	if err := json.Unmarshal(a.Body, &info); err != nil {
		w.Fatal(err)
	}
	if win := info.SuggestedWindow; !win.Start.Before(win.End) || win.Start.Before(cert.NotBefore) || win.End.After(cert.NotAfter) {
		w.Errorf("the window is %v, the certificate lasts from %v to %v", win, cert.NotBefore, cert.NotAfter)
	}
	// RFC 9773, 5: one replacement for one certificate, and only by its names' holder.
	second := w.Chain(r.Issue(f.responder, w.NewKey(), j{"replaces": id}, "ari.test"))[0]
	if again := r.Order(j{"replaces": id}, "ari.test"); again.Status != http.StatusConflict {
		w.Errorf("a second replacement is answered by %d, want 409: %s", again.Status, again.Body)
	} else {
		r.Problem(again, "alreadyReplaced")
	}
	stranger := f.client(w)
	if a := stranger.Order(j{"replaces": certID(second)}, "ari.test"); a.Status/100 != 4 {
		w.Errorf("another account's replacement is answered by %d: %s", a.Status, a.Body)
	}
}

// certID names a certificate to renewalInfo (RFC 9773, 4.1).
func certID(c *x509.Certificate) string {
	serial := c.SerialNumber.Bytes()
	if serial[0] >= 0x80 { // as DER has it
		serial = append([]byte{0}, serial...)
	}
	return harness.B64(c.AuthorityKeyId) + "." + harness.B64(serial)
}

func (f facts) profiles(w *harness.World) {
	r := f.client(w)
	d := readDirectory(w, f.ca, f.ca.Directory)
	if d.Meta == nil || len(d.Meta.Profiles) == 0 {
		w.Fatal("the directory names no profiles")
	}
	for name := range d.Meta.Profiles {
		if o := r.Want(http.StatusCreated, r.Order(j{"profile": name}, "a.test")); o.S("profile") != name {
			w.Errorf("an order with profile %q says %q", name, o.S("profile"))
		}
	}
	r.Problem(r.Order(j{"profile": "no-such-profile"}, "a.test"), "invalidProfile")
	if harness.Pebble { // it picks one at random
		return
	}
	first := r.Want(http.StatusCreated, r.Order(nil, "a.test")).S("profile")
	for range 5 {
		if again := r.Want(http.StatusCreated, r.Order(nil, "a.test")).S("profile"); again != first {
			w.Errorf("orders that ask for no profile get %q and %q", first, again)
		}
	}
}

func (f facts) revocation(w *harness.World) {
	owner, holder, stranger := f.client(w), f.client(w), f.client(w)
	f.ready(holder, nil, "rev.test") // it proves the name too
	for _, reason := range []int{1, 4} {
		for _, by := range []string{"account", "certificate key", "holder of the authorizations"} {
			key := w.NewKey()
			cert := w.Chain(owner.Issue(f.responder, key, nil, "rev.test"))[0]
			payload := j{"certificate": harness.B64(cert.Raw), "reason": reason}
			url := owner.URL("revokeCert")
			stranger.Problem(stranger.Post(url, payload), "unauthorized")
			var a harness.Answer
			switch by {
			case "account":
				a = owner.Post(url, payload)
			case "certificate key":
				a = owner.PostKey(key, url, payload)
			default:
				if harness.Pebble { // it knows the issuing account only
					continue
				}
				a = holder.Post(url, payload)
			}
			// Another account cannot know that the key is compromised: it may be told
			// so, for reason 1 with its proof being the key itself (RFC 5280, 5.3.1).
			if by == "holder of the authorizations" && reason == 1 && a.Status/100 == 4 {
				w.Logf("reason 1 by another account: %s", a.Body)
				continue
			}
			owner.Want(http.StatusOK, a)
			second := owner.Post(url, payload)
			owner.Problem(second, "alreadyRevoked")
			if second.Status != http.StatusBadRequest {
				w.Errorf("%s, reason %d: a second revocation is answered by %d, want 400", by, reason, second.Status)
			}
		}
	}
}

func (f facts) wildcards(w *harness.World) {
	r := f.client(w)
	order := r.Want(http.StatusCreated, r.Order(nil, "*.w.test", "w.test"))
	url := order.Header.Get("Location")
	authz := r.Authz(order)
	if len(authz) != 2 {
		w.Fatalf("%d authorizations, want one for each identifier", len(authz))
	}
	for _, z := range authz {
		id, _ := z.JSON["identifier"].(j)
		if id["value"] != "w.test" {
			w.Errorf("an authorization is for %v, want w.test (RFC 8555, 7.1.4)", id)
		}
		if z.JSON["wildcard"] == true {
			for _, c := range z.JSON["challenges"].([]any) {
				if kind := c.(j)["type"].(string); !strings.HasPrefix(kind, "dns-") {
					w.Errorf("%s is offered for a wildcard", kind)
				}
			}
		}
		token := r.Challenge(z, "dns-01")["token"].(string)
		f.names.AddTXT("_acme-challenge.w.test", r.KeyAuthDigest(token))
	}
	// Both values stand at one name before either is looked at.
	for _, z := range authz {
		r.Want(http.StatusOK, r.Post(r.Challenge(z, "dns-01")["url"].(string), j{}))
	}
	ready := r.Wait(url, "ready")
	r.Want(http.StatusOK, r.Finalize(ready, w.NewKey(), "*.w.test", "w.test"))
	pem := r.Want(http.StatusOK, r.Post(r.Wait(url, "valid").S("certificate"), nil)).Body
	w.Verify(f.ca, []string{"*.w.test", "w.test"}, w.Write("wild.pem", string(pem)))
}

func (f facts) eab(w *harness.World) {
	kid, hmac := f.ca.EAB()
	good := w.Raw(f.ca, f.ca.Directory)
	good.Want(http.StatusCreated, good.Account(j{"externalAccountBinding": good.EAB(kid, hmac, "HS256")}))
	good.Issue(f.responder, w.NewKey(), nil, "a.test")

	kid, hmac = f.ca.EAB()
	for what, binding := range map[string]func(r *harness.Raw) json.RawMessage{
		"another key":         func(r *harness.Raw) json.RawMessage { return r.EAB(kid, "AAAA"+hmac[4:], "HS256") },
		"an unknown key ID":   func(r *harness.Raw) json.RawMessage { return r.EAB("no-such-kid", hmac, "HS256") },
		"an algorithm not so": func(r *harness.Raw) json.RawMessage { return r.EAB(kid, hmac, "none") },
	} {
		r := w.Raw(f.ca, f.ca.Directory)
		if a := r.Post(r.URL("newAccount"), j{"termsOfServiceAgreed": true, "externalAccountBinding": binding(r)}); a.Status/100 != 4 {
			w.Errorf("a binding with %s is answered by %d: %s", what, a.Status, a.Body)
		}
	}
	if harness.Pebble { // it binds any number of accounts to one key
		return
	}
	again := w.Raw(f.ca, f.ca.Directory)
	again.Want(http.StatusCreated, again.Account(j{"externalAccountBinding": again.EAB(kid, hmac, "HS256")}))
	third := w.Raw(f.ca, f.ca.Directory)
	if a := third.Post(third.URL("newAccount"), j{"termsOfServiceAgreed": true, "externalAccountBinding": third.EAB(kid, hmac, "HS256")}); a.Status/100 != 4 {
		w.Errorf("a key for one account is taken for a second: %d %s", a.Status, a.Body)
	}
}

func (f facts) clientCerts(w *harness.World) {
	w.Ours("it issues server certificates only")
	server, client := f.client(w), w.Raw(f.ca, f.ca.Clients)
	client.Want(http.StatusCreated, client.Account(nil))
	sKey, cKey := w.NewKey(), w.NewKey()
	files := func(name, chain string) (leaf, rest string) {
		leaf, after, _ := strings.Cut(chain, "-----END CERTIFICATE-----\n")
		return w.Write(name+".pem", leaf+"-----END CERTIFICATE-----\n"), w.Write(name+"-chain.pem", after)
	}
	sLeaf, sRest := files("server", server.Issue(f.responder, sKey, nil, "a.test"))
	cLeaf, cRest := files("client", client.Issue(f.responder, cKey, nil, "client.test"))
	verify := func(purpose, rest, leaf string) *harness.Cmd {
		return w.Cmd("openssl", "verify", "-x509_strict", "-CAfile", f.ca.Root, "-untrusted", rest, "-purpose", purpose, leaf)
	}
	verify("sslserver", sRest, sLeaf).OK()
	verify("sslclient", cRest, cLeaf).OK()
	verify("sslclient", sRest, sLeaf).Fails()
	verify("sslserver", cRest, cLeaf).Fails()

	// TLS 1.3, both ends OpenSSL's, then curl's end.
	sKeyFile, cKeyFile := w.WriteKey("server.key", sKey), w.WriteKey("client.key", cKey)
	w.Cmd("openssl", "s_server", "-accept", "127.0.0.1:8443", "-tls1_3", "-www", "-cert", sLeaf, "-cert_chain", sRest, "-key", sKeyFile,
		"-CAfile", f.ca.Root, "-Verify", "2", "-verify_return_error").Start().Says("ACCEPT")
	w.Write("client-full.pem", w.Read(cLeaf)+w.Read(cRest))
	w.Write("server-full.pem", w.Read(sLeaf)+w.Read(sRest))
	curl := func(cert, key string) *harness.Cmd {
		return w.Cmd("curl", "-sS", "--fail", "--max-time", "10", "--tlsv1.3", "--cacert", f.ca.Root, "--cert", cert, "--key", key, "https://a.test:8443/")
	}
	curl(w.Path("client-full.pem"), cKeyFile).OK()
	curl(w.Path("server-full.pem"), sKeyFile).Fails() // a server's certificate is no client's
	out := w.Cmd("openssl", "s_client", "-connect", "127.0.0.1:8443", "-servername", "a.test", "-verify_hostname", "a.test", "-verify_return_error",
		"-CAfile", f.ca.Root, "-tls1_3", "-cert", cLeaf, "-cert_chain", cRest, "-key", cKeyFile).Stdin("GET / HTTP/1.0\r\n\r\n").OK()
	if !strings.Contains(out, "Verify return code: 0 (ok)") {
		w.Errorf("s_client says:\n%s", out)
	}
}

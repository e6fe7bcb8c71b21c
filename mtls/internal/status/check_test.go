package status

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"
)

// want is how Check ends.
type want int

const (
	allowed want = iota
	refused      // for want of an answer
	gone         // revoked
)

func check(t *testing.T, c *Checker, staple []byte, chain ...*x509.Certificate) want {
	t.Helper()
	err := c.Check([][]*x509.Certificate{chain}, staple, time.Now())
	_, revoked := errors.AsType[*RevokedError](err)
	switch {
	case err == nil:
		return allowed
	case revoked:
		return gone
	}
	t.Log("refused: ", err)
	return refused
}

func expect(t *testing.T, got, want want, what string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// took runs f and expects it to take that long on the bubble's clock.
func took(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

// scene is a CA and a peer whose certificate points to both sources.
type scene struct {
	ca   *authority
	leaf *x509.Certificate
	web  *web
	c    *Checker
}

// sources run a test for lists and for OCSP; good and bad make the web say so.
var sources = map[string]struct {
	policy Policy
	say    func(t *testing.T, s *scene, revoked bool)
}{
	"CRL": {Policy{Prefer: CRL}, func(t *testing.T, s *scene, revoked bool) {
		number++
		if revoked {
			s.web.body(listOf(t, s.ca, number, time.Now(), nil, s.leaf))
		} else {
			s.web.body(listOf(t, s.ca, number, time.Now(), nil))
		}
	}},
	"OCSP": {Policy{Prefer: OCSP}, func(t *testing.T, s *scene, revoked bool) {
		if revoked {
			s.web.body(answerFor(t, s.ca, nil, s.leaf, time.Now(), revoke(time.Now())))
		} else {
			s.web.body(answerFor(t, s.ca, nil, s.leaf, time.Now(), nil))
		}
	}},
}

// number is the last list's; the tests that use it aren't parallel.
var number int64

func newScene(t *testing.T, p Policy) *scene {
	t.Helper()
	s := &scene{ca: newCA(t, "ca", ecKey(t)), web: &web{}}
	s.leaf = newLeaf(t, s.ca, responderURL, listURL)
	s.c = newChecker(t, p, s.web)
	return s
}

func both(t *testing.T, hard bool, f func(t *testing.T, s *scene, say func(revoked bool))) {
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := source.policy
				p.Hard = hard
				s := newScene(t, p)
				f(t, s, func(revoked bool) { source.say(t, s, revoked) })
			})
		})
	}
}

// Soft: the first handshake passes at once, and what was found out in the
// background counts from then on.
func TestSoft(t *testing.T) {
	both(t, false, func(t *testing.T, s *scene, say func(bool)) {
		say(true)
		took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "at first sight") })
		synctest.Wait()
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "once it is known")
		time.Sleep(2 * 24 * time.Hour)
		s.web.fail()
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "long after the finding has ended")
		expect(t, check(t, s.c, nil, newLeaf(t, s.ca, "", ""), s.ca.cert), allowed, "who names nobody")
	})
}

// Soft, and nobody answers: allowed, at once, and not asked again and again.
func TestSoftDown(t *testing.T) {
	both(t, false, func(t *testing.T, s *scene, say func(bool)) {
		s.web.hang()
		for range 3 {
			took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "hanging") })
		}
		if n := s.web.asked(); n > 1 {
			t.Errorf("%d fetches at once", n)
		}
		time.Sleep(61 * time.Second) // it is given up after 10 or 60 s, and left alone for 30
		s.web.asked()
		s.web.fail()
		time.Sleep(retryAfter)
		for range 3 {
			expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "failing")
			synctest.Wait()
		}
		if n := s.web.asked(); n != 1 {
			t.Errorf("asked %d times within %v", n, retryAfter)
		}
		say(true)
		time.Sleep(retryAfter)
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "the first word is on its way")
		synctest.Wait()
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "back again")
	})
}

// Hard: the first handshake waits for the answer, all of them for the same one;
// then none waits while the answer holds.
func TestHard(t *testing.T) {
	both(t, true, func(t *testing.T, s *scene, say func(bool)) {
		say(false)
		answer := s.web.say
		s.web.set(func(req *http.Request) (*http.Response, error) { time.Sleep(3 * time.Second); return answer(req) })
		took(t, 3*time.Second, func() {
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "waiting") })
			}
			wg.Wait()
		})
		if n := s.web.asked(); n != 1 {
			t.Errorf("asked %d times for one answer", n)
		}
		s.web.hang()
		for range 3 { // half-way, with a refresh that hangs, and then failed
			time.Sleep(time.Hour)
			took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "while the answer holds") })
		}
		if n := s.web.asked(); n == 0 {
			t.Error("nobody asks for a newer answer")
		}
		time.Sleep(10 * time.Minute) // past its nextUpdate and the skew
		took(t, 5*time.Second, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), refused, "the answer has ended") })
	})
}

// Hard, and nobody answers: refused after the bounded wait, and at once while
// the failure is fresh.
func TestHardDown(t *testing.T) {
	both(t, true, func(t *testing.T, s *scene, say func(bool)) {
		s.web.hang()
		took(t, 5*time.Second, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), refused, "hanging") })
		time.Sleep(time.Minute)
		s.web.fail()
		time.Sleep(retryAfter)
		took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), refused, "failing") })
		took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), refused, "failed") })
		say(true)
		time.Sleep(retryAfter)
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "it answers: revoked")
	})
}

// A good answer of the past doesn't undo a newer one, whether it is replayed by
// the network or by the peer.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: OCSP, Hard: true})
		early := answerFor(t, s.ca, nil, s.leaf, time.Now(), nil) // holds for 3 h
		earlyList := listOf(t, s.ca, 1, time.Now(), func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(24 * time.Hour) })
		time.Sleep(time.Hour)
		s.web.body(answerFor(t, s.ca, nil, s.leaf, time.Now(), revoke(time.Now())))
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "revoked")
		s.web.body(early)
		time.Sleep(time.Hour)
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), gone, "the old answer by the network")
		expect(t, check(t, s.c, early, s.leaf, s.ca.cert), gone, "the old answer by the peer")
		expect(t, check(t, s.c, answerFor(t, s.ca, nil, s.leaf, time.Now(), nil), s.leaf, s.ca.cert), gone, "a new good one: revoked is final")

		lists := newChecker(t, Policy{Prefer: CRL, Hard: true}, s.web)
		s.web.body(listOf(t, s.ca, 2, time.Now(), nil, newLeaf(t, s.ca, "", "")))
		expect(t, check(t, lists, nil, s.leaf, s.ca.cert), allowed, "not on the list")
		s.web.body(listOf(t, s.ca, 3, time.Now(), nil, s.leaf))
		time.Sleep(2 * time.Hour)
		check(t, lists, nil, s.leaf, s.ca.cert)
		synctest.Wait()
		expect(t, check(t, lists, nil, s.leaf, s.ca.cert), gone, "on the list")
		expect(t, check(t, lists, early, s.leaf, s.ca.cert), gone, "an old answer by the peer, in spite of the list")
		s.web.body(earlyList)
		time.Sleep(2 * time.Hour)
		s.web.asked()
		check(t, lists, nil, newLeaf(t, s.ca, "", listURL), s.ca.cert) // somebody else's handshake fetches it
		synctest.Wait()
		if s.web.asked() == 0 {
			t.Error("nobody asked")
		}
		expect(t, check(t, lists, nil, s.leaf, s.ca.cert), gone, "the old list")
	})
}

// Staples: heard first under every policy, needed under one.
func TestStaple(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []Policy{{Prefer: OCSP, Hard: true}, {Prefer: CRL, Hard: true}, {Prefer: OCSP, Staple: true}} {
			s := newScene(t, p)
			s.web.fail()
			good := answerFor(t, s.ca, newResponder(t, s.ca, nil), s.leaf, time.Now(), nil)
			for range 3 {
				expect(t, check(t, s.c, good, s.leaf, s.ca.cert), allowed, "good")
			}
			if n := s.web.asked(); n != 0 {
				t.Errorf("asked %d times in spite of a staple", n)
			}
			expect(t, check(t, s.c, good, newLeaf(t, s.ca, responderURL, listURL), s.ca.cert), refused, "another's staple")
			expect(t, check(t, s.c, nil, newLeaf(t, s.ca, responderURL, listURL), s.ca.cert), refused, "none")
			expect(t, check(t, s.c, []byte("garbage"), newLeaf(t, s.ca, responderURL, listURL), s.ca.cert), refused, "garbage")
			unknown := newLeaf(t, s.ca, responderURL, listURL)
			der := answerFor(t, s.ca, nil, unknown, time.Now(), func(r *ocsp.Response) { r.Status = ocsp.Unknown })
			expect(t, check(t, s.c, der, unknown, s.ca.cert), refused, "unknown")
			expect(t, check(t, s.c, answerFor(t, s.ca, nil, s.leaf, time.Now(), revoke(time.Now())), s.leaf, s.ca.cert), gone, "revoked")
			expect(t, check(t, s.c, good, s.leaf, s.ca.cert), gone, "the old one again")
			time.Sleep(4 * time.Hour)
			late := newLeaf(t, s.ca, responderURL, listURL)
			expect(t, check(t, s.c, answerFor(t, s.ca, nil, late, time.Now().Add(-4*time.Hour), nil), late, s.ca.cert), refused, "ended")
		}
	})
}

// Two servers with one certificate staple answers of different age.
func TestStaplesOfSeveralAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: OCSP, Staple: true})
		old := answerFor(t, s.ca, nil, s.leaf, time.Now(), nil)
		time.Sleep(time.Hour)
		newer := answerFor(t, s.ca, nil, s.leaf, time.Now(), nil)
		for _, staple := range [][]byte{newer, old, newer} {
			expect(t, check(t, s.c, staple, s.leaf, s.ca.cert), allowed, "good")
		}
	})
}

// Who can't be asked about: RFC 9608's noRevAvail, and no pointer at all.
func TestNobodyToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca", ecKey(t))
		never := pkix.Extension{Id: []int{2, 5, 29, 56}, Value: []byte{5, 0}}
		short := issue(t, ca, ecKey(t), func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{never} }).cert
		both := issue(t, ca, ecKey(t), func(c *x509.Certificate) {
			c.ExtraExtensions, c.OCSPServer = []pkix.Extension{never}, []string{responderURL}
		}).cert
		ldap := newLeaf(t, ca, "", "ldap://directory.test/cn=ca")
		middle := issue(t, ca, ecKey(t), func(c *x509.Certificate) { c.Subject.CommonName, c.IsCA = "middle", true })
		below := issue(t, middle, ecKey(t), func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{never} }).cert
		w := &web{}
		w.fail()
		for _, p := range []Policy{{Prefer: CRL, Hard: true}, {Prefer: OCSP, Hard: true}, {Prefer: OCSP, Staple: true, Hard: true}} {
			c := newChecker(t, p, w)
			w.asked()
			expect(t, check(t, c, nil, short, ca.cert), allowed, "noRevAvail")
			expect(t, check(t, c, nil, below, middle.cert, ca.cert), allowed, "an intermediate that names nobody")
			if n := w.asked(); n != 0 {
				t.Errorf("asked %d times about them", n)
			}
			expect(t, check(t, c, nil, both, ca.cert), refused, "noRevAvail with a pointer")
			expect(t, check(t, c, nil, newLeaf(t, ca, "", ""), ca.cert), refused, "no pointer")
			expect(t, check(t, c, nil, ldap, ca.cert), refused, "a pointer that isn't http")
			expect(t, check(t, c, nil, ca.cert), allowed, "a trust anchor")
		}
	})
}

// A revoked intermediate takes all below it along, but for those who have
// another way to a root.
func TestIntermediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newCA(t, "root", ecKey(t))
		middle := issue(t, root, ecKey(t), func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.CRLDistributionPoints = "middle", true, []string{listURL}
		})
		crossed := issue(t, root, middle.key, func(c *x509.Certificate) { c.Subject.CommonName, c.IsCA = "middle", true })
		leaf := issue(t, middle, ecKey(t), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 56}, Value: []byte{5, 0}}}
		}).cert
		w := &web{}
		w.body(listOf(t, root, 1, time.Now(), with(point([]string{listURL}, 2)), middle.cert))
		c := newChecker(t, Policy{Prefer: OCSP, Hard: true}, w) // it names a list only, so that is asked
		expect(t, check(t, c, nil, leaf, middle.cert, root.cert), gone, "below a revoked intermediate")
		err := c.Check([][]*x509.Certificate{{leaf, middle.cert, root.cert}, {leaf, crossed.cert, root.cert}}, nil, time.Now())
		if err != nil {
			t.Errorf("with another way: %v", err)
		}
	})
}

// A list of end entities only says nothing of a CA that names the same URL.
func TestKindsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newCA(t, "root", ecKey(t))
		middle := issue(t, root, ecKey(t), func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.CRLDistributionPoints = "middle", true, []string{listURL}
		})
		w := &web{}
		w.body(listOf(t, root, 1, time.Now(), with(point([]string{listURL}, 1))))
		c := newChecker(t, Policy{Prefer: CRL, Hard: true}, w)
		expect(t, check(t, c, nil, newLeaf(t, root, "", listURL), root.cert), allowed, "an end entity")
		below := issue(t, middle, ecKey(t), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 56}, Value: []byte{5, 0}}}
		}).cert
		expect(t, check(t, c, nil, below, middle.cert, root.cert), refused, "a CA")
	})
}

// A certificate of another part isn't judged by this part.
func TestPartsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: CRL, Hard: true})
		s.web.body(listOf(t, s.ca, 1, time.Now(), with(point([]string{listURL}))))
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "of the part")
		expect(t, check(t, s.c, nil, newLeaf(t, s.ca, "", "http://crl.test/part8.crl"), s.ca.cert), refused, "of another")
	})
}

// All of a Check waits once, however many certificates and paths there are.
func TestOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newCA(t, "root", ecKey(t))
		w := &web{}
		w.hang()
		c := newChecker(t, Policy{Prefer: CRL, Hard: true}, w)
		var paths [][]*x509.Certificate
		for range 3 {
			middle := issue(t, root, ecKey(t), func(c *x509.Certificate) {
				c.Subject.CommonName, c.IsCA, c.CRLDistributionPoints = "middle", true, []string{listURL}
			})
			paths = append(paths, []*x509.Certificate{newLeaf(t, middle, "", listURL), middle.cert, root.cert})
		}
		took(t, 5*time.Second, func() {
			if err := c.Check(paths, nil, time.Now()); err == nil {
				t.Error("allowed")
			}
		})
	})
}

// One CA's list, at a URL that another CA's certificates name too, doesn't get
// into the other's way.
func TestIssuersApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCA(t, "ca", ecKey(t)), newCA(t, "ca", ecKey(t))
		w := &web{}
		c := newChecker(t, Policy{Prefer: CRL, Hard: true}, w)
		ofA, ofB := newLeaf(t, a, "", listURL), newLeaf(t, b, "", listURL)
		w.body(listOf(t, b, 900, time.Now(), nil, ofA)) // B's word about A's certificate
		expect(t, check(t, c, nil, ofB, b.cert), allowed, "B's")
		w.body(listOf(t, a, 1, time.Now(), nil))
		expect(t, check(t, c, nil, ofA, a.cert), allowed, "A's")

		c = newChecker(t, Policy{Prefer: OCSP, Hard: true}, w)
		ofA = newLeaf(t, a, responderURL, "")
		ofB = issue(t, b, ecKey(t), func(c *x509.Certificate) {
			c.SerialNumber, c.OCSPServer = ofA.SerialNumber, []string{responderURL}
		}).cert
		w.body(answerFor(t, a, nil, ofA, time.Now(), nil))
		expect(t, check(t, c, nil, ofA, a.cert), allowed, "A's")
		w.fail()
		expect(t, check(t, c, nil, ofB, b.cert), refused, "B's of the same serial")
	})
}

// The responder doesn't know it: refused under Hard, and asked again soon,
// since it may just have been issued.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hard := range []bool{false, true} {
			s := newScene(t, Policy{Prefer: OCSP, Hard: hard})
			s.web.body(answerFor(t, s.ca, nil, s.leaf, time.Now(), func(r *ocsp.Response) { r.Status = ocsp.Unknown }))
			want := allowed
			if hard {
				want = refused
			}
			for range 3 {
				expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), want, "unknown")
				synctest.Wait()
			}
			if n := s.web.asked(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			s.web.hang()
			time.Sleep(2 * refreshMin)
			took(t, 0, func() { expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), want, "while it is asked again") })
			s.web.body(answerFor(t, s.ca, nil, s.leaf, time.Now(), nil))
			time.Sleep(2 * refreshMin)
			check(t, s.c, nil, s.leaf, s.ca.cert)
			synctest.Wait()
			expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "known by now")
		}
	})
}

// A list that hasn't changed isn't sent again.
func TestETag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: CRL, Hard: true})
		s.web.body(listOf(t, s.ca, 1, time.Now(), nil))
		full := s.web.say
		var tags []string
		s.web.set(func(req *http.Request) (*http.Response, error) {
			tag := req.Header.Get("If-None-Match")
			tags = append(tags, tag)
			if tag == `"one"` {
				return &http.Response{StatusCode: 304, Header: http.Header{}, Body: http.NoBody}, nil
			}
			res, err := full(req)
			res.Header.Set("ETag", `"one"`)
			return res, err
		})
		for range 3 {
			expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "on the way")
			synctest.Wait()
			time.Sleep(80 * time.Minute)
		}
		if got := strings.Join(tags, ","); got != `,"one","one"` {
			t.Errorf("asked with %s", got)
		}
	})
}

// Memory is bounded, and who was used last stays.
func TestBounds(t *testing.T) {
	c := newCache(10)
	first := c.get(key{1})
	for i := range 100 {
		c.get(key{2, byte(i)})
		if c.get(key{1}) != first {
			t.Fatal("the one used always was dropped")
		}
	}
	if len(c.entries) != 10 || c.used.Len() != 10 || c.cost != 10 {
		t.Errorf("%d entries, cost %d", len(c.entries), c.cost)
	}
	c.weigh(first, 8)
	if len(c.entries) != 3 || c.cost != 10 {
		t.Errorf("%d entries, cost %d after one grew", len(c.entries), c.cost)
	}
	c.weigh(c.get(key{3}), 1000)
	if len(c.entries) != 1 || c.cost != 1000 {
		t.Errorf("%d entries, cost %d with one that is too large alone", len(c.entries), c.cost)
	}
	c.weigh(first, 5) // dropped
	if c.cost != 1000 {
		t.Error("what was dropped counts")
	}
}

// Fetches at once are bounded; others' handshakes go on, or are refused.
func TestFlightsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: OCSP})
		s.web.hang()
		for range maxFlights + 20 {
			expect(t, check(t, s.c, nil, newLeaf(t, s.ca, responderURL, ""), s.ca.cert), allowed, "soft")
		}
		synctest.Wait()
		if n := s.web.asked(); n != maxFlights {
			t.Errorf("%d fetches at once", n)
		}
		time.Sleep(time.Minute)
		expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), allowed, "soft")
		synctest.Wait()
		if n := s.web.asked(); n != 1 {
			t.Errorf("%d fetches when the others have ended", n)
		}
	})
}

// Close ends what is under way.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Policy{Prefer: OCSP, Hard: true})
		s.web.hang()
		done := make(chan want)
		go func() { done <- check(t, s.c, nil, s.leaf, s.ca.cert) }()
		synctest.Wait()
		took(t, 0, func() {
			s.c.Close()
			expect(t, <-done, refused, "waiting at Close")
			expect(t, check(t, s.c, nil, s.leaf, s.ca.cert), refused, "after Close")
		})
	})
}

func TestLongSerial(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	leaf := newLeaf(t, ca, responderURL, "")
	leaf.SerialNumber.Lsh(leaf.SerialNumber, 200)
	expect(t, check(t, newChecker(t, Policy{}, &web{}), nil, leaf, ca.cert), refused, "a serial of 41 octets")
}

// What the look at an answer at hand costs a handshake.
func BenchmarkCheck(b *testing.B) {
	for name, p := range map[string]Policy{"CRL": {Prefer: CRL, Hard: true}, "OCSP": {Prefer: OCSP, Hard: true}} {
		b.Run(name, func(b *testing.B) {
			s := &scene{ca: newCA(b, "ca", ecKey(b)), web: &web{}}
			s.leaf = newLeaf(b, s.ca, responderURL, listURL)
			c := newChecker(b, p, s.web)
			s.web.body(listOf(b, s.ca, 1, time.Now(), nil))
			if p.Prefer == OCSP {
				s.web.body(answerFor(b, s.ca, nil, s.leaf, time.Now(), nil))
			}
			paths, now := [][]*x509.Certificate{{s.leaf, s.ca.cert}}, time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Check(paths, nil, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package status

import (
	"testing"
	"time"
)

// Whatever comes back, reading it ends without a panic, and nothing that
// nobody has signed is an answer.
func FuzzOCSP(f *testing.F) {
	ca := newCA(f, "ca", ecKey(f))
	leaf, now := newLeaf(f, ca, responderURL, ""), time.Now()
	// What verifies is made with another key, so that no input can.
	stranger := &authority{ca.cert, ecKey(f)}
	f.Add(answerFor(f, stranger, nil, leaf, now, nil))
	f.Add(answerFor(f, stranger, nil, leaf, now, revoke(now)))
	f.Add(answerFor(f, ca, newResponder(f, newCA(f, "ca", ecKey(f)), nil), leaf, now, nil))
	f.Add([]byte{0x30, 3, 0x0a, 1, 3})
	f.Fuzz(func(t *testing.T, der []byte) {
		if a, err := verifyOCSP(der, leaf, ca.cert, now); err == nil {
			t.Errorf("%x counts: %+v", der, a)
		}
		if r, err := parseOCSP(der); err == nil && r.verify(ca.cert, now) == nil { // without a look at whom it is about
			t.Errorf("%x is signed", der)
		}
	})
}

func FuzzCRL(f *testing.F) {
	ca := newCA(f, "ca", ecKey(f))
	leaf, now := newLeaf(f, ca, "", listURL), time.Now()
	stranger := newCA(f, "ca", ecKey(f))
	f.Add(listOf(f, stranger, 5, now, nil))
	f.Add(listOf(f, stranger, 5, now, with(point([]string{listURL}, 1)), leaf))
	f.Add(listOf(f, stranger, 5, now, with(point([]string{listURL}, 4)), leaf))
	f.Fuzz(func(t *testing.T, der []byte) {
		if l, err := verifyCRL(der, leaf, ca.cert, now); err == nil {
			t.Errorf("%x counts: %+v", der, l)
		}
		if c, err := parseCRL(der); err == nil && (c.number == nil || len(c.serials) > len(der)) {
			t.Errorf("%x is read as %+v", der, c)
		}
	})
}

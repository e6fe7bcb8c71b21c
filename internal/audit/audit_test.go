package audit

import (
	"bytes"
	"testing"
	"time"
)

func TestCanonicalRoundTrip(t *testing.T) {
	e := Entry{
		At: time.UnixMicro(1_800_000_000_000_001), Action: "order.create", Actor: "account:x", Peer: "192.0.2.1",
		Directory: "servers", Object: "o", Detail: map[string]any{"b": "2", "a": "1"},
	}
	text := e.Canonical()
	const want = `{"at":1800000000000001,"do":"order.create","by":"account:x","from":"192.0.2.1","dir":"servers","on":"o","detail":{"a":"1","b":"2"}}`
	if string(text) != want {
		t.Fatalf("got  %s\nwant %s", text, want)
	}
	back, err := Parse(text)
	if err != nil || !back.At.Equal(e.At) || !bytes.Equal(back.Canonical(), text) {
		t.Fatalf("got %+v, %v", back, err)
	}
}

func TestCanonicalSurvivesWhatJSONCannotCarry(t *testing.T) {
	e := Entry{Action: "x", Detail: map[string]any{"f": func() {}}}
	if _, err := Parse(e.Canonical()); err != nil {
		t.Fatal(err)
	}
}

// Every part of what is linked changes the link.
func TestLink(t *testing.T) {
	base := Link(Hash{}, 1, []byte("entry"))
	for why, other := range map[string]Hash{
		"another entry":    Link(Hash{}, 1, []byte("Entry")),
		"another sequence": Link(Hash{}, 2, []byte("entry")),
		"another past":     Link(Hash{1}, 1, []byte("entry")),
	} {
		if other == base {
			t.Errorf("%s has the same hash", why)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Entry{Action: "a", Actor: "b"}.Canonical())
	f.Add([]byte(`{"at":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil {
			if again, err := Parse(e.Canonical()); err != nil || !bytes.Equal(again.Canonical(), e.Canonical()) {
				t.Fatalf("%s is not stable", b)
			}
		}
	})
}

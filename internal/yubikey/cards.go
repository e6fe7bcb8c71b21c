//go:build pcsc && (cgo || windows)

package yubikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-piv/piv-go/v2/piv"
)

// Cards is the process's view of the cards in its readers. The zero value is
// ready. There must be one per process: a second one finds the cards taken,
// and doesn't know which PINs were refused. It is safe for concurrent use.
type Cards struct {
	// Person says that the PINs come from somebody who types them now: one
	// who sees that a single try is left may spend it, while a service never
	// does. It is set before anything else.
	Person bool

	mu    sync.Mutex       // guards cards and card.reader; held while looking through the readers
	cards map[uint32]*card // by serial; an entry stays when its card is pulled
}

// Another program, as a second replica's start, holds a card for a moment
// while it reads its serial number: so long is a card that is taken waited for.
// A card that just stopped answering is left alone until pcscd must have
// noticed that it is gone (it looks every 400 ms): go-piv would hold its reader
// for ever where it can connect but not select.
const (
	takenFor  = 800 * time.Millisecond
	settleFor = 500 * time.Millisecond
	poll      = 50 * time.Millisecond
)

// Open finds the key that a URI names (see ParseURI) and makes it ready to
// sign: it reads the public key from the card, and verifies the PIN, which is
// asked from pin only if the key's policy wants one and no other key of the
// card has shown it yet. pin may be nil for keys without PIN.
//
// It blocks on pcscd, the card and pin; a context that ends is noticed between
// commands. Errors: ErrNotFound (no such card, no key in the slot),
// ErrAmbiguous (no serial and several cards), ErrPIN. A PIN is tried once in
// the life of the process, and not at all if that could block the card.
func (c *Cards) Open(ctx context.Context, uri string, pin func(context.Context) ([]byte, error)) (*Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	crd, err := c.find(ctx, u.Serial)
	if err != nil {
		return nil, err
	}
	k := &Key{cards: c, card: crd, slot: u.Slot, source: pin}
	if err := k.attach(ctx); err != nil {
		crd.release()
		return nil, err
	}
	return k, nil
}

// find returns the card of a serial number, or the only one there, with its
// session open and one user more; the caller must release it.
func (c *Cards) find(ctx context.Context, serial uint32) (*card, error) {
	deadline := time.Now().Add(takenFor)
	for {
		found, err := c.look(ctx, serial)
		if !errors.Is(err, errTaken) && !errors.Is(err, errSettling) || time.Now().After(deadline) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(poll):
		}
	}
}

// Why looking again in a moment may help.
var (
	errTaken    = errors.New("in use by another program")
	errSettling = fmt.Errorf("%w: a card was pulled this very moment", ErrGone)
)

// look goes through the readers once.
func (c *Cards) look(ctx context.Context, serial uint32) (*card, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ours, readers := c.open()
	if c.settling() {
		return nil, errSettling
	}
	if serial != 0 {
		if crd := ours[serial]; crd != nil {
			crd.users.Add(1)
			return crd, nil
		}
	}
	s := scan{want: serial}
	defer s.close()
	if err := s.readers(readers); err != nil {
		return nil, err
	}
	serials := s.serials()
	if serial == 0 {
		for n := range ours {
			serials = append(serials, n)
		}
	}
	switch n, err := s.choose(serials); {
	case err != nil:
		return nil, err
	case ours[n] != nil:
		ours[n].users.Add(1)
		return ours[n], nil
	default:
		return c.take(n, &s), nil
	}
}

// settling reports whether a card was pulled just now; c.mu is held.
func (c *Cards) settling() bool {
	for _, crd := range c.cards {
		if time.Since(time.Unix(0, crd.lost.Load())) < settleFor {
			return true
		}
	}
	return false
}

// open returns the cards that have a session here, by serial and by reader.
func (c *Cards) open() (bySerial map[uint32]*card, readers []string) {
	bySerial = map[uint32]*card{}
	for n, crd := range c.cards {
		if crd.answers() {
			bySerial[n] = crd
			readers = append(readers, crd.reader)
		}
	}
	return bySerial, readers
}

// take makes a session of the scan a card's.
func (c *Cards) take(serial uint32, s *scan) *card {
	crd := c.cards[serial]
	if crd == nil {
		crd = &card{serial: serial, person: c.Person, refused: map[[32]byte]bool{}}
		if c.cards == nil {
			c.cards = map[uint32]*card{}
		}
		c.cards[serial] = crd
	}
	crd.users.Add(1)
	i := slices.IndexFunc(s.found, func(f session) bool { return f.serial == serial })
	crd.reader = s.found[i].reader
	crd.adopt(s.found[i].yk)
	s.found = slices.Delete(s.found, i, i+1)
	return crd
}

// session is an open connection to a card.
type session struct {
	yk     *piv.YubiKey
	serial uint32
	reader string
}

// scan is one look through the readers.
type scan struct {
	want  uint32    // 0: any
	found []session // open; what isn't taken, close ends
	taken []string  // readers that another program holds
	odd   []error   // readers that can't be read
}

// readers opens all cards in readers but those of ours; with a wanted serial,
// only until that is found.
func (s *scan) readers(ours []string) error {
	names, err := piv.Cards()
	if err != nil {
		return fmt.Errorf("%w: looking for readers: %w: is pcscd installed and running?", ErrAbsent, err)
	}
	for _, name := range names {
		// Other cards are left alone: go-piv would even keep those it
		// can't select PIV on.
		if slices.Contains(ours, name) || !strings.Contains(strings.ToLower(name), "yubikey") {
			continue
		}
		s.reader(name)
		if n := len(s.found); s.want != 0 && n > 0 && s.found[n-1].serial == s.want {
			return nil
		}
	}
	return nil
}

// reader opens the card in one reader.
func (s *scan) reader(name string) {
	yk, err := piv.Open(name)
	if err != nil {
		switch text := err.Error(); { // go-piv exports no codes
		case strings.Contains(text, "other connections outstanding"):
			s.taken = append(s.taken, name)
		case strings.Contains(text, "no Smart Card is currently in the device"):
		default:
			s.odd = append(s.odd, fmt.Errorf("reader %q: %w", name, err))
		}
		return
	}
	serial, err := yk.Serial()
	if err != nil {
		yk.Close()
		s.odd = append(s.odd, fmt.Errorf("reader %q: its card tells no serial number: %w", name, err))
		return
	}
	s.found = append(s.found, session{yk: yk, serial: serial, reader: name})
}

func (s *scan) serials() []uint32 {
	var all []uint32
	for _, f := range s.found {
		all = append(all, f.serial)
	}
	return all
}

// choose picks the wanted card among those that are there.
func (s *scan) choose(there []uint32) (uint32, error) {
	slices.Sort(there)
	switch {
	case s.want != 0 && slices.Contains(there, s.want):
		return s.want, nil
	case s.want == 0 && len(there) == 1 && len(s.taken) == 0:
		return there[0], nil
	case s.want == 0 && len(there)+len(s.taken) > 1:
		return 0, fmt.Errorf("%w: %s: add the serial number of one of them to the URI, as in yubikey:serial=%d;slot=9c", ErrAmbiguous, s.list(there), first(there))
	}
	name := "no YubiKey"
	if s.want != 0 {
		name = fmt.Sprintf("no YubiKey %d", s.want)
	}
	if len(s.taken) > 0 {
		return 0, fmt.Errorf("%w: %s among those that can be read (%s): one is %w: stop that (gpg's scdaemon, a browser, ykman)", ErrAbsent, name, s.list(there), errTaken)
	}
	err := fmt.Errorf("%w: %s in the readers (%s): plug it in", ErrAbsent, name, s.list(there))
	return 0, errors.Join(append([]error{err}, s.odd...)...)
}

// list names the cards that are there.
func (s *scan) list(there []uint32) string {
	var names []string
	for _, n := range there {
		names = append(names, fmt.Sprintf("YubiKey %d", n))
	}
	for _, r := range s.taken {
		names = append(names, fmt.Sprintf("one in use in reader %q", r))
	}
	if len(names) == 0 {
		return "none there"
	}
	return strings.Join(names, ", ")
}

func first(there []uint32) uint32 {
	if len(there) == 0 {
		return 12345678
	}
	return there[0]
}

// close ends the sessions that nobody took.
func (s *scan) close() {
	for _, f := range s.found {
		f.yk.Close()
	}
}

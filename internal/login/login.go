package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Login is one run of `chancery login`. The fields are set before Run.
type Login struct {
	CAs          []settings.CA          // tried in this order
	Certificates []settings.Certificate // all that is wanted; see Check
	Device       settings.Device
	Cards        *yubikey.Cards // with Person set
	State        State
	// PIN asks the person; it may block on them. What it returns is cleared.
	PIN func(ctx context.Context, prompt string) ([]byte, error)
	// Tell shows the person a line: what happens, and when to touch the key. It
	// is called from several goroutines at once.
	Tell func(line string)
	// Places is where certificates are put on this machine; its Slot is this
	// run's own.
	Places place.Options
	// Patience bounds the wait for a CA: until its challenges are there, and
	// three times as long from the touch to the certificate, since a signing
	// key may have a queue. 0: 20 seconds.
	Patience time.Duration
}

// defaults of what the settings leave out.
const (
	defaultLife     = 16 * time.Hour
	defaultSlot     = "9a"
	defaultPatience = 20 * time.Second
	placing         = 2 * time.Minute // for all places; some ask their user
)

// run is what Run keeps.
type run struct {
	*Login
	cas   []*authority
	uri   string
	att   *yubikey.Attestation
	tries int    // of the PIN
	pin   []byte // asked for once
}

// Run gets the certificates, puts them where they belong and returns them, in
// the order of l.Certificates. Where some can't be had, the others are there
// all the same, and the error says what is missing and what to do.
func (l *Login) Run(ctx context.Context) ([]Held, error) {
	unlock, err := l.State.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &run{Login: l}
	defer func() { clear(r.pin) }()
	wants, err := r.wants()
	if err != nil {
		return nil, err
	}
	attempts, err := r.begin(ctx, wants)
	if err != nil {
		return nil, err
	}
	for len(attempts) > 0 {
		again, err := r.round(ctx, attempts)
		if err != nil {
			return r.keep(ctx, wants, err)
		}
		attempts = r.prepare(ctx, again)
	}
	return r.keep(ctx, wants, nil)
}

// wants checks what is wanted.
func (r *run) wants() ([]*want, error) {
	if len(r.CAs) == 0 {
		return nil, errors.New("no CA is known: write one into the settings (chancery devices enroll does), or give --directory")
	}
	if len(r.Certificates) == 0 {
		return nil, errors.New("no certificate is wanted: name some in the settings, or give --name and --ssh")
	}
	for _, ca := range r.CAs {
		a, err := newAuthority(ca, r.patience())
		if err != nil {
			return nil, fmt.Errorf("CA %s: %w", ca.Name, err)
		}
		r.cas = append(r.cas, a)
	}
	var wants []*want
	for _, c := range r.Certificates {
		w, err := newWant(c, r.Certificates)
		if err != nil {
			return nil, fmt.Errorf("certificate %q: %w", c.Name, err)
		}
		if slices.ContainsFunc(wants, func(o *want) bool { return o.Name == w.Name }) {
			return nil, fmt.Errorf("two certificates are called %q", w.Name)
		}
		w.cas = slices.DeleteFunc(slices.Clone(r.cas), func(a *authority) bool { return c.CA != "" && a.Name != c.CA })
		if len(w.cas) == 0 {
			return nil, fmt.Errorf("certificate %q: the settings know no CA called %q", c.Name, c.CA)
		}
		wants = append(wants, w)
	}
	return wants, nil
}

func (r *run) patience() time.Duration { return cmp.Or(r.Patience, defaultPatience) }

// begin does what needs nobody: it looks at the card and talks to the CAs, both
// at once.
func (r *run) begin(ctx context.Context, wants []*want) ([]*attempt, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prepared := make(chan []*attempt, 1)
	go func() { prepared <- r.prepare(ctx, wants) }()
	if err := r.look(ctx); err != nil {
		cancel()
		<-prepared
		return nil, cardError(err)
	}
	attempts := <-prepared
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return attempts, nil
}

// look finds the card and what it states of the key.
func (r *run) look(ctx context.Context) error {
	slot, err := yubikey.ParseSlot(cmp.Or(r.Device.Slot, defaultSlot))
	if err != nil {
		return err
	}
	cards, err := r.Cards.List(ctx)
	if err != nil {
		return err
	}
	serial := r.Device.Serial
	if serial == 0 && len(cards) > 1 {
		var there []string
		for _, c := range cards {
			there = append(there, fmt.Sprint(c.Serial))
		}
		return fmt.Errorf("%w are plugged in (%s): say which with --serial", yubikey.ErrAmbiguous, strings.Join(there, ", "))
	}
	for _, c := range cards {
		if serial == 0 || c.Serial == serial {
			serial, r.tries = c.Serial, c.Tries
		}
	}
	r.uri = yubikey.URI{Serial: serial, Slot: slot}.String()
	r.att, _, err = r.Cards.Attest(ctx, r.uri)
	return err
}

// cardError says what a person can do about what a card did.
func cardError(err error) error {
	if errors.Is(err, yubikey.ErrGone) {
		return fmt.Errorf("the key was pulled out, or stopped answering: plug it in and try again (%w)", err)
	}
	return err
}

// prepare has every want get an order and its challenges at the first of its
// CAs that gives them, all at once. Those that no CA gives any keep the reason.
func (r *run) prepare(ctx context.Context, wants []*want) []*attempt {
	all := make([]*attempt, len(wants))
	var wg sync.WaitGroup
	for i, w := range wants {
		wg.Go(func() { all[i] = r.prepareOne(ctx, w) })
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(a *attempt) bool { return a == nil })
}

func (r *run) prepareOne(ctx context.Context, w *want) *attempt {
	for ; w.ca < len(w.cas); w.ca++ {
		ca := w.cas[w.ca]
		bounded, cancel := context.WithTimeout(ctx, r.patience())
		a, err := ca.prepare(bounded, w)
		cancel()
		if err == nil {
			return a
		}
		w.failed(ca, err)
		if ctx.Err() != nil {
			return nil
		}
		if w.ca+1 < len(w.cas) {
			r.Tell(fmt.Sprintf("%s: %s is left out (%s), %s is next", w, ca.Name, oneLine(err), w.cas[w.ca+1].Name))
		}
	}
	return nil
}

// round signs what was prepared and gets what it brings. It returns the wants
// whose CA failed after the touch and that have another one to go to; an error
// is the card's or the person's.
func (r *run) round(ctx context.Context, attempts []*attempt) ([]*want, error) {
	touches := 0
	for _, a := range attempts {
		touches += len(a.proofs)
	}
	if touches > 0 {
		if err := r.askPIN(ctx); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	err := r.sign(ctx, attempts, touches, func(a *attempt) {
		wg.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, 3*r.patience())
			defer cancel()
			if err := a.finish(bounded, r.att); err != nil {
				a.want.failed(a.ca, err)
				return
			}
			a.want.got = a
		})
	})
	wg.Wait()
	if err != nil {
		return nil, err
	}
	var again []*want
	for _, a := range attempts {
		if a.want.got != nil || ctx.Err() != nil {
			continue
		}
		if a.want.ca++; a.want.ca < len(a.want.cas) {
			r.Tell(fmt.Sprintf("%s failed after the touch (%s): %s is next, which needs another touch", a.ca.Name, oneLine(a.want.causes[len(a.want.causes)-1]), a.want.cas[a.want.ca].Name))
			again = append(again, a.want)
		}
	}
	return again, ctx.Err()
}

// askPIN asks the person, the first time that a PIN is needed. The card isn't
// held meanwhile.
func (r *run) askPIN(ctx context.Context) error {
	if r.pin != nil || r.att.PINPolicy == yubikey.PINNever {
		return nil
	}
	if r.tries == 0 {
		return fmt.Errorf("%w of YubiKey %d is blocked: unblock it with the PUK (ykman piv access unblock-pin), or ask whoever enrolled it", yubikey.ErrPIN, r.att.Serial)
	}
	prompt := fmt.Sprintf("PIN of YubiKey %d", r.att.Serial)
	if r.tries == 1 {
		prompt += " (1 try left before it blocks)"
	}
	pin, err := r.PIN(ctx, prompt)
	if err != nil {
		return err
	}
	r.pin = pin
	return nil
}

// sign opens the card, signs all that was prepared, and closes it. Each attempt
// is handed on as soon as it is signed.
func (r *run) sign(ctx context.Context, attempts []*attempt, touches int, signed func(*attempt)) error {
	if touches == 0 { // everything was proven already
		for _, a := range attempts {
			signed(a)
		}
		return nil
	}
	key, err := r.Cards.Open(ctx, r.uri, func(context.Context) ([]byte, error) { return slices.Clone(r.pin), nil })
	if err != nil {
		return cardError(err)
	}
	defer key.Close()
	n := 0
	for _, a := range attempts {
		for i := range a.proofs {
			if err := ctx.Err(); err != nil {
				return err
			}
			n++
			r.Tell(touchLine(r.att.TouchPolicy, n, touches, a))
			if a.proofs[i].signature, err = touched(ctx, key, a.proofs[i].message); err != nil {
				return cardError(err)
			}
		}
		signed(a)
	}
	return nil
}

// touched has the key sign. A key waits 15 seconds for its touch; who gives up
// earlier needn't.
func touched(ctx context.Context, key *yubikey.Key, message []byte) ([]byte, error) {
	type result struct {
		signature []byte
		err       error
	}
	done := make(chan result, 1)
	go func() {
		signature, err := yubikey.SignMessage(key, message)
		done <- result{signature, err}
	}()
	select {
	case r := <-done:
		return r.signature, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// touchLine says what the key is about to sign.
func touchLine(policy yubikey.TouchPolicy, n, of int, a *attempt) string {
	what := fmt.Sprintf("(%d of %d: %s at %s)", n, of, a.want, a.ca.Name)
	switch policy {
	case yubikey.TouchAlways:
		return "touch the key now " + what
	case yubikey.TouchCached:
		return "touch the key if it blinks " + what
	}
	return "the key signs " + what
}

// keep puts what was got where it belongs, and says what is missing. stopped
// is why it ended early, nil if it didn't.
func (r *run) keep(ctx context.Context, wants []*want, stopped error) ([]Held, error) {
	// What cost a touch is kept, also by somebody who gives up before the rest.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), placing)
	defer cancel()
	var all []Held
	errs := []error{stopped}
	for _, w := range wants {
		if w.got == nil {
			if stopped == nil {
				errs = append(errs, w.err())
			}
			continue
		}
		h, err := r.place(ctx, w)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w, err))
		}
		if h != nil {
			all = append(all, *h)
		}
	}
	return all, errors.Join(errs...)
}

// oneLine is an error on one line, as errors.Join makes several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

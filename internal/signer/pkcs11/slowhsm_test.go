//go:build cgo

package pkcs11_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/slowhsm"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
)

// card makes a token that behaves like a smart card, with a key "k".
func card(t *testing.T) (*slowhsm.Module, *softhsm.Token) {
	t.Helper()
	hsm := softhsm.New(t)
	slow := slowhsm.New(t, hsm.Module, hsm.Env())
	token := hsm.Token(t, "ca")
	token.Module = slow.Path
	tool(t, token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "01")
	return slow, token
}

// A wrong PIN is offered once, whoever asks again and however often.
func TestWrongPINOnce(t *testing.T) {
	slow, token := card(t)
	before := slow.Logins("ca")
	slow.SetFlags("ca", slowhsm.PINCountLow)
	bare := strings.Split(token.URI("k"), "&")[0]
	wrong := func(context.Context) ([]byte, error) { return []byte("987654"), nil }

	_, err := pkcs11.Open(t.Context(), bare, wrong)
	refused(t, "wrong PIN", err, pkcs11.ErrPIN, `token "ca"`, token.Serial, "CKR_PIN_INCORRECT", "counts wrong PINs", "won't be tried again")
	if strings.Contains(err.Error(), "987654") {
		t.Errorf("the error shows the PIN: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := pkcs11.Open(t.Context(), bare, wrong)
			refused(t, "the same again", err, pkcs11.ErrPIN, "refused already")
			_, err = pkcs11.Generate(t.Context(), strings.Replace(bare, "object=k", "object=new", 1), cert.P256, wrong)
			refused(t, "the same to generate", err, pkcs11.ErrPIN, "refused already")
		})
	}
	wg.Wait()
	if n := slow.Logins("ca") - before; n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}

	// Another PIN is another try; this one is right.
	k := open(t, token.URI("k"))
	if n := slow.Logins("ca") - before; n != 2 {
		t.Errorf("C_Login was called %d times", n)
	}
	// Someone spoils the PIN file while the token is away: one more try, ever.
	spoil := func(pin string) {
		if err := os.WriteFile(token.PINFile, []byte(pin+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slow.Plug("ca")
	spoil("4321")
	before = slow.Logins("ca")
	refused(t, "sign", sign(t, k), pkcs11.ErrGone)
	for range 3 {
		refused(t, "Reopen", k.Reopen(t.Context()), pkcs11.ErrPIN, token.Serial)
	}
	if n := slow.Logins("ca") - before; n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
	// The file gets the right one again: the key comes back by itself.
	spoil("1234")
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
}

// Eight that come at once with one wrong PIN cost one try.
func TestWrongPINAtOnce(t *testing.T) {
	slow, token := card(t)
	before := slow.Logins("ca")
	bare := strings.Split(token.URI("k"), "&")[0]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := pkcs11.Open(t.Context(), bare, func(context.Context) ([]byte, error) {
				time.Sleep(20 * time.Millisecond) // all would have it before the first is refused
				return []byte("0000"), nil
			})
			refused(t, "wrong PIN", err, pkcs11.ErrPIN)
		})
	}
	wg.Wait()
	if n := slow.Logins("ca") - before; n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
}

// CK_TOKEN_INFO says how near the token is to locking itself.
func TestLastTry(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	slow.Plug("ca")
	slow.SetFlags("ca", slowhsm.PINCountLow|slowhsm.PINFinalTry)
	before := slow.Logins("ca")
	refused(t, "sign", sign(t, k), pkcs11.ErrGone)
	refused(t, "Reopen before the last try", k.Reopen(t.Context()), pkcs11.ErrPIN, token.Serial, "locks it", "pkcs11-tool")
	if n := slow.Logins("ca") - before; n != 0 {
		t.Errorf("C_Login was called %d times", n)
	}
	_, err := pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "Open before the last try", err, pkcs11.ErrPIN, "locks it")
	if n := slow.Logins("ca") - before; n != 0 {
		t.Errorf("C_Login was called %d times", n)
	}
	slow.SetFlags("ca", slowhsm.PINLocked)
	_, err = pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "locked", err, pkcs11.ErrPIN, "locked", "security officer")
	if n := slow.Logins("ca") - before; n != 0 {
		t.Errorf("C_Login was called %d times on a locked token", n)
	}
}

func TestPullAndReturn(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	if err := sign(t, k); err != nil {
		t.Fatal(err)
	}
	public := k.Public()
	if err := k.Probe(); err != nil {
		t.Errorf("asked while it is there: %v", err)
	}
	signed := slow.Signatures("ca")
	slow.Unplug("ca")
	refused(t, "asked without token", k.Probe(), pkcs11.ErrGone, token.Serial)
	slow.Plug("ca")
	if slow.Signatures("ca") != signed {
		t.Error("asking costs a signature")
	}
	refused(t, "sign after it was missed", sign(t, k), pkcs11.ErrGone)
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}

	slow.Unplug("ca")
	refused(t, "sign without token", sign(t, k), pkcs11.ErrGone, token.Serial, "CKR_")
	refused(t, "sign again", sign(t, k), pkcs11.ErrGone)
	refused(t, "Reopen without token", k.Reopen(t.Context()), pkcs11.ErrNotFound, "plugged in")
	refused(t, "sign, told why", sign(t, k), pkcs11.ErrGone, "no token matches")

	slow.Plug("ca")
	refused(t, "sign before Reopen", sign(t, k), pkcs11.ErrGone)
	logins := slow.Logins("ca")
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
	if n := slow.Logins("ca") - logins; n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
	if !k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
		t.Error("the public key changed")
	}

	// Out and in again before anyone looked.
	slow.Plug("ca")
	refused(t, "sign after a short pull", sign(t, k), pkcs11.ErrGone)
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Reopen of a key that is there does no harm.
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
}

// A signature under way fails when the token is pulled, and doesn't wait.
func TestPulledWhileSigning(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	made := slow.Signatures("ca")
	slow.SetDelay("ca", time.Hour)
	errs := make(chan error, 3)
	for range cap(errs) { // one signs, two wait for the session
		go func() { errs <- sign(t, k) }()
	}
	time.Sleep(50 * time.Millisecond)
	slow.Unplug("ca")
	for range cap(errs) {
		select {
		case err := <-errs:
			refused(t, "sign", err, pkcs11.ErrGone)
		case <-time.After(5 * time.Second):
			t.Fatal("a signature waits for a token that is gone")
		}
	}
	if n := slow.Signatures("ca") - made; n != 0 {
		t.Errorf("%d signatures were made", n)
	}
	slow.SetDelay("ca", 0)
	slow.Plug("ca")
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
}

// Close lets a signature under way end, and its session then ends too: with
// the last one goes the login.
func TestCloseWhileSigning(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	slow.SetDelay("ca", 200*time.Millisecond)
	made := make(chan error)
	go func() { made <- sign(t, k) }()
	time.Sleep(50 * time.Millisecond)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := <-made; err != nil {
		t.Errorf("the signature under way: %v", err)
	}
	before := slow.Logins("ca")
	open(t, token.URI("k"))
	if n := slow.Logins("ca") - before; n != 1 {
		t.Errorf("C_Login was called %d times: a session was left open", n)
	}
}

// A token that comes back with another key under that name isn't taken.
func TestOtherKeyReturns(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	slow.Plug("ca")
	tool(t, token, "--delete-object", "--type", "privkey", "--label", "k")
	refused(t, "sign", sign(t, k), pkcs11.ErrGone)
	refused(t, "Reopen without key", k.Reopen(t.Context()), pkcs11.ErrNotFound)
	tool(t, token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "02")
	refused(t, "Reopen with another key", k.Reopen(t.Context()), pkcs11.ErrNotFound, "another key")
	refused(t, "sign", sign(t, k), pkcs11.ErrGone)
}

// Pulling one token of a module leaves the others alone, and the one that is
// pulled comes back beside them.
func TestTwoTokensOneModule(t *testing.T) {
	hsm := softhsm.New(t)
	slow := slowhsm.New(t, hsm.Module, hsm.Env())
	var keys []*pkcs11.Key
	one, two := hsm.Token(t, "one"), hsm.Token(t, "two")
	for _, token := range []*softhsm.Token{one, two} {
		token.Module = slow.Path
		keys = append(keys, generate(t, token.URI("k"), cert.P256))
	}
	slow.Unplug("one")
	refused(t, "the pulled one", sign(t, keys[0]), pkcs11.ErrGone)
	refused(t, "Reopen", keys[0].Reopen(t.Context()), pkcs11.ErrNotFound, two.Serial)
	if err := sign(t, keys[1]); err != nil {
		t.Errorf("the other token: %v", err)
	}
	slow.Plug("one")
	if err := keys[0].Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := sign(t, k); err != nil {
			t.Error(err)
		}
	}
}

func TestParallel(t *testing.T) {
	slow, token := card(t)
	real := *token
	hsm := softhsm.New(t)
	plain := hsm.Token(t, "plain")
	generate(t, plain.URI("k"), cert.P256)
	for uri, want := range map[string]int{
		real.URI("k"):                            1, // a card has one queue, ours
		real.URI("k") + "&chancery-parallel=3":   3,
		plain.URI("k"):                           8,
		plain.URI("k") + "&chancery-parallel=20": 20,
	} {
		k := open(t, uri)
		if k.Parallel() != want {
			t.Errorf("%s: parallel %d, want %d", uri, k.Parallel(), want)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 5 {
					if err := sign(t, k); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	if slow.Signatures("ca") < 100 {
		t.Errorf("the card made %d signatures", slow.Signatures("ca"))
	}
}

// Signing, pulling, plugging, reopening and closing all at once: every Sign
// ends, with a good signature or ErrGone, and in the end the key is there.
func TestUnrest(t *testing.T) {
	slow, token := card(t)
	uri := token.URI("k") + "&chancery-parallel=4"
	keys := []*pkcs11.Key{open(t, uri), open(t, uri)}
	var good atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, k := range keys {
		for range 4 {
			wg.Go(func() {
				for !stop.Load() {
					switch err := sign(t, k); {
					case err == nil:
						good.Add(1)
					case !errors.Is(err, pkcs11.ErrGone):
						t.Errorf("sign: %v", err)
					default:
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Go(func() {
			for !stop.Load() {
				k.Reopen(t.Context())
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	for range 10 {
		time.Sleep(40 * time.Millisecond)
		slow.Unplug("ca")
		time.Sleep(10 * time.Millisecond)
		slow.Plug("ca")
	}
	time.Sleep(40 * time.Millisecond)
	stop.Store(true)
	wg.Wait()
	if good.Load() == 0 {
		t.Error("no signature was made")
	}
	for _, k := range keys {
		if err := k.Reopen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := sign(t, k); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d signatures", good.Load())
}

// The module of package slowhsm does what it says: its speed, its counts, and
// what other programs see.
func TestSlowHSM(t *testing.T) {
	slow, token := card(t)
	k := open(t, token.URI("k"))
	made := slow.Signatures("ca")
	for _, whose := range []string{"", "ca"} { // all tokens, then this one
		slow.SetDelay(whose, 30*time.Millisecond)
		begun := time.Now()
		for range 5 {
			if err := sign(t, k); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took < 150*time.Millisecond {
			t.Errorf("five signatures of 30 ms took %v", took)
		}
		slow.SetDelay("", 0)
	}
	if n := slow.Signatures("ca") - made; n != 10 {
		t.Errorf("counted %d signatures of 10", n)
	}
	// Other processes need the module's path and nothing in their environment.
	os.Unsetenv("SOFTHSM2_CONF") // New's Setenv puts back what was
	slow.Unplug("ca")
	out, err := exec.Command("pkcs11-tool", "--module", slow.Path, "--list-token-slots").CombinedOutput()
	if err != nil || strings.Contains(string(out), token.Serial) {
		t.Errorf("pkcs11-tool sees a token that is unplugged: %v\n%s", err, out)
	}
	slow.Plug("ca")
	out, err = exec.Command("pkcs11-tool", "--module", slow.Path, "--list-token-slots").CombinedOutput()
	if err != nil || !strings.Contains(string(out), token.Serial) {
		t.Errorf("pkcs11-tool doesn't see the token: %v\n%s", err, out)
	}
}

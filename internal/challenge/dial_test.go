package challenge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func addrPorts(s ...string) (all []netip.AddrPort) {
	for _, a := range s {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(a), 80))
	}
	return all
}

// RFC 8305 section 4: IPv6 first, families in turns, order within kept.
func TestInterleave(t *testing.T) {
	got := interleave(addrPorts("10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2"))
	want := addrPorts("2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var many []string
	for range 20 {
		many = append(many, "10.0.0.1")
	}
	if got := interleave(addrPorts(many...)); len(got) != maxRaced {
		t.Errorf("%d addresses are raced, want %d", len(got), maxRaced)
	}
}

// RFC 8305 section 5: the next attempt starts after 250 ms, or at once when
// the one before has failed; the first success wins and ends the others.
func TestRace(t *testing.T) {
	const never = time.Hour
	failed := errors.New("refused")
	type attempt struct {
		takes time.Duration
		err   error
	}
	for _, c := range []struct {
		name     string
		attempts []attempt
		won      int // -1: none
		after    time.Duration
		discards int
	}{
		{"the first one", []attempt{{10 * time.Millisecond, nil}, {0, nil}}, 0, 10 * time.Millisecond, 0},
		{"a black hole first", []attempt{{never, nil}, {10 * time.Millisecond, nil}}, 1, 260 * time.Millisecond, 0},
		{"two black holes", []attempt{{never, nil}, {never, nil}, {0, nil}}, 2, 500 * time.Millisecond, 0},
		{"a refusal first", []attempt{{5 * time.Millisecond, failed}, {0, nil}}, 1, 5 * time.Millisecond, 0},
		{"the slow first one after all", []attempt{{300 * time.Millisecond, nil}, {100 * time.Millisecond, nil}}, 0, 300 * time.Millisecond, 0},
		{"all refuse", []attempt{{0, failed}, {5 * time.Millisecond, failed}}, -1, 5 * time.Millisecond, 0},
		{"one address", []attempt{{7 * time.Millisecond, nil}}, 0, 7 * time.Millisecond, 0},
		{"one address refuses", []attempt{{7 * time.Millisecond, failed}}, -1, 7 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var addrs []netip.AddrPort
				for i := range c.attempts {
					addrs = append(addrs, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i)))
				}
				start := time.Now()
				won, errs := race(t.Context(), addrs, func(ctx context.Context, to netip.AddrPort) (int, error) {
					a := c.attempts[to.Port()]
					select {
					case <-time.After(a.takes):
						return int(to.Port()), a.err
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				}, func(int) { t.Error("a late success") })
				if c.won >= 0 && (won != c.won || errs != nil) || c.won < 0 && len(errs) != len(c.attempts) {
					t.Errorf("won %d with errors %v, want %d", won, errs, c.won)
				}
				if took := time.Since(start); took != c.after {
					t.Errorf("took %v, want %v", took, c.after)
				}
			})
		})
	}
}

// What succeeds after the race is won must be closed.
func TestRaceDiscardsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		discarded := 0
		won, errs := race(t.Context(), addrPorts("10.0.0.1", "10.0.0.2"), func(_ context.Context, to netip.AddrPort) (string, error) {
			time.Sleep(300 * time.Millisecond) // deaf to the context
			return to.Addr().String(), nil
		}, func(late string) {
			if late == "10.0.0.2" {
				discarded++
			}
		})
		if won != "10.0.0.1" || errs != nil || discarded != 1 {
			t.Errorf("won %q, %v; %d discarded", won, errs, discarded)
		}
	})
}

func TestRaceEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, errs := race(ctx, addrPorts("10.0.0.1", "10.0.0.2", "10.0.0.3"), func(ctx context.Context, _ netip.AddrPort) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, func(int) {})
		if took := time.Since(start); len(errs) != 3 || took != time.Second {
			t.Errorf("ended after %v with %v", took, errs)
		}
	})
}

// blackHole is a port that never answers a SYN: a listener whose queue is
// full (Linux drops what comes then).
func blackHole(t *testing.T, ip netip.Addr, port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
	if err := syscall.Bind(fd, &syscall.SockaddrInet6{Addr: ip.As16(), Port: port}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(ip, uint16(port)).String()
	for range 8 {
		c, err := net.DialTimeout("tcp", to, 100*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the listener's queue doesn't fill")
}

// pair listens on both families' loopback addresses, on one port.
func pair(t *testing.T) (four, six net.Listener) {
	t.Helper()
	for range 20 {
		four = listen(t, "127.0.0.1:0")
		six, err := net.Listen("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port(four))).String())
		if err == nil {
			t.Cleanup(func() { six.Close() })
			return four, six
		}
	}
	t.Fatal("no port is free in both families")
	return nil, nil
}

func TestIPv6BlackHole(t *testing.T) {
	z, r := serveDNS(t)
	l, six := pair(t)
	p := serveTCP(t, l, func(c net.Conn) { respond(c, "200 OK", testToken+"."+testThumb) })
	six.Close()
	blackHole(t, netip.IPv6Loopback(), p)
	z.set(testName+". AAAA", testName+". 1 IN AAAA ::1")
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	n := &Network{Resolver: r, HTTPPort: p, Allow: loopback(), Timeout: 20 * time.Second}
	start := time.Now()
	e, err := HTTP01{n}.Validate(t.Context(), testValidation())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < stagger || took > 5*time.Second {
		t.Errorf("took %v, want a little more than %v", took, stagger)
	}
	if e.Target != l.Addr().String() {
		t.Errorf("%s answered, want %s", e.Target, l.Addr())
	}
}

// IPv6 connects and then says nothing: IPv4 has its turn.
func TestIPv6Hangs(t *testing.T) {
	z, r := serveDNS(t)
	l, six := pair(t)
	p := serveTCP(t, l, func(c net.Conn) { respond(c, "200 OK", testToken+"."+testThumb) })
	serveTCP(t, six, hold)
	z.set(testName+". AAAA", testName+". 1 IN AAAA ::1")
	z.set(testName+". A", testName+". 1 IN A 127.0.0.1")
	n := &Network{Resolver: r, HTTPPort: p, Allow: loopback(), Timeout: 1200 * time.Millisecond}
	e, err := HTTP01{n}.Validate(t.Context(), testValidation())
	if err != nil {
		t.Fatal(err)
	}
	if e.Target != l.Addr().String() {
		t.Errorf("%s answered, want %s", e.Target, l.Addr())
	}
	// A wrong answer over IPv6 is an answer: IPv4 isn't asked then.
	l, six = pair(t)
	n.HTTPPort = serveTCP(t, six, func(c net.Conn) { respond(c, "200 OK", "no") })
	serveTCP(t, l, func(net.Conn) { t.Error("IPv4 was asked") })
	_, err = HTTP01{n}.Validate(t.Context(), testValidation())
	wantNo(t, err, protocol.Unauthorized, false)
}

// A server that is stopping must not make anybody's challenge invalid.
func TestCancelledIsNoAnswer(t *testing.T) {
	_, r := serveDNS(t)
	l := listen(t, "127.0.0.1:0")
	connected := make(chan struct{}, 1)
	p := serveTCP(t, l, func(c net.Conn) { connected <- struct{}{}; hold(c) })
	v := testValidation()
	v.Identifier = protocol.Identifier{Type: protocol.IP, Value: "127.0.0.1"}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-connected; cancel() }()
	_, err := HTTP01{&Network{Resolver: r, HTTPPort: p, Allow: loopback()}}.Validate(ctx, v)
	if _, ok := errors.AsType[*protocol.ValidationError](err); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation and no ValidationError", err)
	}
}

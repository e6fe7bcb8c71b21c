package challenge

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	// stagger is the connection attempt delay that RFC 8305 section 5
	// recommends.
	stagger = 250 * time.Millisecond
	// maxRaced bounds the connections one name can make us open at once
	// where the first that connects decides: four of each family.
	maxRaced = 8
	// maxProbes bounds ProbeAny: each probe is a whole exchange.
	maxProbes = 16
)

// no makes a validator's no.
func no(t protocol.ProblemType, retryable bool, format string, args ...any) *protocol.ValidationError {
	return &protocol.ValidationError{Problem: protocol.NewProblem(t, format, args...), Retryable: retryable}
}

// outcome turns what a validation ended with into what Validate returns. A
// caller that gave up (a server that stops) must not make a challenge invalid,
// so its cancellation is no ValidationError.
func outcome(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}

// asker is one exchange with a target over a connection, which the caller of
// the asker closes. Its error is a *protocol.ValidationError.
type asker func(ctx context.Context, conn net.Conn, at netip.AddrPort) error

// probe looks the host up and asks at its addresses until the rules of
// ProbeAny are satisfied. It returns the address that answered rightly.
func (n *Network) probe(ctx context.Context, host string, port uint16, ask asker) (netip.AddrPort, error) {
	addrs, err := n.addresses(ctx, host, port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if n.ProbeAny > 0 {
		return n.probeAny(ctx, addrs, ask)
	}
	if len(addrs) > 1 {
		addrs = interleave(addrs)
	}
	ipv4 := slices.DeleteFunc(slices.Clone(addrs), func(a netip.AddrPort) bool { return a.Addr().Is6() })
	conn, at, err := n.connect(ctx, addrs)
	if err != nil {
		return at, err
	}
	if at.Addr().Is4() || len(ipv4) == 0 {
		return at, askAndClose(ctx, conn, at, ask)
	}
	// A path that takes small IPv6 packets and loses large ones connects and
	// then hangs, so half of the time is kept for IPv4.
	deadline, _ := ctx.Deadline()
	half, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	if err = askAndClose(half, conn, at, ask); err == nil || half.Err() == nil || ctx.Err() != nil {
		return at, err
	}
	if conn, at, err = n.connect(ctx, ipv4); err != nil {
		return at, err
	}
	return at, askAndClose(ctx, conn, at, ask)
}

// probeAny asks at up to ProbeAny of the addresses, in random order so that
// retries come to others. An instance that doesn't answer delays the next one
// by no more than the stagger, and takes at most half of the time.
func (n *Network) probeAny(ctx context.Context, addrs []netip.AddrPort, ask asker) (netip.AddrPort, error) {
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	tried := addrs[:min(len(addrs), n.ProbeAny, maxProbes)]
	deadline, _ := ctx.Deadline()
	each := time.Until(deadline) / 2
	at, errs := race(ctx, tried, func(ctx context.Context, to netip.AddrPort) (netip.AddrPort, error) {
		ctx, cancel := context.WithTimeout(ctx, each)
		defer cancel()
		conn, err := n.dial(ctx, to)
		if err != nil {
			return to, unreachable(to, err)
		}
		return to, askAndClose(ctx, conn, to, ask)
	}, func(netip.AddrPort) {})
	if errs == nil {
		return at, nil
	}
	err := mostTelling(errs)
	if len(errs) > 1 {
		err = no(err.Problem.Type, err.Retryable, "%d addresses were asked and none answered for this account; one of them: %s", len(errs), err.Problem.Detail)
	}
	// Others remain, or one may only have been late: worth another try.
	err.Retryable = err.Retryable || len(tried) < len(addrs) || slices.ContainsFunc(errs, isRetryable)
	return netip.AddrPort{}, err
}

func askAndClose(ctx context.Context, conn net.Conn, at netip.AddrPort, ask asker) error {
	defer conn.Close()
	return ask(ctx, conn, at)
}

// connect returns the first of the addresses that takes a connection.
func (n *Network) connect(ctx context.Context, addrs []netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	type connected struct {
		net.Conn
		at netip.AddrPort
	}
	c, errs := race(ctx, addrs, func(ctx context.Context, to netip.AddrPort) (connected, error) {
		conn, err := n.dial(ctx, to)
		if err != nil {
			return connected{}, unreachable(to, err)
		}
		return connected{conn, to}, nil
	}, func(late connected) { late.Close() })
	if errs != nil {
		return nil, netip.AddrPort{}, mostTelling(errs)
	}
	return c.Conn, c.at, nil
}

// addresses returns where a host, by name or address, may be connected to.
func (n *Network) addresses(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	var found []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{ip}
	} else if found, err = n.Resolver.Addresses(ctx, host); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, no(protocol.DNSFailed, true, "%s has no A and no AAAA record; add one that leads to the server", host)
	}
	var refused *protocol.ValidationError
	to := make([]netip.AddrPort, 0, len(found))
	for _, a := range found {
		ap := netip.AddrPortFrom(a.Unmap(), port)
		if why := n.refuses(ap); why != "" {
			refused = refusal(ap, why)
		} else if !slices.Contains(to, ap) {
			to = append(to, ap)
		}
	}
	if len(to) == 0 {
		return nil, refused
	}
	return to, nil
}

func refusal(to netip.AddrPort, why string) *protocol.ValidationError {
	return no(protocol.ConnectionFailed, false, "validation doesn't connect to %s, which is %s; its operator can allow it", to, why)
}

// dial connects to the address if it may be reached. It is checked here and,
// as the last thing before the system call, in the dialer.
func (n *Network) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if why := n.refuses(to); why != "" {
		return nil, refusal(to, why)
	}
	d := net.Dialer{KeepAlive: -1, ControlContext: n.control} // one short exchange
	return d.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
}

func (n *Network) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if why := n.refuses(to); why != "" {
		return refusal(to, why)
	}
	return nil
}

// race starts an attempt at each address in turn, the next one when the one
// before failed or the stagger has passed (RFC 8305 section 5), and returns
// the first success; or, when there was none, the errors of all. It returns when every attempt has ended, so nothing runs on behind
// it; discard gets what succeeded too late.
func race[T any](ctx context.Context, addrs []netip.AddrPort, attempt func(context.Context, netip.AddrPort) (T, error), discard func(T)) (won T, errs []error) {
	if len(addrs) == 1 { // the common case needs no goroutine
		won, err := attempt(ctx, addrs[0])
		if err != nil {
			return won, []error{err}
		}
		return won, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	results := make(chan result, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := false
	for started, running := 0, 0; running > 0 || !done && started < len(addrs); {
		var next <-chan time.Time
		if !done && started < len(addrs) {
			next = timer.C
		}
		select {
		case <-next:
			to := addrs[started]
			go func() {
				v, err := attempt(ctx, to)
				results <- result{v, err}
			}()
			started, running = started+1, running+1
			timer.Reset(stagger)
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				errs = append(errs, r.err)
				timer.Reset(0)
			case done:
				discard(r.value)
			default:
				won, done = r.value, true
				cancel()
			}
		}
	}
	if done {
		return won, nil
	}
	return won, errs
}

// interleave puts IPv6 first and lets the families take turns (RFC 8305
// section 4), keeping the resolver's order within each.
func interleave(addrs []netip.AddrPort) []netip.AddrPort {
	var six, four []netip.AddrPort
	for _, a := range addrs {
		if a.Addr().Is6() {
			six = append(six, a)
		} else {
			four = append(four, a)
		}
	}
	all := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			all = append(all, six[i])
		}
		if i < len(four) {
			all = append(all, four[i])
		}
	}
	return all[:min(len(all), maxRaced)]
}

// mostTelling picks, of ValidationErrors, the one that helps the client most:
// a wrong answer before a broken one before none at all.
func mostTelling(errs []error) *protocol.ValidationError {
	order := []protocol.ProblemType{protocol.ConnectionFailed, protocol.TLSFailed, protocol.Unauthorized}
	var best *protocol.ValidationError
	top := -2
	for _, err := range errs {
		if v, ok := errors.AsType[*protocol.ValidationError](err); ok {
			if r := slices.Index(order, v.Problem.Type); r > top {
				best, top = v, r
			}
		}
	}
	return best
}

func isRetryable(err error) bool {
	v, ok := errors.AsType[*protocol.ValidationError](err)
	return ok && v.Retryable
}

// unreachable says why a connection was not made.
func unreachable(to netip.AddrPort, err error) *protocol.ValidationError {
	if v, ok := errors.AsType[*protocol.ValidationError](err); ok {
		return v // refused by the dialer's own check
	}
	return no(protocol.ConnectionFailed, true, "connecting to %s: %s; is the server up, and reachable from here?", to, brief(err))
}

// brief puts a network error into words of our own, so that nothing the peer
// sent gets into a problem.
func brief(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "there is no route"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed too early"
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return "timed out"
	}
	return "failed"
}

// errTooMuch is a boundedConn's answer when the bound is reached.
var errTooMuch = errors.New("the peer sent too much")

// boundedConn takes at most left bytes from the peer.
type boundedConn struct {
	net.Conn
	left int
	err  error // what the last Read returned
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.err = errTooMuch
		return 0, c.err
	}
	var n int
	n, c.err = c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, c.err
}

// interruptible makes reads and writes on the connection end with the
// context; the function it returns must be called before conn is let go.
func interruptible(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

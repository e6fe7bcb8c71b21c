package challenge

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	// udpSize is what gets through every network whole (DNS flag day 2020);
	// anything longer comes by TCP.
	udpSize = 1232
	// maxAddresses of one name are looked at; few services have more
	// instances than that in DNS.
	maxAddresses = 32
	// maxRecords of one TXT or CAA set are looked at. Many challenges may be
	// open at one name (RFC 8555 section 8.4), but no person has so many.
	maxRecords = 128
	// maxCNAMEs is what common resolvers follow at least.
	maxCNAMEs = 8
	// maxStray bounds the packets that are no answer to our question before
	// we take the server for broken or somebody for guessing.
	maxStray = 16
	// rounds is how often each server is asked, since UDP loses packets.
	rounds = 3

	defaultLookup = 5 * time.Second // as resolv.conf(5)
)

// ResolverConfig says whom to ask.
type ResolverConfig struct {
	// Servers are recursive resolvers, asked in this order: "192.0.2.53",
	// "[2001:db8::53]:5353", or DNS over TLS (RFC 7858) as
	// "tls://dns.internal" (itself looked up as the machine does) or
	// "tls://192.0.2.53:853". None: those of /etc/resolv.conf, and addresses
	// are looked for in /etc/hosts first, as other programs on the machine
	// do, so that a small network needs no DNS.
	Servers []string
	// ServerName is what a tls:// server's certificate must say where that is
	// not the host in its URL.
	ServerName string
	Roots      *x509.CertPool // for tls://; nil: the system's
	Timeout    time.Duration  // one lookup, all servers and retries; 0: 5 s
}

// Resolver looks names up, always whole: never with a search domain. It keeps
// no cache; the servers have one. It may be used by any number of goroutines.
type Resolver struct {
	servers []server
	hosts   *net.Resolver // reads /etc/hosts; nil where servers are configured
	timeout time.Duration
}

// server is one resolver's address and, for DNS over TLS, how to trust it.
type server struct {
	addr string // host:port
	tls  *tls.Config
}

// NewResolver checks the configuration. It reads /etc/resolv.conf where no
// server is given, and asks nobody.
func NewResolver(c ResolverConfig) (*Resolver, error) {
	r := &Resolver{timeout: c.Timeout}
	if r.timeout <= 0 {
		r.timeout = defaultLookup
	}
	for _, s := range c.Servers {
		srv, err := c.parseServer(s)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, srv)
	}
	if len(c.Servers) == 0 {
		r.hosts = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("only /etc/hosts") // it would use search domains
		}}
		system, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil || len(system.Servers) == 0 {
			r.servers = []server{{addr: "127.0.0.1:53"}} // resolv.conf(5)'s default
			return r, nil
		}
		for _, s := range system.Servers {
			r.servers = append(r.servers, server{addr: net.JoinHostPort(s, system.Port)})
		}
	}
	return r, nil
}

func (c ResolverConfig) parseServer(s string) (server, error) {
	hostPort, secure := strings.CutPrefix(s, "tls://")
	standard := "53"
	if secure {
		standard = "853"
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]"), standard
	}
	_, notIP := netip.ParseAddr(host)
	if host == "" || strings.Contains(host, "/") || notIP != nil && (!secure || strings.Contains(host, ":")) {
		return server{}, fmt.Errorf("challenge: resolver %q: want an IP address with an optional port, or tls://HOST with an optional port", s)
	}
	srv := server{addr: net.JoinHostPort(host, port)}
	if secure {
		srv.tls = &tls.Config{
			ServerName:         host,
			RootCAs:            c.Roots,
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(4), // a lookup costs a connection
		}
		if c.ServerName != "" {
			srv.tls.ServerName = c.ServerName
		}
	}
	return srv, nil
}

// Addresses returns the name's IPv4 and IPv6 addresses, at most 32, in the
// order they came; none if the name has none or doesn't exist. It fails, by a
// *protocol.ValidationError of type dns, only when neither family gave any
// and the answer for one is missing.
func (r *Resolver) Addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if r.hosts != nil {
		if found, err := r.hosts.LookupNetIP(ctx, "ip", name); err == nil && len(found) > 0 {
			return found[:min(len(found), maxAddresses)], nil
		}
	}
	records, err := r.records(ctx, name, dns.TypeAAAA, dns.TypeA)
	var found []netip.Addr
	for _, rr := range records {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A.To4()
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok && len(found) < maxAddresses {
			found = append(found, a)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// TXT returns the values of the name's TXT records, at most 128, each record's
// strings joined (RFC 7208 section 3.3 says how); none if there are none. It
// fails by a *protocol.ValidationError of type dns.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	records, err := r.records(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var values []string
	for _, rr := range records[:min(len(records), maxRecords)] {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, unescape(strings.Join(txt.Txt, "")))
		}
	}
	return values, nil
}

// unescape undoes what the DNS library did for a zone file's sake: \DDD and \X.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			if n, err := strconv.ParseUint(s[i:min(i+3, len(s))], 10, 8); err == nil && i+3 <= len(s) {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// caa returns the name's CAA records. More of them than we look at is an
// error: the one that forbids may be the last.
func (r *Resolver) caa(ctx context.Context, name string) ([]*dns.CAA, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	records, err := r.records(ctx, name, dns.TypeCAA)
	if err != nil {
		return nil, err
	}
	if len(records) > maxRecords {
		return nil, no(protocol.CAAForbids, false, "%s has more than %d CAA records", name, maxRecords)
	}
	var found []*dns.CAA
	for _, rr := range records {
		if c, ok := rr.(*dns.CAA); ok {
			found = append(found, c)
		}
	}
	return found, nil
}

func lookupFailed(name, what, why string) *protocol.ValidationError {
	return no(protocol.DNSFailed, true, "looking up %s for %s: %s", what, name, why)
}

// records asks for all types at once and returns what belongs to the name,
// along its CNAMEs. With an error come the records of the types that were
// answered.
func (r *Resolver) records(ctx context.Context, name string, types ...uint16) ([]dns.RR, error) {
	fqdn := dns.CanonicalName(name)
	if _, ok := dns.IsDomainName(fqdn); !ok || len(fqdn) > 254 { // RFC 1035 section 2.3.4
		return nil, no(protocol.DNSFailed, false, "%s is too long for a DNS name; this challenge can't prove it", name)
	}
	answers, err := r.ask(ctx, fqdn, types)
	var all []dns.RR
	for i, t := range types {
		if answers[i] == nil {
			continue
		}
		found, missing := r.chase(ctx, fqdn, t, answers[i])
		all = append(all, found...)
		if err == nil {
			err = missing
		}
	}
	return all, err
}

// chase collects the records of one type, following CNAMEs within the answer
// and, where a server leaves that to us, by further questions.
func (r *Resolver) chase(ctx context.Context, name string, t uint16, m *dns.Msg) ([]dns.RR, error) {
	at := name
	for hops := 0; ; {
		start := at
		for {
			found, alias := pick(m, at, t)
			if len(found) > 0 {
				return found, nil
			}
			if alias == "" {
				break
			}
			if hops++; hops > maxCNAMEs {
				return nil, no(protocol.DNSFailed, false, "looking up %s for %s: the CNAME records go in a circle or on for more than %d steps", dns.TypeToString[t], name, maxCNAMEs)
			}
			at = alias
		}
		if at == start || m.Rcode == dns.RcodeNameError {
			return nil, nil
		}
		answers, err := r.ask(ctx, at, []uint16{t})
		if err != nil {
			return nil, err
		}
		m = answers[0]
	}
}

// pick returns the answer's records of a type at a name, and the name's CNAME.
func pick(m *dns.Msg, name string, t uint16) (found []dns.RR, alias string) {
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != name {
			continue
		}
		if h.Rrtype == t {
			found = append(found, rr)
		} else if c, ok := rr.(*dns.CNAME); ok {
			alias = dns.CanonicalName(c.Target)
		}
	}
	return found, alias
}

// ask puts the questions to each server in turn until all have an answer:
// NOERROR or NXDOMAIN. Those without one are nil, with an error that says
// why.
func (r *Resolver) ask(ctx context.Context, name string, types []uint16) ([]*dns.Msg, error) {
	b := &batch{name: name, why: "no answer in time", answers: make([]*dns.Msg, len(types))}
	for _, t := range types {
		b.questions = append(b.questions, question(name, t))
	}
	each := max(r.timeout/time.Duration(rounds*len(r.servers)), 200*time.Millisecond)
	for range rounds {
		for _, s := range r.servers {
			if s.exchange(ctx, each, b); !slices.Contains(b.answers, nil) {
				return b.answers, nil
			}
			if ctx.Err() != nil {
				return b.answers, b.failed()
			}
		}
		if b.heard {
			break // every server was asked and some said no; packets aren't lost
		}
	}
	return b.answers, b.failed()
}

func question(name string, t uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, t)
	var id [2]byte
	rand.Read(id[:]) // never fails
	m.Id = binary.BigEndian.Uint16(id[:])
	m.SetEdns0(udpSize, false)
	return m
}

// batch is questions about one name that are asked together.
type batch struct {
	name      string
	questions []*dns.Msg
	answers   []*dns.Msg // in the order of the questions
	why       string     // what the latest failure was
	truncated bool       // an answer must be had by TCP
	heard     bool       // a server answered, with an error
}

func (b *batch) failed() error {
	var missing []string
	for i, a := range b.answers {
		if a == nil {
			missing = append(missing, dns.TypeToString[b.questions[i].Question[0].Qtype])
		}
	}
	return lookupFailed(strings.TrimSuffix(b.name, "."), strings.Join(missing, " and "), b.why)
}

// exchange asks one server what is still unanswered, by UDP and, for what
// doesn't fit, by TCP; or by TLS.
func (s server) exchange(ctx context.Context, most time.Duration, b *batch) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if s.tls == nil {
		s.exchangeOver(ctx, "udp", b)
		if !b.truncated {
			return
		}
		b.truncated = false
	}
	s.exchangeOver(ctx, "tcp", b)
}

func (s server) exchangeOver(ctx context.Context, network string, b *batch) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, s.addr)
	if err != nil {
		b.why = "the DNS server can't be reached: " + brief(err)
		return
	}
	defer raw.Close()
	stop := interruptible(ctx, raw)
	defer stop()
	if s.tls != nil {
		secure := tls.Client(raw, s.tls)
		if err := secure.Handshake(); err != nil {
			b.why = "the DNS server's TLS can't be trusted: " + brief(err)
			return
		}
		raw = secure
	}
	b.converse(&dns.Conn{Conn: raw, UDPSize: udpSize}, network)
}

// converse sends what is unanswered and reads what comes.
func (b *batch) converse(conn *dns.Conn, network string) {
	waiting := make(map[int]bool, len(b.questions))
	for i, q := range b.questions {
		if b.answers[i] == nil {
			if err := conn.WriteMsg(q); err != nil {
				b.why = "the DNS server can't be reached: " + brief(err)
				return
			}
			waiting[i] = true
		}
	}
	for stray := 0; len(waiting) > 0 && stray < maxStray; {
		m, err := conn.ReadMsg()
		switch i := b.match(m); {
		case err != nil && (network == "tcp" || isNetError(err)):
			b.why = "the DNS server gave no answer: " + brief(err)
			return
		case !waiting[i] || err != nil && !m.Truncated: // not ours, twice, or garbled
			stray++
		default:
			b.take(i, m, network)
			delete(waiting, i)
		}
	}
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// match finds the question that a message answers. A packet that was forged
// from off the path has to guess the id, our port and the question.
func (b *batch) match(m *dns.Msg) int {
	if m == nil || !m.Response || len(m.Question) != 1 {
		return -1
	}
	got := m.Question[0]
	return slices.IndexFunc(b.questions, func(q *dns.Msg) bool {
		want := q.Question[0]
		return q.Id == m.Id && got.Qtype == want.Qtype && got.Qclass == want.Qclass && dns.CanonicalName(got.Name) == want.Name
	})
}

func (b *batch) take(i int, m *dns.Msg, network string) {
	switch {
	case m.Truncated && network == "udp":
		b.truncated = true
	case m.Truncated:
		b.why = "the answer is longer than DNS allows"
	case m.Rcode == dns.RcodeSuccess, m.Rcode == dns.RcodeNameError:
		b.answers[i] = m
	default:
		b.heard = true
		b.why = "the DNS server answered " + dns.RcodeToString[m.Rcode]
	}
}

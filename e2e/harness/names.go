package harness

import (
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// dnsAddr is where every test's DNS server listens: the resolver both of the
// clients, through /etc/resolv.conf, and of the CA.
const dnsAddr = "127.0.0.1:53"

// Names is a DNS server in which every name has the address 127.0.0.1, and the
// TXT records that a test puts there.
type Names struct {
	mu    sync.Mutex
	txt   map[string][]string
	asked []string
}

// Names starts a DNS server of this process at 127.0.0.1:53, over UDP and TCP.
func (w *World) Names() *Names {
	w.Helper()
	n := &Names{txt: map[string][]string{}}
	pc, err := net.ListenPacket("udp", dnsAddr)
	if err != nil {
		w.Fatal(err)
	}
	l, err := net.Listen("tcp", dnsAddr)
	if err != nil {
		w.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: n}, {Listener: l, Handler: n}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }() // ends with an error on Shutdown
		<-up
		w.Cleanup(func() { _ = s.Shutdown() })
	}
	return n
}

// AddTXT adds a TXT record to those the name has.
func (n *Names) AddTXT(name, value string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name = dns.CanonicalName(name)
	n.txt[name] = append(n.txt[name], value)
}

// ClearTXT removes the name's TXT records.
func (n *Names) ClearTXT(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.txt, dns.CanonicalName(name))
}

// Asked are the questions so far, as "name. TYPE".
func (n *Names) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

// ServeDNS answers one question.
func (n *Names) ServeDNS(rw dns.ResponseWriter, req *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	n.asked = append(n.asked, name+" "+dns.TypeToString[q.Qtype])
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	switch q.Qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		for _, v := range n.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr, Txt: []string{v}})
		}
	}
	_ = rw.WriteMsg(m) // a client that went away asks again
}

// BIND is a real name server, authoritative for the zone "test" and open to
// dynamic updates (RFC 2136) with one key.
type BIND struct {
	// Key is the path of the TSIG key's file, as nsupdate -k takes it.
	Key string
	// KeyName, Secret (base64) and the algorithm hmac-sha256 are what the file
	// says.
	KeyName, Secret string
}

// BIND starts named at 127.0.0.1:53. Every name x.test there has the address
// 127.0.0.1.
func (w *World) BIND() *BIND {
	w.Helper()
	b := &BIND{KeyName: "e2e-key", Secret: "nKmFhO4vSs6XlI0bUY6wQHqCe5tF0oUDfV8B1m6hPzs="}
	b.Key = w.Write("bind/key.conf", `key "`+b.KeyName+`" { algorithm hmac-sha256; secret "`+b.Secret+"\"; };\n")
	w.Write("bind/test.zone", `$TTL 1
@ IN SOA ns.test. root.test. 1 3600 600 86400 1
@ IN NS ns.test.
ns IN A 127.0.0.1
* IN A 127.0.0.1
a IN A 127.0.0.1
b IN A 127.0.0.1
`)
	conf := w.Write("bind/named.conf", `include "`+b.Key+`";
options {
	directory "`+w.Path("bind")+`";
	listen-on port 53 { 127.0.0.1; };
	listen-on-v6 { none; };
	pid-file none;
	session-keyfile none;
	recursion no;
	dnssec-validation no;
	notify no;
};
controls { };
logging { category general { null; }; };
zone "test" {
	type master;
	file "test.zone";
	update-policy { grant `+b.KeyName+` zonesub TXT; };
};
`)
	// Debian's AppArmor profile for /usr/sbin/named keeps it out of the scratch
	// folder; a copy under another name is not confined.
	named := w.Path("bind", "named")
	w.Run("cp", "/usr/sbin/named", named)
	w.Cmd(named, "-g", "-n", "1", "-c", conf).Start().Says("all zones loaded").Says("running")
	return b
}

// Hook is the path of an executable script that adds (or with "del" as its
// first argument removes) a TXT record: add|del NAME VALUE.
func (b *BIND) Hook(w *World) string {
	w.Helper()
	return w.Write("txt", `#!/bin/sh
set -e
case $1 in
add) echo "server 127.0.0.1
update add $2. 1 TXT \"$3\"
send" ;;
del) echo "server 127.0.0.1
update del $2. TXT \"$3\"
send" ;;
esac | nsupdate -k `+b.Key+`
`)
}

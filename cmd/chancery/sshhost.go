package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/sshhost"
	"github.com/chancery-pki/chancery/mtls/acme"
)

type sshHostCommand struct {
	caFlags
	Name     []string      `help:"A name or address of this host; each must be proven. Without any, no certificate is asked for."`
	Profile  string        `help:"The directories' profile." default:"ssh-host"`
	For      time.Duration `help:"How long certificates shall be good; as the profile says unless given."`
	Key      []string      `help:"sshd's private keys; /etc/ssh/ssh_host_*_key unless given." placeholder:"FILE"`
	Once     bool          `help:"Do what is due and end, as for a timer; the exit code says whether all is well."`
	Every    time.Duration `help:"How often to look, for new KRLs and CA keys." default:"5m"`
	MaxAge   time.Duration `help:"How old a KRL may be." default:"48h"`
	Proof    proofFlags    `embed:""`
	SSHD     sshdFlags     `embed:""`
	EABKey   string        `name:"eab-kid" help:"An external account key of the first CA, whose names may be approved already." placeholder:"KID"`
	EABFile  string        `name:"eab-file" help:"The file (mode 0600) with its MAC key, base64url." placeholder:"FILE"`
	Accounts []string      `name:"principals" help:"Who may log in as a user: USER=PRINCIPAL,… (once per user). With any, only those listed log in by certificate." placeholder:"USER=P,P" sep:"none"`
}

// proofFlags say how names are proven; the first that the CA offers counts.
type proofFlags struct {
	HTTP    string        `name:"http" help:"Answer http-01 at this address, as :80." placeholder:"ADDRESS"`
	Webroot string        `help:"Answer http-01 with files under a web server's root." placeholder:"DIR"`
	TLSALPN string        `name:"tls-alpn" help:"Answer tls-alpn-01 at this address, as :443." placeholder:"ADDRESS"`
	DNSHook string        `name:"dns-hook" help:"Answer dns-01 by a command of the shell, which finds CHANCERY_ACTION (present, cleanup), CHANCERY_NAME and CHANCERY_VALUE." placeholder:"COMMAND"`
	DNSWait time.Duration `name:"dns-wait" help:"How long a record needs to be seen." default:"0s"`
	Token   string        `name:"pod-token" help:"Answer kubernetes-01 with this projected service account token." placeholder:"FILE"`
}

// sshdFlags say where sshd's things are.
type sshdFlags struct {
	Dir      string `help:"Where sshd's files are put." default:"/etc/ssh/chancery" placeholder:"DIR"`
	Snippet  string `help:"What sshd's configuration includes." default:"/etc/ssh/sshd_config.d/chancery.conf" placeholder:"FILE"`
	State    string `help:"Where is kept what the CAs said last." default:"/var/lib/chancery/ssh" placeholder:"DIR"`
	Program  string `name:"sshd" help:"sshd, to check with." default:"/usr/sbin/sshd" placeholder:"FILE"`
	SSHDConf string `name:"sshd-config" help:"Its configuration." default:"/etc/ssh/sshd_config" placeholder:"FILE"`
	Reload   string `name:"reload-command" help:"A command of the shell that makes sshd read its configuration." default:"systemctl reload ssh || systemctl reload sshd || kill -HUP $(cat /run/sshd.pid)" placeholder:"COMMAND"`
}

// Validate refuses flags that make no sense together.
func (c *sshHostCommand) Validate() error {
	p := c.Proof
	switch {
	case (c.EABKey == "") != (c.EABFile == ""):
		return errors.New("--eab-kid and --eab-file go together")
	case len(c.Name) > 0 && c.EABKey == "" && p == (proofFlags{DNSWait: p.DNSWait}):
		return errors.New("say how the names are proven: --http, --webroot, --tls-alpn, --dns-hook, --pod-token, or --eab-kid for approved names")
	case p.HTTP != "" && p.Webroot != "":
		return errors.New("--http and --webroot are two answers to one challenge")
	case c.Every < time.Second || c.MaxAge < time.Minute || c.For < 0:
		return errors.New("--every wants at least 1s, --max-age at least 1m, --for a time from now on")
	}
	_, err := c.principals()
	return err
}

func (c *sshHostCommand) principals() (map[string][]string, error) {
	all := map[string][]string{}
	for _, text := range c.Accounts {
		user, list, ok := strings.Cut(text, "=")
		if !ok || user == "" || list == "" || all[user] != nil {
			return nil, fmt.Errorf("--principals %q: want USER=PRINCIPAL,…, once per user", text)
		}
		all[user] = strings.Split(list, ",")
	}
	return all, nil
}

func (c *sshHostCommand) Run(ctx context.Context, n notices, end *ending) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	h.Logger = logTo(n)
	if h.Solvers, err = c.Proof.solvers(end); err != nil {
		return err
	}
	if c.Once {
		_, err := h.Once(ctx)
		return err
	}
	return h.Run(ctx, c.Every)
}

func (c *sshHostCommand) host() (*sshhost.Host, error) {
	cas, err := c.cas()
	if err != nil {
		return nil, err
	}
	if c.EABKey != "" {
		if cas[0].EAB, err = readEAB(c.EABKey, c.EABFile); err != nil {
			return nil, err
		}
	}
	principals, err := c.principals()
	if err != nil {
		return nil, err
	}
	keys := c.Key
	if len(keys) == 0 {
		if keys, err = filepath.Glob("/etc/ssh/ssh_host_*_key"); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, id := range acme.Identifiers(c.Name...) {
		names = append(names, strings.ToLower(strings.TrimSuffix(id.Value, ".")))
	}
	// sshd starts from folders of its own: what it is to read has whole names.
	for _, path := range []*string{&c.SSHD.Dir, &c.SSHD.Snippet, &c.SSHD.State, &c.SSHD.SSHDConf} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	return &sshhost.Host{
		CAs: cas, Names: names, Profile: c.Profile, Lifetime: c.For, Keys: keys,
		Dir: c.SSHD.Dir, Snippet: c.SSHD.Snippet, State: c.SSHD.State, SSHD: c.SSHD.Program, Config: c.SSHD.SSHDConf, Reload: c.SSHD.Reload,
		Principals: principals, MaxAge: c.MaxAge,
	}, nil
}

func readEAB(kid, file string) (*acme.ExternalAccount, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	mac, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(mac) < 16 {
		return nil, fmt.Errorf("%s holds no MAC key in base64url, as chancery admin eab create shows it", file)
	}
	return &acme.ExternalAccount{KeyID: kid, MACKey: mac}, nil
}

// solvers starts listeners where flags want them; they end with the command.
func (p proofFlags) solvers(end *ending) (all []acme.Solver, err error) {
	listen := func(address string, conf *tls.Config, handler http.Handler) error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		if conf != nil {
			l = tls.NewListener(l, conf)
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
		go s.Serve(l)
		end.defers(func() { s.Close() })
		return nil
	}
	if p.HTTP != "" {
		s := new(acme.HTTP01Solver)
		if err := listen(p.HTTP, nil, s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if p.Webroot != "" {
		all = append(all, sshhost.Webroot{Dir: p.Webroot})
	}
	if p.TLSALPN != "" {
		s := new(acme.TLSALPN01Solver)
		if err := listen(p.TLSALPN, s.TLSConfig(), http.NotFoundHandler()); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if p.DNSHook != "" {
		all = append(all, sshhost.DNSHook{Command: p.DNSHook, Wait: p.DNSWait})
	}
	if p.Token != "" {
		all = append(all, sshhost.PodToken{File: p.Token})
	}
	return all, nil
}

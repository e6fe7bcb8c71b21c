package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// startLimit bounds every wait for a program: they take some seconds, and
	// some times that on a machine that does other things too.
	startLimit = 90 * time.Second
	// requestLimit bounds one request to the API server.
	requestLimit = 20 * time.Second
)

// Issuer is who signs the service accounts' tokens, and the audience of those
// that ask for no other.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// Options say what runs besides etcd and the API server.
type Options struct {
	// Controllers runs kube-controller-manager: Services with selectors get
	// their EndpointSlices, Deployments and StatefulSets their Pods, and
	// namespaces their default ServiceAccount and root certificate.
	Controllers bool
}

// Cluster is a running cluster.
type Cluster struct {
	// URL is where the API server listens, CAFile whom clients trust for that.
	URL, CAFile string
	// Config is the cluster administrator's.
	Config *rest.Config
	// Client and Dynamic act as the administrator; their requests are bounded
	// in time, and so are their watches.
	Client  kubernetes.Interface
	Dynamic dynamic.Interface

	t         testing.TB
	dir       string
	options   Options
	port      int
	apiServer *process
	kinds     *restmapper.DeferredDiscoveryRESTMapper
}

// Start starts a cluster, and returns when it answers.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	begun := time.Now()
	c := &Cluster{t: t, dir: newDir(t), options: o, port: reservePort(t)}
	c.URL = "https://127.0.0.1:" + strconv.Itoa(c.port)
	c.CAFile = c.path("ca.crt")
	ca := newPKI(t, c.dir)
	ca.server("server")
	ca.client("admin", "system:masters")
	ca.pair("tokens")
	c.connect()
	c.startEtcd()
	c.startAPIServer()
	if o.Controllers {
		c.startControllers()
	}
	t.Logf("a cluster at %s after %.1f s", c.URL, time.Since(begun).Seconds())
	return c
}

// For is the same cluster for another test, such as a subtest: what goes wrong
// there ends that one. The cluster still ends with the test that started it.
func (c *Cluster) For(t testing.TB) *Cluster {
	other := *c
	other.t = t
	return &other
}

// newDir makes a scratch folder with a path short enough for sockets, which
// t.TempDir's isn't.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "k8s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// startEtcd starts etcd at a socket, which unlike a port nobody else can take.
// The API server waits for it.
func (c *Cluster) startEtcd() {
	c.t.Helper()
	// Members of a cluster find each other where they advertise; this one is
	// alone, and URLs of sockets are not allowed there.
	const nobody = "http://127.0.0.1:1"
	start(c.t, c.dir, "etcd", "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+c.etcd(), "--advertise-client-urls="+nobody,
		"--listen-peer-urls=unix://"+c.path("peers"), "--initial-advertise-peer-urls="+nobody, "--initial-cluster=default="+nobody)
}

// etcd is where the API server finds etcd.
func (c *Cluster) etcd() string { return "unix://" + c.path("etcd.sock") }

// connect makes the clients.
func (c *Cluster) connect() {
	c.t.Helper()
	c.Config = &rest.Config{
		Host:            c.URL,
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile, CertFile: c.path("admin.crt"), KeyFile: c.path("admin.key")},
		QPS:             -1, // a test waits for nothing
	}
	bounded := rest.CopyConfig(c.Config)
	bounded.Timeout = requestLimit
	client, err := kubernetes.NewForConfig(bounded)
	c.check("the client", err)
	c.Client = client
	c.Dynamic, err = dynamic.NewForConfig(bounded)
	c.check("the dynamic client", err)
	c.kinds = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
}

// Kubeconfig writes a kubeconfig file for the cluster's administrator.
func (c *Cluster) Kubeconfig(file string) {
	c.t.Helper()
	c.kubeconfig(file, &clientcmdapi.AuthInfo{ClientCertificate: c.path("admin.crt"), ClientKey: c.path("admin.key")})
}

// TokenKubeconfig writes a kubeconfig file for whoever holds the token.
func (c *Cluster) TokenKubeconfig(file, token string) {
	c.t.Helper()
	c.kubeconfig(file, &clientcmdapi.AuthInfo{Token: token})
}

func (c *Cluster) kubeconfig(file string, user *clientcmdapi.AuthInfo) {
	c.t.Helper()
	conf := clientcmdapi.NewConfig()
	conf.Clusters["test"] = &clientcmdapi.Cluster{Server: c.URL, CertificateAuthority: c.CAFile}
	conf.AuthInfos["test"] = user
	conf.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	conf.CurrentContext = "test"
	c.check("the kubeconfig", clientcmd.WriteToFile(*conf, file))
}

// StopAPIServer kills the API server: connections to it break, and new ones are
// refused, until [Cluster.RestartAPIServer].
func (c *Cluster) StopAPIServer() {
	c.t.Helper()
	c.apiServer.kill()
}

// FreezeAPIServer lets the API server do nothing until [Cluster.ThawAPIServer]:
// the kernel goes on accepting connections for it, and nobody answers.
func (c *Cluster) FreezeAPIServer() {
	c.t.Helper()
	c.apiServer.signal(syscall.SIGSTOP)
}

// ThawAPIServer lets it go on.
func (c *Cluster) ThawAPIServer() {
	c.t.Helper()
	c.apiServer.signal(syscall.SIGCONT)
}

// RestartAPIServer kills the API server if it runs, starts it where it was and
// with what it knew, and returns when it is ready.
func (c *Cluster) RestartAPIServer() {
	c.t.Helper()
	c.apiServer.kill()
	c.apiServer.start()
	c.untilReady()
}

func (c *Cluster) startAPIServer() {
	c.t.Helper()
	c.apiServer = start(c.t, c.dir, "kube-apiserver", "--etcd-servers="+c.etcd(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--secure-port="+strconv.Itoa(c.port), "--permit-port-sharing",
		"--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--client-ca-file=ca.crt",
		"--authorization-mode=RBAC", "--allow-privileged", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer="+Issuer, "--api-audiences="+Issuer,
		"--service-account-signing-key-file=tokens.key", "--service-account-key-file=tokens.pub")
	c.untilReady()
}

// untilReady waits for the API server. Who answers is the one that was started
// here: it has a certificate of a CA that nobody else knows.
func (c *Cluster) untilReady() {
	c.t.Helper()
	c.until(c.apiServer, "the API server says that it is ready", func(ctx context.Context) error {
		return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// startControllers starts kube-controller-manager, and returns when it has done
// for the namespace "default" what it does for every namespace.
func (c *Cluster) startControllers() {
	c.t.Helper()
	c.Kubeconfig(c.path("admin.conf"))
	// The node controllers would find that no kubelet reports.
	p := start(c.t, c.dir, "kube-controller-manager", "--kubeconfig=admin.conf", "--secure-port=0", "--leader-elect=false",
		"--service-account-private-key-file=tokens.key", "--root-ca-file=ca.crt",
		"--controllers=*,-node-lifecycle-controller,-nodeipam")
	c.until(p, "the controllers made the first service account", func(ctx context.Context) error {
		return c.furnished(ctx, "default")
	})
}

// until waits until ok returns nil, as long as the process runs.
func (c *Cluster) until(p *process, what string, ok func(context.Context) error) {
	c.t.Helper()
	c.Eventually(startLimit, func(ctx context.Context) error {
		if p.ended() {
			c.t.Fatalf("%s ended before %s", p.name, what)
		}
		if err := ok(ctx); err != nil {
			return fmt.Errorf("%s: not so: %w", what, err)
		}
		return nil
	})
}

// untilSays waits until the process has printed the text.
func (c *Cluster) untilSays(p *process, text string) {
	c.t.Helper()
	c.until(p, "it says "+text, func(context.Context) error {
		said, err := os.ReadFile(p.log)
		if err == nil && !strings.Contains(string(said), text) {
			err = errors.New("it doesn't")
		}
		return err
	})
}

// Eventually waits at most the limit until ok returns nil; the test ends with
// the last error where it never does.
func (c *Cluster) Eventually(limit time.Duration, ok func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	var last error
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("not within %v: %v", limit, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// check ends the test on an error.
func (c *Cluster) check(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// gone is nil when err says that there is no such object.
func gone(err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("it is still there")
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

package cluster_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

// limit bounds what a controller does by itself.
const limit = 30 * time.Second

// A CA must bear that its API server is away, or there and silent.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	c.Namespace("prod")
	c.Node("n1")
	pod := c.Run(c.Pod("prod", "web", "default"), "n1", "10.9.0.1")
	token := c.Token(pod, "https://ca.test", time.Hour)
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Client.CoreV1().Pods("prod").Get(ctx, "web", metav1.GetOptions{})
		return err
	}
	c.StopAPIServer()
	if err := ask(); err == nil {
		t.Error("a stopped API server answers")
	}
	c.RestartAPIServer()
	if err := ask(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if !c.Review(token, "https://ca.test").Authenticated {
		t.Error("the restarted API server doesn't know its own token")
	}
	c.FreezeAPIServer()
	if err := ask(); err == nil {
		t.Error("a frozen API server answers")
	}
	c.ThawAPIServer()
	c.Eventually(limit, func(context.Context) error { return ask() })
}

// Clusters know nothing of each other, whatever they call their things.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	var tokens []string
	var clusters []*cluster.Cluster
	for range 2 {
		c := cluster.Start(t, cluster.Options{})
		c.Namespace("prod")
		clusters, tokens = append(clusters, c), append(tokens, c.ServiceAccountToken("prod", "default", "https://ca.test"))
	}
	for i, c := range clusters {
		for j, token := range tokens {
			if got := c.Review(token, "https://ca.test").Authenticated; got != (i == j) {
				t.Errorf("cluster %d, token of cluster %d: authenticated is %v", i, j, got)
			}
		}
	}
}

// What a service account may do is what it was granted.
func TestGrant(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	c.Namespace("ca")
	c.ServiceAccount("ca", "chancery")
	file := t.TempDir() + "/kubeconfig"
	c.TokenKubeconfig(file, c.ServiceAccountToken("ca", "chancery"))
	conf, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	review := func() error {
		body := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "x"}}
		_, err := client(t, conf).AuthenticationV1().TokenReviews().Create(t.Context(), body, metav1.CreateOptions{})
		return err
	}
	if err := review(); err == nil {
		t.Error("a service account without a role may review tokens")
	}
	c.GrantRole("ca", "chancery", "system:auth-delegator")
	c.Eventually(limit, func(context.Context) error { return review() })
}

// cert-manager's controllers run: they find a ClusterIssuer good that needs
// nobody, and for another ask its ACME server, which they trust by its bundle.
func TestCertManager(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	c.CertManager("127.0.0.1:53")
	asked := make(chan string, 100)
	acme := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path + " by " + r.UserAgent()
		http.Error(rw, "closed", http.StatusServiceUnavailable)
	}))
	defer acme.Close()
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: acme.Certificate().Raw})
	issuers := c.Apply(fmt.Sprintf(`
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: acme}
spec:
  acme:
    server: %s/directory
    caBundle: %s
    privateKeySecretRef: {name: account}
    solvers:
    - http01: {ingress: {ingressClassName: none}}
`, acme.URL, base64.StdEncoding.EncodeToString(bundle)))
	c.UntilTrue(issuers[0], "Ready", limit)
	select {
	case first := <-asked:
		t.Logf("the ACME server was asked: %s", first)
	case <-time.After(limit):
		t.Errorf("the ACME server was not asked; the issuer says %v", c.Get(issuers[1]).Object["status"])
	}
}

// What a cluster leaves is nothing.
func TestLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var addr string
	t.Run("cluster", func(t *testing.T) { addr = hostPort(cluster.Start(t, cluster.Options{Controllers: true})) })
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the scratch folder: %v (%v)", left, err)
	}
	if err := refused(addr); err != nil {
		t.Error(err)
	}
}

// A test may be killed: its cluster dies with it.
func TestDiesWithTheProcess(t *testing.T) {
	if os.Getenv("CLUSTER_DIES") != "" {
		c := cluster.Start(t, cluster.Options{})
		fmt.Printf("\nat %s\n", hostPort(c))
		time.Sleep(limit)
		t.Fatal("nobody killed this process")
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiesWithTheProcess$")
	cmd.Env = append(os.Environ(), "CLUSTER_DIES=yes", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var addr string
	for lines, found := bufio.NewScanner(out), false; !found && lines.Scan(); {
		addr, found = strings.CutPrefix(lines.Text(), "at ")
	}
	if err := refused(addr); err == nil {
		t.Errorf("no API server at %q", addr)
	}
	_ = cmd.Process.Kill() // SIGKILL: no cleanup runs
	_ = cmd.Wait()
	for end := time.Now().Add(limit); refused(addr) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the API server at %s outlives its test", addr)
		}
	}
}

func hostPort(c *cluster.Cluster) string { return strings.TrimPrefix(c.URL, "https://") }

// refused is nil when nothing listens at the address.
func refused(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("%s accepts connections", addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	}
	return err
}

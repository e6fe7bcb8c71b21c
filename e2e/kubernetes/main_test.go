package kubernetes

import (
	"log"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

// TestMain builds the programs under test; in the processes that
// [harness.Alone] starts, harness.Main furnishes the namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_ALONE") != "" {
		harness.Main(m)
	}
	if os.Geteuid() != 0 {
		log.Fatal("kubernetes: the tests make network and mount namespaces: run them as root")
	}
	build := exec.Command("go", "build", "-o", "e2e/kubernetes/bin/", "./cmd/chanceryd", "./cmd/chancery")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "GOWORK=off")
	if text, err := build.CombinedOutput(); err != nil {
		log.Fatalf("kubernetes: building the server: %v\n%s", err, text)
	}
	os.Exit(m.Run())
}

// alone runs f, the body of the test, in namespaces of its own where every
// address of 10.0.0.0/8 is the machine's, as far as a test uses it.
func alone(t *testing.T, limit time.Duration, f func(w *harness.World)) {
	harness.Alone(t, limit, func(w *harness.World) {
		w.Run("ip", "route", "add", "local", "10.0.0.0/8", "dev", "lo")
		f(w)
	})
}

// A pod is where its slice says: the test listens and dials from its address.
func TestPodAddresses(t *testing.T) {
	alone(t, time.Minute, func(w *harness.World) {
		c := cluster.Start(w, cluster.Options{})
		c.Namespace("prod")
		c.Node("n1")
		web := c.Run(c.Pod("prod", "web", "default"), "n1", "10.9.0.1")
		slice := c.EndpointSlice(c.Service("prod", "web", nil), []*corev1.Pod{web})
		l, err := net.Listen("tcp", net.JoinHostPort(slice.Endpoints[0].Addresses[0], "443"))
		if err != nil {
			w.Fatal(err)
		}
		defer l.Close()
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 9, 0, 2)}}
		out, err := from.Dial("tcp", l.Addr().String())
		if err != nil {
			w.Fatal(err)
		}
		defer out.Close()
		in, err := l.Accept()
		if err != nil {
			w.Fatal(err)
		}
		defer in.Close()
		if got := in.RemoteAddr().(*net.TCPAddr).IP.String(); got != "10.9.0.2" {
			w.Errorf("the peer's address is %s", got)
		}
	})
}

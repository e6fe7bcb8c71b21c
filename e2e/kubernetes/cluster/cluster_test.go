package cluster_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

func TestMain(m *testing.M) { os.Exit(m.Run()) }

func TestSmoke(t *testing.T) {
	b := time.Now()
	c := cluster.Start(t, cluster.Options{})
	fmt.Println("start", time.Since(b)); b = time.Now()
	c.Namespace("prod")
	c.Node("n1")
	c.ServiceAccount("prod", "web")
	pod := c.Run(c.Pod("prod", "web-0", "web"), "n1", "10.9.0.1")
	tok := c.Token(pod, "https://ca.test", time.Hour)
	fmt.Printf("%+v\n", c.Review(tok, "https://ca.test"))
	fmt.Println("objects", time.Since(b)); b = time.Now()
	c.StopAPIServer()
	fmt.Println("stop", time.Since(b)); b = time.Now()
	c.RestartAPIServer()
	fmt.Println("restart", time.Since(b)); b = time.Now()
}

package kubernetes

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

const sample = `
clusters:
  main: {kubeconfig: main.kubeconfig}
directories:
  workloads:
    profiles: [server, client]
    eku_from_csr: true
    names: {allow: ["*.svc.cluster.local"]}
    kubernetes: {cluster: main}
`

// A program gets its certificates with an empty mtls.Config, in the pods and
// the environment of the sample manifest, and two of them talk.
func TestWorkload(t *testing.T) {
	alone(t, 3*time.Minute, func(w *harness.World) {
		a, c := newAuthority(w), cluster.Start(w, cluster.Options{Controllers: true})
		c.Apply(manifest(w, "chancery.yaml"))
		a.enter(c, "main.kubeconfig")
		a.serve(w, sample)
		c.Node("n1")
		c.Apply(manifest(w, "workload.yaml"))
		c.Apply(strings.NewReplacer("name: web", "name: db", "app: web", "app: db", "serviceAccountName: web", "serviceAccountName: db",
			"web.$(NAMESPACE)", "db.$(NAMESPACE)").Replace(manifest(w, "workload.yaml")))
		pods := deployed(w, c, "web", 2)
		serveDNS(w, map[string]string{host: "127.0.0.1", "web.demo.svc.cluster.local": "10.9.2.1"})

		k := &kubelet{w, c, a}
		k.run(pods[0], "10.9.2.1", "serve", "10.9.2.1:8443").Start().Listens("10.9.2.1:8443")
		const url = "https://web.demo.svc.cluster.local:8443/"
		if got := k.run(pods[1], "10.9.2.2", "get", url).OK(); !strings.Contains(got, "hello web.demo.svc.cluster.local") {
			w.Errorf("the other pod got %q", got)
		}
		// A workload of the same CA that nobody allowed.
		if got := k.run(deployed(w, c, "db", 2)[0], "10.9.2.3", "get", url).Fails(); !strings.Contains(got, "certificate") {
			w.Errorf("the pod that isn't allowed got %q", got)
		}
		if n := a.certificates(w); n != 6 { // a server's and a client's for each
			w.Errorf("%d certificates were issued, want 6", n)
		}
	})
}

// deployed are the pods that the controllers make for a Deployment.
func deployed(w *harness.World, c *cluster.Cluster, app string, n int) []corev1.Pod {
	w.Helper()
	var pods *corev1.PodList
	c.Eventually(follows, func(ctx context.Context) (err error) {
		pods, err = c.Client.CoreV1().Pods("demo").List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err == nil && len(pods.Items) != n {
			err = fmt.Errorf("%d pods of %s, want %d", len(pods.Items), app, n)
		}
		return err
	})
	return pods.Items
}

// kubelet does what a kubelet would with the pods of the sample workload.
type kubelet struct {
	w *harness.World
	c *cluster.Cluster
	a *authority
}

// run is the pod's program, with the pod's environment and nothing else, and
// with its projected volume, in a mount namespace of its own.
func (k *kubelet) run(pod corev1.Pod, ip string, args ...string) *harness.Cmd {
	k.w.Helper()
	k.c.Run(&pod, "n1", ip)
	container := pod.Spec.Containers[0]
	volume := k.volume(pod)
	if at := container.VolumeMounts[0].MountPath; at != "/var/run/secrets/chancery" || container.VolumeMounts[0].Name != volume.name {
		k.w.Fatalf("volume %s is mounted at %s", container.VolumeMounts[0].Name, at)
	}
	if err := os.MkdirAll("/run/secrets/chancery", 0o755); err != nil {
		k.w.Fatal(err)
	}
	all := []string{"--mount", "sh", "-ec", `mount --bind "$0" /run/secrets/chancery && exec "$@"`, volume.dir, "env", "-i"}
	namespace := strings.NewReplacer("$(NAMESPACE)", pod.Namespace)
	for _, e := range container.Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace" {
			e.Value = pod.Namespace
		}
		all = append(all, e.Name+"="+namespace.Replace(e.Value))
	}
	return k.w.Cmd("unshare", append(append(all, k.w.Tool("workload")), args...)...)
}

// volume is a projected volume as a folder.
type volume struct{ name, dir string }

// volume makes the files of the pod's projected volume.
func (k *kubelet) volume(pod corev1.Pod) volume {
	k.w.Helper()
	v := volume{pod.Spec.Volumes[0].Name, k.w.Mkdir("volumes", pod.Name)}
	for _, source := range pod.Spec.Volumes[0].Projected.Sources {
		if token := source.ServiceAccountToken; token != nil {
			k.write(v, token.Path, k.c.Token(&pod, token.Audience, time.Duration(*token.ExpirationSeconds)*time.Second))
		}
		if source.ConfigMap != nil { // which the README makes of roots.pem
			for _, item := range source.ConfigMap.Items {
				k.write(v, item.Path, k.w.Read(k.a.path(item.Key)))
			}
		}
	}
	return v
}

func (k *kubelet) write(v volume, name, text string) {
	k.w.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o644); err != nil {
		k.w.Fatal(err)
	}
}

// serveDNS is the cluster's DNS, which knows these names.
func serveDNS(w *harness.World, names map[string]string) {
	w.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		w.Fatal(err)
	}
	up := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		name := q.Question[0].Name
		addr, known := names[strings.TrimSuffix(name, ".")]
		switch {
		case !known:
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr)}}
		}
		_ = rw.WriteMsg(m) // who asks asks again
	})}
	go func() { _ = srv.ActivateAndServe() }() // ends with an error on Shutdown
	<-up
	w.Cleanup(func() { _ = srv.Shutdown() })
}

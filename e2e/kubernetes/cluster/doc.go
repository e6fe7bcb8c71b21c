// Package cluster gives a test a Kubernetes cluster of its own: the real
// kube-apiserver and etcd, and where asked the real kube-controller-manager and
// cert-manager's real controllers, as processes of this machine, on loopback,
// in a scratch folder. What is played, by the test through this package, is
// what needs machines: nodes, the scheduler and the kubelet.
//
//	c := cluster.Start(t, cluster.Options{})
//	c.Namespace("prod")
//	c.ServiceAccount("prod", "web")
//	c.Node("n1")
//	pod := c.Pod("prod", "web-0", "web")
//	pod = c.Run(pod, "n1", "10.9.0.1")
//	token := c.Token(pod, "https://ca.test", time.Hour)
//
// The programs are in bin of this module: e2e/kubernetes/install builds them.
// Any number of clusters may run side by side; a cluster ends with its test,
// and with the process of the test however that ends. All waiting is bounded.
// Where the outcome isn't what a helper is for, the test ends.
//
// What a cluster without kubelets can't show: images, containers, logs,
// projected volumes (a test writes the token that [Cluster.Token] returns
// where a volume would have it), and traffic between pods and services. A pod's
// address may be any that the test gives it; EndpointSlices refuse loopback
// addresses, so pods that are to be reached have 10.x addresses that the test
// puts on its lo, in a network namespace of its own ([harness.Alone]).
//
// It may import client-go and what that brings, and nothing of the server: the
// two meet on the wire only.
//
// [harness.Alone]: https://pkg.go.dev/github.com/chancery-pki/chancery/e2e/harness#Alone
package cluster

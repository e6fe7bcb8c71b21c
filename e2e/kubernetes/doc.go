// Package kubernetes runs the server of this repository in a Kubernetes
// cluster: package cluster says what is real there and what is played. It has
// tests only, a file for every user of the cluster, and the program workload,
// which stands for one in a pod. The server and the tests meet on the wire: they
// may import the client's packages (mtls), and nothing of the server.
//
// Every test is in namespaces of its own ([harness.Alone]), where the addresses
// 10.0.0.0/8 are the machine's own, for pods that are to be reached.
//
// [harness.Alone]: https://pkg.go.dev/github.com/chancery-pki/chancery/e2e/harness#Alone
package kubernetes

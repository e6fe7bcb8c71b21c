// Package examples holds programs that speak mutual TLS with package mtls,
// each to be started with one command against a CA on loopback:
//
//	go run ./cmd/chanceryd demo                             # in one shell; it names its env file
//	. /tmp/chancery-demo-123/env && go run ./examples/http  # in another
//
//	http      net/http, server and client
//	grpc      gRPC, server and client
//	tcp       raw TCP, server and client
//	outside   a client without listener, cluster or hardware: an EAB key is its proof
//	signer    a key that lives in an HSM
//	pod       a workload on Kubernetes; see deploy/kubernetes
//
// They are a module of their own, since they need more than package mtls does.
package examples

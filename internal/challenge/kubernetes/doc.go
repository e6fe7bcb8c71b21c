// Package kubernetes verifies kubernetes-01: a pod proves its names by being
// what its cluster says it is. A [Verifier] asks one cluster's API for one
// directory, live, every time; it keeps nothing between two calls and serves
// any number of goroutines.
//
// It may import internal/protocol, the standard library and the Kubernetes
// client, nothing else of this project. Of client-go it uses the REST client
// and the kubeconfig with a scheme of three API groups, not the clientsets:
// they bring in every API there is, and three times the size.
//
// Sources: the Kubernetes API v1.29 and later (v1 pods and services,
// discovery.k8s.io/v1, authentication.k8s.io/v1), "Kubernetes DNS-Based
// Service Discovery" version 1.1.0, RFC 8555 section 8.
//
// # Which pod
//
// The response is {"serviceAccountToken": "…"} with a projected token that is
// bound to the pod and made for this directory's URL alone. The cluster
// reviews it (TokenReview): it must be authentic, for our audience, and name
// one pod by name and UID. Where [Config.SourceAddress] says so, the response
// may be {} instead, and the pod is the one whose primary address is the
// socket's peer address. (The API finds pods by their primary address only: in
// a dual-stack cluster the CA must be reached by the primary family.) Pods on
// their host's network, addresses that two pods have, link-local and multicast
// addresses are refused.
//
// Then the pod itself is read: the same UID, not being deleted, neither
// succeeded nor failed, of the token's service account, ready where
// [Config.RequireReady] says so. A TokenReview is not enough: API servers
// remember a yes for ten seconds, and a deleted pod is refused at once here.
//
// # Which names
//
// A name is a pod's if one of these rules gives it. A wildcard never is.
//
//	api.prod.svc.cluster.local        the Service, of any type but ExternalName: the pod bears the
//	                                  labels it selects, and a slice of its own that the endpoint
//	                                  slice controller manages targets this pod's UID
//	web-0.web.prod.svc.cluster.local  the pod of a StatefulSet, under its headless Service
//	api.prod.svc  api.prod            the same Service, and
//	web-0.web.prod.svc                the same pod, with ShortNames
//	api                               a Service of BareNamespace
//	10.1.2.3 (type ip)                the pod's own addresses; not its node's, not a Service's
//	templates                         such as {serviceaccount}.{namespace}.sa.example.internal
//	Namespaces                        what every pod of a namespace may have
//
// A placeholder of a template fills exactly one DNS label with a lower-case
// value. {label:KEY} and {annotation:KEY} are the pod owner's own choice, so
// every template ends in {namespace} and a literal suffix, and no template's
// names can be those of another namespace: each name has one reading only, and
// the reading has one namespace. [New] refuses suffixes that would change
// this: below or above one another or the cluster's domain, or in "svc", where
// the short names are. What Namespaces grants is the operator's word, and may
// overlap with anything.
//
// # What it needs in the cluster
//
// Exactly these, in a ClusterRole; nothing is ever written:
//
//	authentication.k8s.io  tokenreviews    create
//	""                     pods            get
//	""                     pods            list    with SourceAddress only
//	""                     services        get
//	discovery.k8s.io       endpointslices  list
//
// A missing one is logged with its verb and resource. While the API can't be
// asked, forbids it, fails or answers nonsense, the answer is serverInternal
// with Retry-After, never a yes.
//
// # Bounds
//
// A response has at most 16 KiB, a validation Config.Timeout, an answer of the
// API 32 MiB, a list 40 pages of slices or 4 of pods. Requests are not
// repeated here; the authority tries again. Tokens are never logged, repeated
// in a problem, or kept.
package kubernetes

// Package publish serves what relying parties fetch before they trust anyone,
// over plain HTTP on a listener of its own. A [Publisher] is its http.Handler:
//
//	POST /ocsp, /ocsp/        an OCSP answer (RFC 6960 appendix A.1)
//	GET  /ocsp/BASE64         the same, for small requests (RFC 5019 section 5)
//	GET  /crl/KEYID.crl       the full CRL of the issuing certificate with that key
//	GET  /crl/KEYID/SHARD.crl one of its shards
//	GET  /ca/KEYID.cer        the issuing certificate (the AIA's caIssuers)
//	GET  /ssh/krl             the KRL of all SSH issuers (sshd's RevokedKeys)
//	GET  /ssh/krl.sig         its signature, an armored SSHSIG
//	GET  /ssh/user_ca.pub     the SSH CA keys for users (sshd's TrustedUserCAKeys)
//	GET  /ssh/host_ca.pub     those for hosts (known_hosts' @cert-authority)
//
// KEYID is the lower-case hexadecimal SubjectKeyId. Everything served is
// signed, so plain HTTP harms nobody, and HTTPS could make checking a
// certificate depend on checking another one first (RFC 5280 section 8). That
// is also why no answer ever carries Strict-Transport-Security: a browser that
// once saw it would never come back here.
//
// The package decides and signs nothing: answers and lists come from
// internal/responder, some lists from files (a root's, made where its key is).
// Its own part is the cache: OCSP answers in memory, ready with their headers,
// within a bound; one is dropped before its certificate's revocation is
// confirmed, and none is used while revocations on other replicas may go
// unheard. An answer that was under way during a revocation doesn't get in, nor
// out.
//
// Whatever a request lacks, OCSP's answer is HTTP 200 with OCSP's own status;
// only a method, size or type that can't be right gets a 4xx, and nothing a
// client does a 5xx.
//
// It may import internal/responder, internal/responder/krl, internal/revocation
// and internal/cert.
// Sources: RFC 6960 appendix A, RFC 5019 sections 5 and 6, RFC 5280 section
// 4.2.2.1 (caIssuers), RFC 2585 section 4 (media types), RFC 9110 and 9111
// (caching).
package publish

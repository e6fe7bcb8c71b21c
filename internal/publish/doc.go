// Package publish serves what relying parties fetch before they trust anyone:
// each issuing certificate and its CRL, over plain HTTP on a listener of its
// own. A [Publisher] keeps the lists fresh and is their http.Handler:
//
//	GET /crl/KEYID.crl   the CRL of the issuing certificate with that key
//	GET /ca/KEYID.cer    the issuing certificate (the AIA's caIssuers)
//
// KEYID is the lower-case hexadecimal SubjectKeyId. Everything served is
// signed, so plain HTTP harms nobody, and HTTPS could make checking a
// certificate depend on checking another one first (RFC 5280 section 8). That
// is also why no answer ever carries Strict-Transport-Security: a browser that
// once saw it would never come back here.
//
// A new list is made at start, within seconds of a revocation on any replica,
// and long before the old one ends; until then, and when signing fails, the
// old one is served. Each replica with the key makes its own lists, whose
// numbers come from the shared database and so never repeat. Lists are kept in
// memory only: the old one and, while it is made, the new one.
//
// The package writes nothing; what it needs of the authority, the store and the
// key comes in as functions. It may import internal/revocation and
// internal/cert. Sources: RFC 5280 sections 3.3 and 5, and 4.2.2.1 (caIssuers);
// RFC 2585 section 4 (media types); RFC 9110 and 9111 (caching), in the manner
// of RFC 5019 section 6.
package publish

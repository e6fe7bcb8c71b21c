// Package api holds the request and response types of Chancery's own JSON
// API, which internal/admin serves and cmd/chancery calls: the API for those
// who run the CA, not for those who want certificates (that is ACME). Times
// are RFC 3339 in UTC, MAC keys base64url without padding, certificates PEM.
// Pure words; standard library only.
//
//	GET  /v1/status
//	GET  /v1/signing
//	GET  /v1/eab-keys?directory=&after=&limit=
//	POST /v1/eab-keys                        NewEABKey → EABKey
//	POST /v1/eab-keys/{id}/revoke
//	GET  /v1/accounts?directory=&eab_key=&status=&after=&limit=
//	GET  /v1/accounts/{id}
//	POST /v1/accounts/{id}/revoke
//	GET  /v1/certificates?name=&account=&eab_key=&directory=&issuer=&issuer_key=&key=&revoked=&expires_after=&expires_before=&after=&limit=
//	GET  /v1/certificates/{serial}
//	POST /v1/certificates/{serial}/revoke    Revocation
//	GET  /v1/audit?object=&actor=&action=&from=&to=&after=&limit=
//	POST /v1/audit/verify
//
// Errors are problem documents (RFC 7807), as in ACME.
package api

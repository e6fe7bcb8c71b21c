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
//	GET  /v1/certificates?name=&account=&eab_key=&directory=&issuer=&issuer_key=&key=&owner=&device=&format=&revoked=&expires_after=&expires_before=&full=&after=&limit=
//	GET  /v1/certificates/{serial}
//	POST /v1/certificates/{serial}/revoke    Revocation
//	GET  /v1/devices?owner=&state=&name=&after=&limit=
//	POST /v1/devices                         NewDevice → Device
//	GET  /v1/devices/{id}
//	POST /v1/devices/{id}/identities         Identities → Device
//	POST /v1/devices/{id}/retire?revoke=     → Device
//	POST /v1/devices/{id}/lost               → Withdrawn
//	POST /v1/people/{owner}/revoke           Revocation → Withdrawn
//	GET  /v1/advisories
//	POST /v1/advisories                      Advisory → Advisory
//	POST /v1/advisories/{id}/withdraw
//	GET  /v1/watched-keys
//	POST /v1/watched-keys                    WatchedKey → WatchedKey
//	POST /v1/watched-keys/{fingerprint}/forget
//	POST /v1/watched-keys/{fingerprint}/sightings    Sighting
//	GET  /v1/audit?object=&actor=&action=&from=&to=&after=&limit=
//	POST /v1/audit/verify
//
// The {id} of a device is also its serial number, where only one slot of it is
// enrolled; losing a YubiKey takes all of its slots. A {fingerprint} is
// base64url of its text. A listing with full=true has each certificate with
// its chain, or its line.
//
// Errors are problem documents (RFC 7807), as in ACME.
package api

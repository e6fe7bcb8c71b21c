// Package setup brings a CA into the world: the ceremony that makes the root
// and the issuing CAs and writes the configuration (init.go), what to tell
// people to trust (trust.go), the demo that shows all of it on loopback
// (demo.go), and backup and restore (backup.go). What operators do with keys
// and CA certificates later is in ceremony. It may import everything
// below it, and the server, since the demo runs the very server.
package setup

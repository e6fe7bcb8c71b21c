// Command plain is a server and a client over TLS by net/http and crypto/tls
// alone: what a program carries that doesn't use the library.
package main

import (
	"crypto/tls"
	"log"
	"net/http"
	"os"
)

func main() {
	cert, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}}
	if _, err := client.Get(os.Args[3]); err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: os.Args[4], TLSConfig: config, Handler: http.NotFoundHandler()}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

// Command service is plain, with log/slog and encoding/json, which most
// services have.
package main

import (
	"crypto/tls"
	"encoding/json"
	"log"
	"log/slog"
	"net/http"
	"os"
)

func main() {
	cert, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	var settings struct{ Name string }
	if err := json.Unmarshal([]byte(os.Args[5]), &settings); err != nil {
		log.Fatal(err)
	}
	slog.Info("starting", "name", settings.Name)
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}}
	if _, err := client.Get(os.Args[3]); err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: os.Args[4], TLSConfig: config, Handler: http.NotFoundHandler()}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

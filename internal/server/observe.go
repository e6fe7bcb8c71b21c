package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/chancery-pki/chancery/internal/config"
)

// listenMetrics opens the listener for Prometheus and health checks: plain on
// loopback, mutual TLS elsewhere (config.Check has seen to that).
func (s *Server) listenMetrics(c *config.Config) (bound, error) {
	l, err := net.Listen("tcp", c.Metrics.Listen)
	if err != nil {
		return bound{}, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", s.health)
	b := bound{"metrics", l, &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}, false}
	if c.Metrics.ClientCA == "" {
		return b, nil
	}
	roots, err := readCertificates(c.Path(c.Metrics.ClientCA))
	if err != nil {
		l.Close()
		return bound{}, err
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	b.tls = true
	b.server.TLSConfig = &tls.Config{
		GetCertificate: s.own.get, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	return b, nil
}

// health answers 200 while the database does.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.db.Ping(ctx); err != nil {
		s.log.Warn("unhealthy", "error", err)
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

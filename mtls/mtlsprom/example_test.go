package mtlsprom_test

import (
	"context"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/mtlsprom"
)

func Example() {
	metrics := mtlsprom.New()
	id, err := mtls.New(context.Background(), mtls.Config{Hooks: metrics.Hooks()})
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	metrics.Watch(id)
	prometheus.MustRegister(metrics)
}

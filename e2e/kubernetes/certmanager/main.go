// Command certmanager runs cert-manager's own controllers, those that get
// certificates from an ACME server, against the cluster of a kubeconfig.
//
// cert-manager's own command is a module under another name than its folder's,
// so no Go proxy serves it; all that it starts is in public packages, which
// this starts likewise: with upstream's defaults, but without leader election,
// webhooks, metrics and health pages, which a cluster of one test needs not.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"

	// The controllers and issuers enter themselves into controller.Known.
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

// workers is upstream's default for every controller.
const workers = 5

func main() {
	log.SetFlags(0)
	kubeconfig := flag.String("kubeconfig", "", "`file` that says how to reach the cluster")
	nameservers := flag.String("nameservers", "", "`host:port,...` that cert-manager asks in its own checks of challenges")
	klog.InitFlags(nil)
	if err := flag.Set("v", "2"); err != nil {
		log.Fatal(err)
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, options(*kubeconfig, strings.Split(*nameservers, ","))); err != nil {
		log.Fatalf("certmanager: %v", err)
	}
}

// options are the defaults of cert-manager's own command
// (internal/apis/config/controller/v1alpha1/defaults.go) and of its Helm chart,
// but for what a test would wait for: the API server may be asked more often, a DNS check is
// repeated after a second and not after ten, and a failed request after a
// second and not after an hour.
func options(kubeconfig string, nameservers []string) controller.ContextOptions {
	return controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   200,
		KubernetesAPIBurst: 400,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
		ACMEOptions: controller.ACMEOptions{
			HTTP01SolverImage:                 "acmesolver", // nobody pulls it
			HTTP01SolverResourceRequestCPU:    resource.MustParse("10m"),
			HTTP01SolverResourceRequestMemory: resource.MustParse("64Mi"),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse("100m"),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse("64Mi"),
			ACMEHTTP01SolverRunAsNonRoot:      true,
			HTTP01SolverNameservers:           nameservers,
			DNS01Nameservers:                  nameservers,
			DNS01CheckRetryPeriod:             time.Second,
		},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/"},
			CertificateRequestMinimumBackoffDuration: time.Second,
		},
		SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: 60},
	}
}

// run runs every controller that is compiled in until ctx is done, or one of
// them fails.
func run(ctx context.Context, o controller.ContextOptions) error {
	g, ctx := errgroup.WithContext(klog.NewContext(ctx, klog.Background()))
	factory, err := controller.NewContextFactory(ctx, o)
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	// All must have asked for their informers before any informer starts.
	for name, construct := range controller.Known() {
		c, err := construct(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		g.Go(func() error {
			if err := c.Run(workers, ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	log.Print("certmanager: running") // which tests wait for
	return g.Wait()
}

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
)

// The API server takes every manifest and knows each of its fields, and the
// controllers make what the manifests are for, within the restrictions that
// they set themselves.
func TestManifests(t *testing.T) {
	alone(t, 2*time.Minute, func(w *harness.World) {
		c := cluster.Start(w, cluster.Options{Controllers: true})
		c.CertManagerKinds()
		c.Apply(manifest(w, "chancery.yaml"))
		c.Apply(manifest(w, "workload.yaml"))
		err := filepath.WalkDir("../../deploy/kubernetes", func(file string, d os.DirEntry, err error) error {
			if err == nil && filepath.Ext(file) == ".yaml" {
				c.Apply(strings.ReplaceAll(w.Read(file), "CA_BUNDLE", "Q0E=")) // once more for the two above, which changes nothing
			}
			return err
		})
		if err != nil {
			w.Fatal(err)
		}
		for _, want := range []struct {
			namespace, label string
			pods             int
		}{
			{"chancery", "app.kubernetes.io/name=chanceryd", 1 + 2}, // the StatefulSet's and the Deployment's
			{"demo", "app=web", 2},
		} {
			c.Eventually(follows, func(ctx context.Context) error {
				pods, err := c.Client.CoreV1().Pods(want.namespace).List(ctx, metav1.ListOptions{LabelSelector: want.label})
				if err == nil && len(pods.Items) < want.pods {
					err = fmt.Errorf("%d pods of %s in %s, want %d%s", len(pods.Items), want.label, want.namespace, want.pods, warnings(ctx, c, want.namespace))
				}
				return err
			})
		}
		w.Sub("Unknown", func(w *harness.World) { // Apply can fail
			doc := "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {clusterIp: None, ports: [{port: 1}]}}"
			if _, err := c.For(w).TryApply([]byte(doc)); err == nil || !strings.Contains(err.Error(), "clusterIp") {
				w.Errorf("a field that doesn't exist: %v", err)
			}
		})
	})
}

// warnings are the events that say why pods aren't made.
func warnings(ctx context.Context, c *cluster.Cluster, namespace string) (text string) {
	events, err := c.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return "; " + err.Error()
	}
	for _, e := range events.Items {
		text += "; " + e.Message
	}
	return text
}

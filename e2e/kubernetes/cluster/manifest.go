package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// Apply does what kubectl apply --server-side --validate=strict does with a
// manifest, objects in YAML or JSON, and returns the objects as they are then:
// fields that the API doesn't know, or that are there twice, end the test. An
// object of a namespaced kind that names no namespace goes into "default".
func (c *Cluster) Apply(manifest string) []*unstructured.Unstructured {
	c.t.Helper()
	var all []*unstructured.Unstructured
	for docs := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		c.check("the manifest", err)
		o, err := c.TryApply(doc)
		c.check("applying "+string(doc), err)
		if o != nil {
			all = append(all, o)
		}
	}
}

// TryApply is Apply for one object, that may fail. It is nil for a text that is
// comments only.
func (c *Cluster) TryApply(doc []byte) (*unstructured.Unstructured, error) {
	c.t.Helper()
	o := &unstructured.Unstructured{}
	c.check("the manifest", yaml.Unmarshal(doc, &o.Object))
	if len(o.Object) == 0 {
		return nil, nil
	}
	force := true
	return c.resource(o).Patch(c.t.Context(), o.GetName(), types.ApplyPatchType, doc,
		metav1.PatchOptions{FieldManager: "test", Force: &force, FieldValidation: metav1.FieldValidationStrict})
}

// Get is the object as it is now.
func (c *Cluster) Get(o *unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	now, err := c.resource(o).Get(c.t.Context(), o.GetName(), metav1.GetOptions{})
	c.check("getting "+o.GetKind()+" "+o.GetName(), err)
	return now
}

// UntilTrue waits until the object's status has the condition, such as Ready,
// with the status True, and returns the object as it is then. Where that is not
// within the limit, the test ends and shows the object's status.
func (c *Cluster) UntilTrue(o *unstructured.Unstructured, condition string, limit time.Duration) *unstructured.Unstructured {
	c.t.Helper()
	resource := c.resource(o)
	var now *unstructured.Unstructured
	c.Eventually(limit, func(ctx context.Context) (err error) {
		if now, err = resource.Get(ctx, o.GetName(), metav1.GetOptions{}); err != nil {
			return err
		}
		all, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions") // none yet, if not there
		for _, one := range all {
			if m, ok := one.(map[string]any); ok && m["type"] == condition && m["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("%s %s is not %s: %v", o.GetKind(), o.GetName(), condition, now.Object["status"])
	})
	return now
}

// resource is where the API server has objects of the kind.
func (c *Cluster) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	c.t.Helper()
	kind := o.GroupVersionKind()
	mapping, err := c.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) { // a kind that was defined since the last look
		c.kinds.Reset()
		mapping, err = c.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	}
	c.check("kind "+kind.String(), err)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return c.Dynamic.Resource(mapping.Resource)
	}
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return c.Dynamic.Resource(mapping.Resource).Namespace(namespace)
}

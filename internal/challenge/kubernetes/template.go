package kubernetes

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// template makes one name of a pod. Each part before the suffix is one label,
// literal or filled; the last is always the namespace.
type template struct {
	text   string
	parts  []part
	suffix string
}

type part struct {
	kind  string // "", "serviceaccount", "namespace", "label" or "annotation"
	value string // the literal, or the key of the label or annotation
}

// parseTemplate reads a template by the rules of [Config.Templates]. Its
// errors continue the template's text.
func parseTemplate(text string) (template, error) {
	t := template{text: text}
	rest := text
	for !strings.HasPrefix(rest, "{namespace}.") {
		p, after, err := cutPart(rest)
		if err != nil {
			return t, err
		}
		t.parts = append(t.parts, p)
		rest = after
	}
	t.parts = append(t.parts, part{kind: "namespace"})
	t.suffix = strings.TrimPrefix(rest, "{namespace}.")
	switch {
	case strings.ContainsAny(t.suffix, "{}"):
		return t, errors.New("must have nothing but a literal suffix after {namespace}, so that no namespace gets another's names")
	case !isName(t.suffix):
		return t, fmt.Errorf("must end in a domain in lower case; %q is none", t.suffix)
	case len(t.parts)+strings.Count(t.suffix, ".")+1 < 3: // "{namespace}.internal" would be the short name of a Service in "internal"
		return t, errors.New("must make names of three labels or more")
	}
	return t, nil
}

// cutPart cuts the first label off. Keys of labels have dots, so that it reads
// placeholders by their braces.
func cutPart(s string) (part, string, error) {
	inside, isPlaceholder := strings.CutPrefix(s, "{")
	if !isPlaceholder {
		literal, rest, _ := strings.Cut(s, ".")
		if rest == "" {
			return part{}, "", errors.New("must end in {namespace} and a literal suffix, as in \"{serviceaccount}.{namespace}.sa.example.internal\"")
		}
		if !isLabel(literal) {
			return part{}, "", fmt.Errorf("has a label %q, which is neither one of a host name in lower case nor a whole placeholder", literal)
		}
		return part{value: literal}, rest, nil
	}
	inside, rest, closed := strings.Cut(inside, "}")
	rest, separate := strings.CutPrefix(rest, ".")
	if !closed || !separate {
		return part{}, "", errors.New("has a placeholder that is not a whole label; write it in braces, with a dot after it")
	}
	kind, key, _ := strings.Cut(inside, ":")
	switch {
	case kind == "serviceaccount" && inside == kind:
	case (kind == "label" || kind == "annotation") && key != "" && !strings.Contains(key, "{"):
	default:
		return part{}, "", fmt.Errorf("has {%s}; there are {serviceaccount}, {namespace}, {label:KEY} and {annotation:KEY}", inside)
	}
	return part{kind, key}, rest, nil
}

// distinct says why the template's names could be those of another namespace
// by another rule, as the continuation of its text.
func (t template) distinct(domain string, others []template) error {
	if t.suffix == "svc" || strings.HasSuffix(t.suffix, ".svc") {
		return errors.New("ends in \"svc\", which is for the short names of Services")
	}
	if overlap(t.suffix, domain) {
		return fmt.Errorf("ends above or below the cluster's domain %q; choose another suffix", domain)
	}
	for _, o := range others {
		if t.suffix != o.suffix && overlap(t.suffix, o.suffix) {
			return fmt.Errorf("ends above or below %q, which another template ends in; let them be equal or apart", o.suffix)
		}
	}
	return nil
}

func overlap(a, b string) bool {
	return a == b || strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a)
}

// fill makes the pod's name by the template, or says why it has none as the
// continuation of the pod.
func (t template) fill(pod *corev1.Pod) (name, why string) {
	labels := make([]string, 0, len(t.parts)+1)
	for _, p := range t.parts {
		value, there := p.value, true
		switch p.kind {
		case "serviceaccount":
			value = pod.Spec.ServiceAccountName
		case "namespace":
			value = pod.Namespace
		case "label":
			value, there = pod.Labels[p.value]
		case "annotation":
			value, there = pod.Annotations[p.value]
		}
		switch {
		case !there:
			return "", fmt.Sprintf("has no %s %s", p.kind, p.value)
		case !isLabel(value):
			return "", fmt.Sprintf("has a %s that is not one DNS label in lower case", strings.TrimSpace(p.kind+" "+p.value))
		}
		labels = append(labels, value)
	}
	return strings.Join(append(labels, t.suffix), "."), ""
}

// couldBe reports whether the template makes names of this shape.
func (t template) couldBe(name string) bool {
	above, ok := strings.CutSuffix(name, "."+t.suffix)
	return ok && strings.Count(above, ".")+1 == len(t.parts)
}

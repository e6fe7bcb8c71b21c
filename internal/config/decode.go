package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder puts a YAML tree into the structs. It goes on after a problem, so
// that an operator sees all of them at once, and notes where each value stood.
type decoder struct {
	source   source
	problems Problems
}

func (d *decoder) decode(body ast.Node, c *Config) {
	if body == nil {
		return
	}
	d.note("", body.GetToken())
	d.value("", body, reflect.ValueOf(c).Elem())
}

func (d *decoder) note(path string, t *token.Token) {
	if t != nil && t.Position != nil {
		d.source.places[path] = place{t.Position.Line, t.Position.Column}
	}
}

func (d *decoder) fail(path, format string, args ...any) {
	if len(d.problems) < maxShown {
		d.problems = append(d.problems, d.source.problem(path, format, args...))
	}
}

// value decodes one node. A null counts as left out.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	if n == nil || n.Type() == ast.NullType {
		return
	}
	if v.Type() == reflect.TypeFor[netip.Prefix]() {
		d.text(path, n, func(s string) error {
			p, err := parseNetwork(s)
			v.Set(reflect.ValueOf(p))
			return err
		})
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(path, n, func(s string) error { return u.UnmarshalText([]byte(s)) })
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.section(path, n, v)
	case reflect.Map:
		d.named(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.String:
		d.text(path, n, func(s string) error { v.SetString(s); return nil })
	case reflect.Bool:
		d.boolean(path, n, v)
	case reflect.Int:
		d.integer(path, n, v)
	default:
		panic("config: a field of type " + v.Type().String()) // a bug: no struct here has one
	}
}

// entries calls f for each key of a mapping; it refuses anything else.
func (d *decoder) entries(path string, n ast.Node, f func(key string, value ast.Node)) {
	var pairs []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		pairs = m.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{m}
	default:
		d.fail(path, "this is %s; a section with \"key: value\" lines is wanted", kind(n))
		return
	}
	seen := map[string]bool{}
	for _, pair := range pairs {
		key, ok := scalar(pair.Key)
		at := join(path, key)
		if seen[key] {
			d.note(at, pair.Key.GetToken())
			d.fail(at, "this key is here twice")
			continue
		}
		seen[key] = true
		d.note(at, pair.Key.GetToken())
		if !ok {
			d.fail(at, "a key is a plain word")
			continue
		}
		f(key, pair.Value)
	}
}

func (d *decoder) section(path string, n ast.Node, v reflect.Value) {
	fields := map[string]reflect.Value{}
	var known []string
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("yaml"); key != "" {
			fields[key] = v.Field(i)
			known = append(known, key)
		}
	}
	d.entries(path, n, func(key string, value ast.Node) {
		field, ok := fields[key]
		if !ok {
			d.fail(join(path, key), "unknown key; known here: %s", strings.Join(known, ", "))
			return
		}
		d.value(join(path, key), value, field)
	})
}

// named decodes a section whose keys are names that the operator chose.
func (d *decoder) named(path string, n ast.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(path, n, func(key string, value ast.Node) {
		if v.Type().Elem().Kind() == reflect.Struct && !isName(key) { // others' names are for Check
			d.fail(join(path, key), "a name is 1 to 32 lower-case letters, digits and hyphens, with a letter or digit first and last")
			return
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, key), value, element)
		v.SetMapIndex(reflect.ValueOf(key), element)
	})
}

func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	items, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(path, "this is %s; a list is wanted, as in [a, b]", kind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items.Values), len(items.Values)))
	for i, item := range items.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.note(at, start(item))
		if item.Type() == ast.NullType {
			d.fail(at, "the entry is empty")
			continue
		}
		d.value(at, item, v.Index(i))
	}
}

func (d *decoder) text(path string, n ast.Node, set func(string) error) {
	s, ok := scalar(n)
	if !ok {
		d.fail(path, "this is %s; one value is wanted", kind(n))
		return
	}
	d.note(path, n.GetToken())
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		d.fail(path, "the value has line breaks or control characters")
		return
	}
	if err := set(s); err != nil {
		d.fail(path, "%v", err)
	}
}

func (d *decoder) boolean(path string, n ast.Node, v reflect.Value) {
	d.note(path, n.GetToken())
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.fail(path, "this is %s; true or false is wanted", kind(n))
		return
	}
	v.SetBool(b.Value)
}

func (d *decoder) integer(path string, n ast.Node, v reflect.Value) {
	d.note(path, n.GetToken())
	s, _ := scalar(n)
	i, err := strconv.Atoi(s)
	if _, ok := n.(*ast.IntegerNode); !ok || err != nil {
		d.fail(path, "this is %s; a whole number is wanted", kind(n))
		return
	}
	if i <= 0 { // 0 means left out in the structs
		d.fail(path, "%d is not above zero; leave it out for the default", i)
		return
	}
	v.SetInt(int64(i))
}

// scalar returns the text of a single value as it was written.
func scalar(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return fmt.Sprint(n), false
}

// start is the token at which a node begins; a mapping's own is its first
// colon.
func start(n ast.Node) *token.Token {
	switch m := n.(type) {
	case *ast.MappingNode:
		if len(m.Values) > 0 && !m.IsFlowStyle {
			return m.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return m.Key.GetToken()
	}
	return n.GetToken()
}

// kind says in an operator's words what a node is.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// isName reports whether the text can name an issuer, a profile or a
// directory: it stands in URLs, in the database and in logs.
func isName(s string) bool {
	if s == "" || len(s) > 32 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

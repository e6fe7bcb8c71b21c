package config

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const manualPath = "../../docs/configuration.md"

// The reference is made of the comments of the structs, so that the two can't
// say different things.
func TestManual(t *testing.T) {
	m := manual{types: map[string]typeDoc{}, shown: map[string]string{}}
	for _, file := range []string{"config.go", "directory.go", "kubernetes.go", "devices.go", "ssh.go"} {
		m.read(t, file)
	}
	m.out.WriteString(manualHead)
	m.section(t, "", "Config")
	m.out.WriteString("\n## What `chanceryd init` writes\n\n```yaml\n")
	if err := initial().Write(&m.out); err != nil {
		t.Fatal(err)
	}
	m.out.WriteString("```\n")
	if *update {
		if err := os.WriteFile(manualPath, m.out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(manualPath)
	if err != nil || !bytes.Equal(have, m.out.Bytes()) {
		t.Errorf("docs/configuration.md is out of date (%v): go test ./internal/config -run TestManual -update", err)
	}
}

const manualHead = `# Configuration

<!-- Made from the comments in internal/config by go test ./internal/config -update. -->

One YAML file. An unknown key is an error; whatever is left out has the default that is said here. Relative paths
start at the file's folder. A duration is written as in "90s", "24h", "7d" or "1d12h", a share as in "35%". Secrets are named by a path or an
environment variable, never written here. YAML anchors, aliases and tags are not taken, and a value that begins with *
needs quotes. ` + "`chanceryd check`" + ` says what is wrong before anything starts. A running server reads the file again
at SIGHUP and keeps what it has if the new one is bad; the addresses it listens on, ` + "`external_url`" + `, the database and
` + "`signing`" + ` change at the next start only.
`

type typeDoc struct {
	doc    string
	fields []fieldDoc
}

type fieldDoc struct{ key, doc, typ string }

type manual struct {
	types map[string]typeDoc
	shown map[string]string // where each type was described
	out   bytes.Buffer
}

func (m *manual) read(t *testing.T, name string) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if st, ok := ts.Type.(*ast.StructType); ok {
				m.types[ts.Name.Name] = typeDoc{clean(gen.Doc.Text()), m.fields(t, st)}
			}
		}
	}
}

func (m *manual) fields(t *testing.T, st *ast.StructType) []fieldDoc {
	var fields []fieldDoc
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		key := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml")
		fields = append(fields, fieldDoc{key, clean(f.Doc.Text()), expr(f.Type)})
	}
	return fields
}

// section writes one struct, then those inside it.
func (m *manual) section(t *testing.T, path, name string) {
	doc := m.types[name]
	m.shown[name] = path
	title := "The file"
	if path != "" {
		title = "`" + path + "`"
	}
	text := strings.TrimPrefix(doc.doc, name+" is ")
	fmt.Fprintf(&m.out, "\n## %s\n\n%s\n\n", title, strings.ToUpper(text[:1])+text[1:])
	var inner [][2]string
	for _, f := range doc.fields {
		at := f.key
		if path != "" {
			at = path + "." + f.key
		}
		element := strings.TrimPrefix(strings.TrimPrefix(f.typ, "[]"), "map[string]")
		if _, ok := m.types[element]; ok {
			switch {
			case strings.HasPrefix(f.typ, "map"):
				at += ".NAME"
			case strings.HasPrefix(f.typ, "[]"):
				at += "[]"
			}
			text := f.doc
			switch {
			case m.shown[element] != "":
				text += " The settings are those of `" + m.shown[element] + "`."
			case text == "":
				text = "See below."
			}
			if m.shown[element] == "" {
				m.shown[element] = at
				inner = append(inner, [2]string{at, element})
			}
			fmt.Fprintf(&m.out, "- **`%s`** (section `%s`): %s\n", f.key, at, text)
			continue
		}
		if f.doc == "" {
			t.Errorf("%s has no comment", at)
		}
		fmt.Fprintf(&m.out, "- **`%s`** (%s): %s\n", f.key, words(t, f.typ), f.doc)
	}
	for _, i := range inner {
		m.section(t, i[0], i[1])
	}
}

// words says a Go type in an operator's words.
func words(t *testing.T, typ string) string {
	if element, ok := strings.CutPrefix(typ, "[]"); ok {
		return "list: " + words(t, element)
	}
	if element, ok := strings.CutPrefix(typ, "map[string]"); ok {
		return "by name, " + words(t, element)
	}
	switch typ {
	case "string", "cert.Usage", "cert.KeyType", "cert.Revocation", "protocol.ChallengeType":
		return "text"
	case "bool":
		return "true or false"
	case "int":
		return "number"
	case "Duration":
		return "duration"
	case "Share":
		return "share"
	case "Limit":
		return "limit"
	case "Resolver":
		return "resolver"
	case "netip.Prefix":
		return "network"
	}
	t.Errorf("no words for type %s", typ)
	return typ
}

func expr(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return expr(x.X) + "." + x.Sel.Name
	case *ast.ArrayType:
		return "[]" + expr(x.Elt)
	case *ast.MapType:
		return "map[" + expr(x.Key) + "]" + expr(x.Value)
	}
	return fmt.Sprintf("%T", e)
}

func clean(doc string) string { return strings.Join(strings.Fields(doc), " ") }

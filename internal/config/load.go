package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxSize bounds the file: a hundred thousand name patterns fit.
	maxSize = 4 << 20
	// maxDepth bounds the nesting within one line; our sections need five.
	// The parser takes quadratic time for deeper ones.
	maxDepth = 16
	// maxShown bounds what is reported at once.
	maxShown = 100
)

const parserPanicked = "this is not YAML that can be read"

// Load reads the file, which may take as long as the disk does, and fills in
// defaults. It checks each value for itself; whether they fit together is for
// Check. The error is a Problems, or the operating system's.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse is Load for bytes that were read already; file is where they came
// from, for messages and relative paths. The error is a Problems.
func Parse(file string, data []byte) (*Config, error) {
	c := &Config{source: source{file: file, places: map[string]place{}}}
	body, problem := parseYAML(data)
	if problem != nil {
		problem.File = file
		return nil, Problems{*problem}
	}
	d := decoder{source: c.source}
	d.decode(body, c)
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	c.setDefaults()
	return c, nil
}

// parseYAML returns the one document's node, nil for an empty one. A panic of
// the parser, which is others' code, becomes a problem: a bad file at SIGHUP
// must not end a server that runs.
func parseYAML(data []byte) (body ast.Node, problem *Problem) {
	defer func() {
		if r := recover(); r != nil {
			body, problem = nil, &Problem{Message: fmt.Sprintf("%s: %v", parserPanicked, r)}
		}
	}()
	switch {
	case len(data) > maxSize:
		return nil, &Problem{Message: fmt.Sprintf("the file is larger than %d MiB", maxSize>>20)}
	case !utf8.Valid(data):
		return nil, &Problem{Message: "the file is not UTF-8 text"}
	}
	tokens := lexer.Tokenize(string(data))
	if p := refuseTokens(tokens); p != nil {
		return nil, p
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, syntaxProblem(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, problemAt(doc.Body.GetToken(), "there is more than one document; one file holds one")
		}
		body = doc.Body
	}
	return body, nil
}

func syntaxProblem(err error) *Problem {
	if e, ok := errors.AsType[yaml.Error](err); ok {
		return problemAt(e.GetToken(), e.GetMessage())
	}
	return &Problem{Message: err.Error()}
}

func problemAt(t *token.Token, message string) *Problem {
	p := &Problem{Message: message}
	if t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

// refuseTokens refuses what the file has no use for before the parser sees
// it: features that make a file mean more than it shows, and deep nesting.
func refuseTokens(tokens token.Tokens) *Problem {
	depth, dashes, line := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.AliasType:
			return problemAt(t, "a value that begins with * needs quotes, as in \"*.example.internal\" (YAML aliases are not taken)")
		case token.AnchorType, token.TagType, token.DirectiveType, token.MergeKeyType, token.MappingKeyType:
			return problemAt(t, fmt.Sprintf("YAML anchors, tags, directives, merge keys and complex keys are not taken; put a value that begins with %q in quotes", t.Value))
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			if t.Position.Line != line {
				dashes, line = 0, t.Position.Line
			}
			dashes++
		}
		if depth > maxDepth || dashes > maxDepth {
			return problemAt(t, "this is nested too deeply")
		}
	}
	return nil
}

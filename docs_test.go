package chancery_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every package says what it is for.
func TestEveryPackageHasAComment(t *testing.T) {
	for _, dir := range []string{".", "mtls"} {
		for _, p := range packages(t, dir, "./...") {
			if len(p.GoFiles) > 0 && len(p.Doc) < 20 {
				t.Errorf("%s has no package comment", p.ImportPath)
			}
		}
	}
}

// No package is called after nothing, no file does things behind the
// reader's back, no file or package grows too long (CONTRIBUTING.md).
func TestHouseRules(t *testing.T) {
	lines := map[string]int{}
	defer func() {
		for dir, n := range lines {
			if n > 3000 {
				t.Errorf("%s has %d lines; a package over 3,000 does more than one job", dir, n)
			}
		}
	}()
	walkGo(t, func(path string, text []byte) {
		for _, name := range []string{"util", "utils", "common", "helpers", "misc"} {
			if filepath.Base(filepath.Dir(path)) == name {
				t.Errorf("%s: a package named %s says nothing", path, name)
			}
		}
		if bytes.Contains(text, []byte("\nfunc init()")) {
			t.Errorf("%s has an init function", path)
		}
		if !strings.HasSuffix(path, "_test.go") {
			lines[filepath.Dir(path)] += bytes.Count(text, []byte("\n"))
		}
		if n := bytes.Count(text, []byte("\n")); n > 550 && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s has %d lines; the house rule is about 500", path, n)
		}
	})
}

// Links between documents lead somewhere, and to every page of docs leads one.
func TestLinksResolve(t *testing.T) {
	linked := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, part := range strings.Split(string(text), "](")[1:] {
			link, _, _ := strings.Cut(part, ")")
			link, _, _ = strings.Cut(link, "#")
			if link == "" || strings.Contains(link, ":") {
				continue
			}
			to := filepath.Join(filepath.Dir(path), link)
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which isn't there", path, link)
			}
			if to != path {
				linked[to] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		if !linked[page] {
			t.Errorf("no page links to %s", page)
		}
	}
}

func walkGo(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			visit(path, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

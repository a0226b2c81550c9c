package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// modulePath is the product's module; imports below it are the repository's own.
const modulePath = "github.com/cairndb/cairn"

// finding is one breach of a rule: where it is, and what to do instead.
type finding struct{ where, what string }

func (f finding) String() string { return f.where + ": " + f.what }

// tree is the repository as the rules see it. Paths are relative to its root and have forward slashes.
type tree struct {
	fset   *token.FileSet
	source []*source         // Go files of the product's module, ordered by path
	text   map[string]string // every text file, those of nested modules too
}

// source is one parsed Go file.
type source struct {
	path, dir string
	test      bool // its name ends in _test.go
	generated bool
	lines     int
	ast       *ast.File
}

// textName says which files are read as text.
var textName = regexp.MustCompile(`(\.(go|md|proto|sh|ya?ml|conf|mod)|(^|/)(Makefile|LICENSE|run|session|\.gitignore|\.editorconfig))$`)

// load reads a tree. Folders that hold no sources of ours are left out.
func load(files fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), text: map[string]string{}}
	nested := "" // the nested module that the walk is in, with a slash at its end
	err := fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p == ".git" || p == "bin" || p == "bench/out" || d.Name() == "testdata" {
				return fs.SkipDir
			}
			if _, err := fs.Stat(files, path.Join(p, "go.mod")); err == nil && p != "." && !t.inside(nested, p) {
				nested = p + "/"
			}
			return nil
		}
		if !textName.MatchString(p) {
			return nil
		}
		data, err := fs.ReadFile(files, p)
		if err != nil {
			return err
		}
		t.text[p] = string(data)
		if strings.HasSuffix(p, ".go") && !t.inside(nested, p) {
			return t.parse(p, data)
		}
		return nil
	})
	return t, err
}

func (t *tree) inside(dir, p string) bool { return dir != "" && strings.HasPrefix(p+"/", dir) }

func (t *tree) parse(p string, data []byte) error {
	f, err := parser.ParseFile(t.fset, p, data, parser.ParseComments)
	if err != nil {
		return err
	}
	t.source = append(t.source, &source{
		path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"),
		generated: ast.IsGenerated(f), lines: strings.Count(string(data), "\n"), ast: f,
	})
	return nil
}

// at makes a finding at a position.
func (t *tree) at(pos token.Pos, format string, args ...any) finding {
	p := t.fset.Position(pos)
	return finding{fmt.Sprintf("%s:%d", p.Filename, p.Line), fmt.Sprintf(format, args...)}
}

// written calls f for each file that people write and that is part of the product.
func (t *tree) written(f func(*source)) {
	for _, s := range t.source {
		if !s.test && !s.generated {
			f(s)
		}
	}
}

// imports calls f with the path of each import.
func (s *source) imports(f func(path string, spec *ast.ImportSpec)) {
	for _, spec := range s.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			f(p, spec)
		}
	}
}

// imported maps the names under which the file's imports are called to their paths. The name of an import without
// an alias is taken to be its last element, a major version left out: true of all that the rules ask for.
func (s *source) imported() map[string]string {
	names := map[string]string{}
	s.imports(func(p string, spec *ast.ImportSpec) {
		name := path.Base(p)
		if majorVersion.MatchString(name) {
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	})
	return names
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// under says whether p is dir or lies below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func underAny(p string, dirs []string) bool {
	for _, d := range dirs {
		if under(p, d) {
			return true
		}
	}
	return false
}

package tidy

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"regexp"
	"sort"
	"strings"
)

// topFolders are the first elements of the paths that documents may name. A path in backticks that begins with one of
// them must exist. What is designed and not built is named without backticks.
var topFolders = []string{
	"allocator", "api", "bench", "client", "cmd", "docs", "internal", "kv", "linearizability", "meta", "node",
	"raftgroup", "tools", "transport", ".ci",
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	codeSpan = regexp.MustCompile("`([^`]+)`")
	pathLike = regexp.MustCompile(`^[A-Za-z0-9_.*-]+(/[A-Za-z0-9_.*-]+)*/?$`)
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
	fileName = regexp.MustCompile(`\.(go|md|sh|proto|ya?ml|mod|sum|conf)$`)
	symbol   = regexp.MustCompile(`^(.+?/[a-z0-9]+|[a-z]+)\.([A-Za-z]\w*(?:\.\w+)?)$`)
)

// ruleDocs: links lead somewhere, and what is named exists.
func ruleDocs(t *tree, files fs.FS) (found []finding) {
	symbols := t.symbols()
	for p, text := range t.text {
		if !strings.HasSuffix(p, ".md") {
			continue
		}
		prose(text, func(i int, line string) {
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, "code"), -1) {
				if why := t.brokenLink(files, p, m[1]); why != "" {
					found = append(found, finding{where(p, i), why})
				}
			}
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				if why := brokenPath(files, symbols, m[1]); why != "" {
					found = append(found, finding{where(p, i), why})
				}
			}
		})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].where < found[j].where })
	return found
}

// prose calls f with the lines of a document that are not in a fenced block.
func prose(text string, f func(i int, line string)) {
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			f(i, line)
		}
	}
}

func (t *tree) brokenLink(files fs.FS, from, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
		if _, err := fs.Stat(files, to); err != nil {
			return fmt.Sprintf("the link (%s) leads to no file: correct it or take it out", target)
		}
	}
	if anchor != "" && !anchors(t.text[to])[anchor] {
		return fmt.Sprintf("the link (%s) leads to no heading of %s: correct it", target, to)
	}
	return ""
}

// anchors are the fragments of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	set := map[string]bool{}
	prose(text, func(_ int, line string) {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			return
		}
		slug := strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		base := slug
		for n := 1; set[slug]; n++ {
			slug = fmt.Sprintf("%s-%d", base, n)
		}
		set[slug] = true
	})
	return set
}

// brokenPath says what is wrong with a code span that names a file, a folder, or a symbol of a package.
func brokenPath(files fs.FS, symbols map[string]bool, span string) string {
	span = strings.TrimSuffix(span, "()")
	first, rest, _ := strings.Cut(span, "/")
	if m := symbol.FindStringSubmatch(span); m != nil && underAny(m[1], topFolders) && !fileName.MatchString(span) {
		if symbols[m[1]+"."+m[2]] {
			return ""
		}
		return fmt.Sprintf("`%s`: there is no such symbol: name what is there now, or leave the backticks out if it is only designed", span)
	}
	if rest == "" || !contains(topFolders, first) || !pathLike.MatchString(span) {
		return ""
	}
	if matches, _ := fs.Glob(files, strings.TrimSuffix(span, "/")); len(matches) > 0 {
		return ""
	}
	return fmt.Sprintf("`%s` does not exist: name what is there now, or leave the backticks out if it is only designed", span)
}

// symbols are the declared names of every package: dir.Name, and dir.Type.Member for methods and fields.
func (t *tree) symbols() map[string]bool {
	set := map[string]bool{}
	for _, s := range t.source {
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				set[s.dir+"."+receiver(d)+d.Name.Name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					declare(set, s.dir, spec)
				}
			}
		}
	}
	return set
}

// declare enters a type, constant or variable.
func declare(set map[string]bool, dir string, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			set[dir+"."+n.Name] = true
		}
	case *ast.TypeSpec:
		set[dir+"."+spec.Name.Name] = true
		var members *ast.FieldList
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			members = typ.Fields
		case *ast.InterfaceType:
			members = typ.Methods
		default:
			return
		}
		for _, m := range members.List {
			for _, n := range m.Names {
				set[dir+"."+spec.Name.Name+"."+n.Name] = true
			}
		}
	}
}

// receiver is "Type." for a method of Type, and nothing for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	typ := f.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if g, ok := typ.(*ast.IndexExpr); ok {
		typ = g.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

func where(p string, line int) string { return fmt.Sprintf("%s:%d", p, line+1) }

func plural(n int, what string) string { return fmt.Sprintf("%d %ss", n, what) }

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

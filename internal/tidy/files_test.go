package tidy

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strings"
)

// The files that rules speak of by name.
const (
	architecture = "docs/ARCHITECTURE.md"
	dependencies = "docs/dependencies.md"
	limits       = "internal/base/limits.go"
)

var (
	require = regexp.MustCompile(`^(?:require )?\t?([^\s/]+\.[^\s/]+/\S+) v\S+$`) // without "// indirect"
	listed  = regexp.MustCompile("^\\| `([^`]+)` \\|")
	tooled  = regexp.MustCompile(`^(?:tool )?\t?([^\s/]+\.[^\s/]+/\S+)$`)
)

// ruleDependencies: each direct dependency is used and is accounted for.
func ruleDependencies(t *tree) (found []finding) {
	accounted := map[string]int{}
	for i, line := range strings.Split(t.text[dependencies], "\n") {
		if m := listed.FindStringSubmatch(line); m != nil {
			accounted[m[1]] = i
		}
	}
	needed := map[string]bool{}
	for i, line := range strings.Split(t.text["go.mod"], "\n") {
		m := require.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		needed[m[1]] = true
		if _, ok := accounted[m[1]]; !ok {
			found = append(found, finding{where("go.mod", i), m[1] + " has no row in " + dependencies + ": say why it, how it is kept, its licence"})
		}
		if !t.uses(m[1]) {
			found = append(found, finding{where("go.mod", i), m[1] + " is imported nowhere: run go mod tidy, and take its row out of " + dependencies})
		}
	}
	for p, text := range t.text {
		if !under(p, "tools") || path.Base(p) != "go.mod" {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if m := tooled.FindStringSubmatch(line); m != nil {
				needed[m[1]] = true
				if _, ok := accounted[m[1]]; !ok {
					found = append(found, finding{where(p, i), "the tool " + m[1] + " has no row in " + dependencies})
				}
			}
		}
	}
	for module, i := range accounted {
		if !needed[module] {
			found = append(found, finding{where(dependencies, i), module + " is not required any more: take its row out"})
		}
	}
	return found
}

// uses says whether any file of the product imports something of a module.
func (t *tree) uses(module string) (used bool) {
	for _, s := range t.source {
		s.imports(func(p string, _ *ast.ImportSpec) { used = used || under(p, module) })
	}
	return used
}

// ruleGenerated: generated code and written code do not mix.
func ruleGenerated(t *tree) (found []finding) {
	for _, s := range t.source {
		made, pb := strings.CutSuffix(s.path, ".pb.go")
		if !pb {
			made, pb = strings.CutSuffix(s.path, ".pb.gw.go")
		}
		if pb && !s.generated {
			found = append(found, finding{s.path, "has lost its header `Code generated … DO NOT EDIT.`: run make proto"})
		}
		if under(s.dir, "api") && !pb {
			found = append(found, finding{s.path, "api holds .proto files and what is generated from them: put written code elsewhere"})
		}
		if source := strings.TrimSuffix(made, "_grpc") + ".proto"; pb && t.text[source] == "" {
			found = append(found, finding{s.path, "is generated from no .proto file: delete it"})
		}
	}
	return found
}

// ruleLimits: every bound says why it is what it is.
func ruleLimits(t *tree) (found []finding) {
	const minWords = 6 // shorter than this is the name again
	if t.text[limits] == "" {
		return []finding{{limits, "is gone: every bound of the program stands there"}}
	}
	for _, s := range t.source {
		if s.path != limits {
			continue
		}
		for _, d := range s.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok == token.IMPORT {
				continue
			}
			if g.Tok != token.CONST {
				found = append(found, t.at(g.Pos(), "only constants stand here"))
				continue
			}
			doc := "" // one comment may speak for a run of limits, if it names each
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if v.Doc != nil {
					doc = v.Doc.Text()
				}
				for _, n := range v.Names {
					if !strings.Contains(doc, n.Name) || len(strings.Fields(doc)) < minWords {
						found = append(found, t.at(n.Pos(), "%s needs a comment that names it, gives its unit, and says why this much", n.Name))
					}
				}
			}
		}
	}
	return found
}

// ruleLicence: the whole of the licence is there.
func ruleLicence(t *tree) (found []finding) {
	text := t.text["LICENSE"]
	for _, part := range []string{"Apache License", "Version 2.0, January 2004", "9. Accepting Warranty or Additional Liability", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(text, part) {
			return []finding{{"LICENSE", "is not the whole text of the Apache License 2.0: put it back"}}
		}
	}
	return nil
}

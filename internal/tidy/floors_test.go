package tidy

import (
	"go/ast"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// floors is the table of docs/ARCHITECTURE.md, lowest first: a package imports only packages of lower floors, and
// packages below one entry are one whole. The longest entry that a package lies under counts.
var floors = []struct {
	floor    int
	packages []string
	sees     []string // if set: of the lower floors, only these
}{
	{floor: 0, packages: []string{"api"}},
	{floor: 0, packages: []string{"internal/invariants", "internal/mutant", "internal/tidy"}},
	{floor: 0, packages: []string{"internal/base"}},
	{floor: 1, packages: []string{"kv", "raftgroup", "transport", "allocator"}},
	{floor: 2, packages: []string{"meta"}, sees: []string{"kv", "raftgroup", "allocator", "internal", "api"}},
	{floor: 3, packages: []string{"client"}, sees: []string{"internal", "api", "meta/route"}},
	{floor: 3, packages: []string{"linearizability"}, sees: []string{"internal", "api"}},
	{floor: 4, packages: []string{"node"}},
	{floor: 5, packages: []string{"linearizability/sim", "linearizability/jepsen"}},
	{floor: 5, packages: []string{"cairntest"}},
	{floor: 6, packages: []string{"cmd"}},
}

// sameFloor are the imports within a floor that are right: the vocabulary speaks of the generated messages.
var sameFloor = map[string][]string{
	"internal/base": {"api", "internal/invariants"},
	"internal/tidy": {"internal/base"},
}

// raftValues are the packages of Raft that hold values and pure functions.
var raftValues = []string{
	"go.etcd.io/raft/v3/raftpb", "go.etcd.io/raft/v3/confchange", "go.etcd.io/raft/v3/quorum", "go.etcd.io/raft/v3/tracker",
}

// foreign says which packages alone may import a module of others, tests included. The reason is part of the message.
var foreign = []struct {
	imports string   // this import path, and what is below it
	except  []string // but not these
	only    []string
	why     string
}{
	{"github.com/cockroachdb/pebble", nil, []string{"kv/engine"},
		"the disk has one door: use the Engine interface of kv/engine"},
	{"github.com/prometheus", nil, []string{"node/observe"},
		"packages keep plain counters, and node/observe registers them"},
	{"go.opentelemetry.io", nil, []string{"node/observe"},
		"spans are made in node/observe"},
	{"github.com/spf13", nil, []string{"cmd"},
		"flags are read in cmd/cairn and handed on as a Config"},
	{"go.etcd.io/raft/v3", raftValues, []string{"raftgroup"},
		"Raft is stepped by raftgroup alone; others speak of its messages (raftpb) and its mathematics"},
}

// closed packages import the named packages and the standard library, and nothing else.
var closed = map[string][]string{
	"allocator":           {modulePath + "/internal/base", modulePath + "/internal/invariants"},
	"internal/base":       {modulePath + "/api", modulePath + "/internal/invariants"},
	"internal/invariants": {},
	"internal/mutant":     {},
	"internal/tidy":       {modulePath + "/internal/base"},
}

// floorOf finds a package's floor and the entry that it lies under.
func floorOf(dir string) (floor int, entry string, sees []string) {
	floor = -1
	for _, f := range floors {
		for _, p := range f.packages {
			if under(dir, p) && len(p) > len(entry) {
				floor, entry, sees = f.floor, p, f.sees
			}
		}
	}
	return floor, entry, sees
}

// ruleFloors: the table above, for the repository's own packages.
func ruleFloors(t *tree) (found []finding) {
	for _, s := range t.source {
		floor, entry, sees := floorOf(s.dir)
		if floor < 0 {
			found = append(found, t.at(s.ast.Package, "%s is on no floor: give it a row in internal/tidy/floors_test.go and in docs/ARCHITECTURE.md", s.dir))
			continue
		}
		s.imports(func(p string, spec *ast.ImportSpec) {
			dir, ours := strings.CutPrefix(p, modulePath+"/")
			if !ours {
				return
			}
			to, toEntry, _ := floorOf(dir)
			switch {
			case toEntry == entry:
			case to == floor && !underAny(dir, sameFloor[entry]):
				found = append(found, t.at(spec.Pos(), "%s imports %s, which is on its own floor F%d: declare the interface that you need, and let node wire them", s.dir, dir, floor))
			case to > floor:
				found = append(found, t.at(spec.Pos(), "%s (F%d) imports %s (F%d): imports go down only; move the shared part down, or declare an interface here", s.dir, floor, dir, to))
			case to < floor && sees != nil && !underAny(dir, sees):
				found = append(found, t.at(spec.Pos(), "%s imports %s; of the lower floors it sees only %s", s.dir, dir, strings.Join(sees, ", ")))
			}
		})
	}
	return found
}

// floorRow is a row of the table in docs/ARCHITECTURE.md; its packages are separated by commas.
var floorRow = regexp.MustCompile(`^\| F([0-9]) \| ([^|]+) \|`)

// ruleFloorTable: the table that people read is the table that is held.
func ruleFloorTable(t *tree) (found []finding) {
	written := map[string]string{}
	for _, line := range strings.Split(t.text[architecture], "\n") {
		if m := floorRow.FindStringSubmatch(line); m != nil {
			for _, p := range strings.Split(m[2], ",") {
				written[strings.TrimSpace(p)] = m[1]
			}
		}
	}
	for _, f := range floors {
		for _, p := range f.packages {
			if floor := strconv.Itoa(f.floor); written[p] != floor {
				found = append(found, finding{architecture, "the table of floors does not list " + p + " on F" + floor + ": correct it, or internal/tidy/floors_test.go"})
			}
			delete(written, p)
		}
	}
	for p, floor := range written {
		found = append(found, finding{architecture, "the table of floors lists " + p + " on F" + floor + ", and internal/tidy/floors_test.go does not: make them agree"})
	}
	return found
}

// ruleForeign: which packages may import which modules of others.
func ruleForeign(t *tree) (found []finding) {
	for _, s := range t.source {
		s.imports(func(p string, spec *ast.ImportSpec) {
			for _, f := range foreign {
				if under(p, f.imports) && !underAny(p, f.except) && !underAny(s.dir, f.only) {
					found = append(found, t.at(spec.Pos(), "only %s may import %s: %s", strings.Join(f.only, ", "), p, f.why))
				}
			}
			for dir, allowed := range closed {
				thirdParty := strings.Contains(strings.SplitN(p, "/", 2)[0], ".")
				if under(s.dir, dir) && !s.test && thirdParty && !under(p, modulePath+"/"+dir) && !underAny(p, allowed) {
					found = append(found, t.at(spec.Pos(), "%s imports %s: it may use the standard library and %v only", dir, p, allowed))
				}
			}
		})
	}
	return found
}

// bannedNames say nothing about what is in a package.
var bannedNames = []string{"util", "utils", "common", "helper", "helpers", "impl", "misc", "shared", "lib"}

// rulePackages: names, depth and documentation of packages.
func rulePackages(t *tree) (found []finding) {
	documented := map[string]bool{}
	files := map[string]*source{}
	for _, s := range t.source {
		if s.generated || s.test {
			continue
		}
		files[s.dir] = s
		if s.ast.Doc != nil && goodPackageDoc(s) {
			documented[s.dir] = true
		}
	}
	for dir, s := range files {
		name := s.ast.Name.Name
		for _, banned := range bannedNames {
			if name == banned || strings.Contains("/"+dir+"/", "/"+banned+"/") {
				found = append(found, finding{dir, "a package named " + banned + " says nothing: name it after the one idea that it holds"})
			}
		}
		// The conformance suite of an interface stands one below it: kv/engine/enginetest.
		if depth := strings.Count(dir, "/") + 1; depth > 2 && !(depth == 3 && strings.HasSuffix(dir, "test")) {
			found = append(found, finding{dir, "packages are two deep: move it up, or make it a file"})
		}
		if !documented[dir] {
			found = append(found, finding{dir, "no file has a package doc: begin one with `// Package " + name + " ` (or `// Command `) and the one idea that it holds"})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].where < found[j].where })
	return found
}

func goodPackageDoc(s *source) bool {
	want := "Package " + s.ast.Name.Name + " "
	if s.ast.Name.Name == "main" {
		want = "Command "
	}
	return strings.HasPrefix(s.ast.Doc.Text(), want)
}

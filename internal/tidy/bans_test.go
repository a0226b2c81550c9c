package tidy

import (
	"go/ast"
	"go/token"
	"regexp"
	"sort"
	"strings"
)

// core are the packages that are stepped: event in, effects out. A run of them can be replayed from its seed.
var core = []string{"raftgroup", "meta", "allocator", "kv/eval", "kv/keys", "internal/base"}

// coreImports may not be imported by the core. The tests of the core may.
var coreImports = map[string]string{
	"sync":                   "a range is owned by one loop, so the core has no locks",
	"sync/atomic":            "a range is owned by one loop, so the core has nothing to share",
	"math/rand":              "draw from the base.Rand that you were given",
	"math/rand/v2":           "draw from the base.Rand that you were given",
	"crypto/rand":            "draw from the base.Rand that you were given",
	"os":                     "the shell touches the world: return an effect",
	"net":                    "the shell touches the world: return an effect",
	"syscall":                "the shell touches the world: return an effect",
	"golang.org/x/sys":       "the shell touches the world: return an effect",
	"log":                    "the core returns reasons and events, and the shell logs them",
	"context":                "the core never waits, so there is nothing to give up",
	"google.golang.org/grpc": "the core returns typed errors; node/serve has the one table to gRPC's status",
}

// clock are the functions of package time that read a clock or wait for one.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}

// clockAllowed are the files below F4 that may read a clock, wait for one, or draw random numbers, each with its reason.
// They are in the shell's parts of F1 and F3: nothing that a replay would have to repeat.
var clockAllowed = map[string]string{
	"kv/engine/diskfaults.go": "a slow disk, for tests of real processes, makes its caller wait",
	"client/clock.go":         "a session must know how long its lease certainly lives, and keeps it alive in time",
	"client/pause.go":         "the client waits between two tries, with a jitter so that many clients do not do it in step",
	"transport/peer.go":       "a broken stream is opened again after a pause, with a jitter so that nodes do not do it in step",
}

// ruleCore: no goroutine, lock, I/O or random source of its own in the core.
func ruleCore(t *tree) (found []finding) {
	t.written(func(s *source) {
		if !underAny(s.dir, core) || strings.HasSuffix(s.dir, "test") {
			return
		}
		s.imports(func(p string, spec *ast.ImportSpec) {
			for banned, why := range coreImports {
				if under(p, banned) && !longerBan(p, banned) {
					found = append(found, t.at(spec.Pos(), "the core may not import %s: %s", p, why))
				}
			}
		})
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = append(found, t.at(n.Pos(), "the core starts no goroutine: return an effect, and let the shell run it"))
			case *ast.ChanType:
				found = append(found, t.at(n.Pos(), "the core waits for nothing: take an event, return an effect"))
			}
			return true
		})
	})
	return found
}

// longerBan says whether an entry more exact than banned speaks of p: one finding is enough.
func longerBan(p, banned string) bool {
	for other := range coreImports {
		if len(other) > len(banned) && under(p, other) {
			return true
		}
	}
	return false
}

// ruleClock: below F4 nothing reads a clock, except where clockAllowed says so.
func ruleClock(t *tree) (found []finding) {
	t.written(func(s *source) {
		floor, _, _ := floorOf(s.dir)
		if floor >= 4 || clockAllowed[s.path] != "" || strings.HasSuffix(s.dir, "test") {
			return
		}
		found = append(found, t.calls(s, "time", clock, "below F4 time comes in as an argument (base.Instant), and waiting is an effect (Wake)")...)
		for _, random := range []string{"math/rand", "math/rand/v2"} {
			found = append(found, t.calls(s, random, nil, "math/rand's own source cannot be replayed: take a seeded base.Rand")...)
		}
		found = append(found, t.calls(s, "crypto/rand", nil, "make random ids in node and hand them down")...)
	})
	return found
}

// ruleSleep: nobody sleeps, tests included.
func ruleSleep(t *tree) (found []finding) {
	for _, s := range t.source {
		found = append(found, t.calls(s, "time", []string{"Sleep"}, "wait for the event itself: a channel, a condition that is signalled, or a timer in a select")...)
	}
	return found
}

// calls finds uses of the named functions of a package, of any if names is nil. The constructors of math/rand's
// seeded sources are no findings.
func (t *tree) calls(s *source, pkg string, names []string, instead string) (found []finding) {
	imported := s.imported()
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := sel.X.(*ast.Ident)
		if !ok || imported[id.Name] != pkg {
			return true
		}
		if names != nil && !contains(names, sel.Sel.Name) || strings.HasPrefix(pkg, "math/rand") && seeded.MatchString(sel.Sel.Name) {
			return true
		}
		found = append(found, t.at(sel.Pos(), "%s.%s: %s", pkg, sel.Sel.Name, instead))
		return true
	})
	return found
}

var seeded = regexp.MustCompile(`^(New.*|Rand|Source|Source64|PCG|ChaCha8|Zipf)$`)

// ruleInit: nothing happens before main.
func ruleInit(t *tree) (found []finding) {
	t.written(func(s *source) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				found = append(found, t.at(f.Pos(), "no init functions: build it in a constructor"))
			}
		}
	})
	return found
}

// unfinished are the words for work that was left undone. They are put together here so that the rule does not find
// itself.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

// ruleUnfinished: what is missing is finished, or written down as an issue.
func ruleUnfinished(t *tree) (found []finding) {
	for p, text := range t.text {
		for i, line := range strings.Split(text, "\n") {
			if m := unfinished.FindString(line); m != "" {
				found = append(found, finding{where(p, i), m + ": finish it, or open an issue and leave no mark in the code"})
			}
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].where < found[j].where })
	return found
}

// Sizes: what fits on a screen is understood at once; what has one idea is found by its name.
const (
	maxFileLines     = 600
	maxFunctionLines = 70
)

// ruleSize: bounds on files and functions.
func ruleSize(t *tree) (found []finding) {
	t.written(func(s *source) {
		if s.lines > maxFileLines {
			found = append(found, finding{s.path, plural(s.lines, "line") + ", more than " + plural(maxFileLines, "line") + ": cut it by idea, one event, command or rule per file"})
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := t.line(f.Body.Rbrace) - t.line(f.Body.Lbrace) - 1; n > maxFunctionLines {
				found = append(found, t.at(f.Pos(), "%s has %d lines, more than %d: give its steps names and make them functions", f.Name.Name, n, maxFunctionLines))
			}
		}
	})
	return found
}

func (t *tree) line(p token.Pos) int { return t.fset.Position(p).Line }

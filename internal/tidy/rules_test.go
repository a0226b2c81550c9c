package tidy

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRules shows each rule a small tree that breaks it, and one beside it that does not.
func TestRules(t *testing.T) {
	long := "package meta\n\nfunc f() {\n" + strings.Repeat("\tprintln()\n", maxFunctionLines) + "}\n"
	for _, c := range []struct {
		rule  string
		files map[string]string
		want  string // part of the only finding; empty: no finding
	}{
		{"floors", src("kv/eval/a.go", "eval", `import _ "github.com/cairndb/cairn/raftgroup"`), "own floor F1"},
		{"floors", src("kv/eval/a.go", "eval", `import _ "github.com/cairndb/cairn/meta/desc"`), "imports go down only"},
		{"floors", src("meta/desc/a.go", "desc", `import _ "github.com/cairndb/cairn/transport"`), "sees only"},
		{"floors", src("client/a.go", "client", `import _ "github.com/cairndb/cairn/meta/desc"`), "sees only"},
		{"floors", src("elsewhere/a.go", "elsewhere", ""), "is on no floor"},
		{"floors", src("kv/eval/a.go", "eval", `import _ "github.com/cairndb/cairn/kv/keys"`), ""},
		{"floors", src("internal/base/a.go", "base", `import _ "github.com/cairndb/cairn/api/metapb"`), ""},
		{"floors", src("node/a.go", "node", `import _ "github.com/cairndb/cairn/meta/desc"`), ""},
		{"floors", src("linearizability/sim/a.go", "sim", `import _ "github.com/cairndb/cairn/node"`), ""},

		{"floor table", map[string]string{architecture: table("")}, ""},
		{"floor table", map[string]string{architecture: table("| F4 | gone |\n")}, "make them agree"},
		{"floor table", map[string]string{architecture: strings.Replace(table(""), "| F4 | node |", "| F3 | node |", 1)}, "does not list node on F4"},

		{"foreign imports", src("node/store/a.go", "store", `import _ "github.com/cockroachdb/pebble/v2"`), "one door"},
		{"foreign imports", src("kv/engine/a.go", "engine", `import _ "github.com/cockroachdb/pebble/v2/vfs"`), ""},
		{"foreign imports", src("node/store/a.go", "store", `import _ "go.etcd.io/raft/v3"`), "stepped by raftgroup alone"},
		{"foreign imports", src("node/store/a.go", "store", `import _ "go.etcd.io/raft/v3/raftpb"`), ""},
		{"foreign imports", src("node/a.go", "node", `import _ "github.com/spf13/cobra"`), "flags are read"},
		{"foreign imports", src("node/a.go", "node", `import _ "github.com/prometheus/client_golang/prometheus"`), "plain counters"},
		{"foreign imports", src("allocator/a.go", "allocator", `import _ "google.golang.org/protobuf/proto"`), "standard library"},
		{"foreign imports", src("allocator/a.go", "allocator", `import _ "sort"`), ""},

		{"packages", src("node/util/a.go", "util", "// Package util is this."), "says nothing"},
		{"packages", src("node/a/b/a.go", "b", ""), "two deep"},
		{"packages", map[string]string{"node/a/a.go": "package a\n"}, "no file has a package doc"},

		{"core", src("meta/a.go", "meta", `import _ "sync"`), "no locks"},
		{"core", src("raftgroup/a.go", "raftgroup", "func f() { go f() }"), "starts no goroutine"},
		{"core", src("kv/keys/a.go", "keys", "var c chan int"), "waits for nothing"},
		{"core", src("kv/eval/a.go", "eval", `import _ "math/rand/v2"`), "base.Rand"},
		{"core", src("meta/a.go", "meta", `import _ "google.golang.org/grpc/codes"`), "typed errors"},
		{"core", src("node/a.go", "node", "import _ \"sync\"\nfunc f() { go f() }"), ""},

		{"clock", src("transport/a.go", "transport", "import \"time\"\nvar t = time.Now()"), "base.Instant"},
		{"clock", src("transport/a.go", "transport", "import \"time\"\nvar d time.Duration = time.Second"), ""},
		{"clock", src("transport/a.go", "transport", "import \"math/rand/v2\"\nvar r = rand.IntN(3)"), "cannot be replayed"},
		{"clock", src("transport/a.go", "transport", "import \"math/rand/v2\"\nvar r = rand.New(nil)"), ""},
		{"clock", src("node/a.go", "node", "import \"time\"\nvar t = time.Now()"), ""},

		{"sleep", src("node/a_test.go", "node", "import \"time\"\nfunc f() { time.Sleep(1) }"), "wait for the event"},
		{"sleep", src("node/a.go", "node", "import t \"time\"\nfunc f() { t.Sleep(1) }"), "wait for the event"},
		{"init", src("node/a.go", "node", "func init() {}"), "constructor"},
		{"init", src("node/a.go", "node", "type t int\nfunc (t) init() {}"), ""},
		{"unfinished", src("node/a.go", "node", "// TO"+"DO: more"), "open an issue"},
		{"unfinished", map[string]string{"docs/a.md": "FIX" + "ME\n"}, "open an issue"},

		{"size", map[string]string{"meta/a.go": "package meta\n" + strings.Repeat("\n", maxFileLines)}, "cut it by idea"},
		{"size", map[string]string{"meta/a_test.go": "package meta\n" + strings.Repeat("\n", maxFileLines)}, ""},
		{"size", map[string]string{"meta/a.go": long}, ""},
		{"size", map[string]string{"meta/a.go": strings.Replace(long, "println()", "println()\n", 1)}, "give its steps names"},

		{"docs", map[string]string{"docs/a.md": "[b](b.md)\n"}, "leads to no file"},
		{"docs", map[string]string{"docs/a.md": "# One\n[b](#two)\n"}, "leads to no heading"},
		{"docs", map[string]string{"docs/a.md": "# Two words\n[b](#two-words) [c](a.md) [d](https://x.y/z)\n"}, ""},
		{"docs", map[string]string{"docs/a.md": "see `meta/route`\n"}, "does not exist"},
		{"docs", map[string]string{"docs/a.md": "```\nsee `meta/route`\n```\n"}, ""},
		{"docs", doc("`meta/route.Find` `meta/route.T.M` `meta/route/a.go` `meta/*/a.go`"), ""},
		{"docs", doc("`meta/route.Lost`"), "no such symbol"},
		{"docs", doc("`meta/route.T.N()`"), "no such symbol"},

		{"dependencies", mod("", "import _ \"x.y/z/w\""), "has no row"},
		{"dependencies", mod("| `x.y/z` |\n", ""), "imported nowhere"},
		{"dependencies", mod("| `x.y/z` |\n| `x.y/old` |\n", "import _ \"x.y/z\""), "not required any more"},
		{"dependencies", mod("| `x.y/z` |\n", "import _ \"x.y/z\""), ""},

		{"generated", map[string]string{"api/a.pb.go": "package a\n", "api/a.proto": "syntax\n"}, "lost its header"},
		{"generated", map[string]string{"api/a.pb.go": "// Code generated by x. DO NOT EDIT.\n\npackage a\n"}, "no .proto file"},
		{"generated", map[string]string{"api/a.pb.gw.go": "// Code generated by x. DO NOT EDIT.\n\npackage a\n"}, "no .proto file"},
		{"generated", map[string]string{"api/a.pb.gw.go": "// Code generated by x. DO NOT EDIT.\n\npackage a\n", "api/a.proto": "syntax\n"}, ""},
		{"generated", src("api/a.go", "a", ""), "written code elsewhere"},
		{"limits", src(limits, "base", "const A = 1"), "says why this much"},
		{"limits", src(limits, "base", "const (\n// A and B bound a thing, because of a reason.\nA = 1\nB = 2\n)"), ""},
		{"limits", src("node/a.go", "node", ""), "is gone"},
		{"limits", src(limits, "base", "var A = 1"), "only constants"},
		{"licence", map[string]string{"LICENSE": "MIT"}, "put it back"},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.rule, c.want), func(t *testing.T) { checkRule(t, c.rule, c.files, c.want) })
	}
}

func checkRule(t *testing.T, name string, contents map[string]string, want string) {
	files := fstest.MapFS{}
	for p, text := range contents {
		files[p] = &fstest.MapFile{Data: []byte(text)}
	}
	tree, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		if rule.name != name {
			continue
		}
		found := rule.check(tree, files)
		switch {
		case want == "" && len(found) > 0:
			t.Errorf("found what is no breach: %v", found)
		case want != "" && (len(found) != 1 || !strings.Contains(found[0].String(), want)):
			t.Errorf("found %v, want one finding that says %q", found, want)
		}
		return
	}
	t.Fatalf("no rule is named %q", name)
}

// src is a tree of one Go file.
func src(path, pkg, body string) map[string]string {
	return map[string]string{path: fmt.Sprintf("// Package %s is here.\npackage %s\n\n%s\n", pkg, pkg, body)}
}

// table is the table of floors as it should be written, with more rows after it.
func table(more string) string {
	var b strings.Builder
	for _, f := range floors {
		fmt.Fprintf(&b, "| F%d | %s |\n", f.floor, strings.Join(f.packages, ", "))
	}
	return b.String() + more
}

// doc is a tree of a document and a package that it may name.
func doc(text string) map[string]string {
	return map[string]string{
		"docs/a.md":       text,
		"meta/route/a.go": "package route\n\nfunc Find() {}\n\ntype T struct{}\n\nfunc (*T) M() {}\n",
	}
}

// mod is a tree with one dependency.
func mod(rows, imports string) map[string]string {
	return map[string]string{
		"go.mod":     "module m\n\nrequire (\n\tx.y/z v1.0.0\n\tx.y/far v1.0.0 // indirect\n)\n",
		dependencies: rows,
		"node/a.go":  "package node\n\n" + imports + "\n",
	}
}

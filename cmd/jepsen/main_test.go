package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/jepsen"
)

func jepsenRun(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), &o, &e, args)
	return o.String(), e.String(), code
}

// What is wrong with a command line is said, all of it, and nothing is done.
func TestUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"--nodes 1":            {"run", "--nodes", "1"},
		"--clients 2":          {"run", "--clients", "2"},
		"--min-rate":           {"run", "--min-rate", "0"},
		"no nemesis or class":  {"run", "--loopback", "--nemesis", "rain"},
		"--workload rain":      {"run", "--workload", "rain"},
		"-o xml is not known":  {"list", "-o", "xml"},
		"unknown flag":         {"run", "--rain"},
		"requires at least 1":  {"check"},
		"no such file":         {"check", filepath.Join(t.TempDir(), "none")},
		"--for 0s: give a tim": {"run", "--for", "0s"},
	} {
		if _, said, code := jepsenRun(t, args...); code != exitUsage || !strings.Contains(said, want) {
			t.Errorf("%v: exit %d, %q, want %q", args, code, said, want)
		}
	}
}

func TestList(t *testing.T) {
	out, said, code := jepsenRun(t, "list", "-o", "json")
	var l listed
	if err := json.Unmarshal([]byte(out), &l); err != nil || code != exitOK {
		t.Fatalf("exit %d, %v, %s", code, err, said)
	}
	if len(l.Nemeses) != len(jepsen.AllNemeses()) || len(l.Workloads) == 0 {
		t.Errorf("%d nemeses, %d workloads", len(l.Nemeses), len(l.Workloads))
	}
	without := list(map[jepsen.Capability]string{jepsen.Namespaces: "not root"})
	if len(without.Missing) != 1 || without.Missing[0].Why != "not root" {
		t.Errorf("missing: %v", without.Missing)
	}
	text, _, _ := jepsenRun(t, "list")
	for _, n := range l.Nemeses {
		if n.About == "" || n.Class == "" || !strings.Contains(text, n.Name) {
			t.Errorf("%+v", n)
		}
	}
}

// The exit code of check says whether histories are right, wrong, or cannot be told.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	right, wrong := writeHistory(t, filepath.Join(dir, "right"), "a"), writeHistory(t, filepath.Join(dir, "wrong"), "b")
	raw, err := os.ReadFile(right)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, raw[:len(raw)-3], 0o644); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("#!/bin/sh, and so on"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file string
		code int
		says string
	}{{right, exitOK, "passed"}, {wrong, exitFailed, "FAILED"}, {short, exitBroken, "cut short"}, {other, exitBroken, "not a history file"}} {
		out, said, code := jepsenRun(t, "check", c.file)
		if code != c.code || !strings.Contains(out+said, c.says) {
			t.Errorf("%s: exit %d, %s%s", c.file, code, out, said)
		}
	}
	out, _, code := jepsenRun(t, "check", "-o", "json", wrong, right)
	var all []jepsen.Checked
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitFailed || len(all) != 2 || len(all[0].Violations) == 0 {
		t.Errorf("as JSON: exit %d, %v, %s", code, err, out)
	}
}

// writeHistory writes a history of one put of "a" and one read that shows a value.
func writeHistory(t *testing.T, path, shows string) string {
	t.Helper()
	var file bytes.Buffer
	w, err := linearizability.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	h := &linearizability.History{}
	key := []byte("s000/register/r/0.0")
	header := &etcdserverpb.ResponseHeader{Revision: 2}
	note := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	put := h.Invoke(1, 4, &etcdserverpb.PutRequest{Key: key, Value: []byte("a")})
	note(w.Invoke(put))
	h.Return(put, linearizability.OK, &etcdserverpb.PutResponse{Header: header}, "")
	note(w.Return(put))
	get := h.Invoke(1, 4, &etcdserverpb.RangeRequest{Key: key})
	note(w.Invoke(get))
	kv := &mvccpb.KeyValue{Key: key, Value: []byte(shows), CreateRevision: 2, ModRevision: 2, Version: 1}
	h.Return(get, linearizability.OK, &etcdserverpb.RangeResponse{Header: header, Kvs: []*mvccpb.KeyValue{kv}, Count: 1}, "")
	note(w.Return(get))
	note(w.End())
	if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

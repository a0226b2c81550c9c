package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused starts a node that must end by itself, with a failure and a message that holds each of the words.
func refused(t *testing.T, p *proc, words ...string) {
	t.Helper()
	p.start()
	if code := p.wait(60 * time.Second); code == 0 {
		t.Errorf("exit code 0, want a failure; log:\n%s", p.log)
	}
	for _, w := range words {
		if !strings.Contains(p.log.String(), w) {
			t.Errorf("the message does not say %q:\n%s", w, p.log)
		}
	}
	if strings.Contains(p.log.String(), "goroutine ") || strings.Contains(p.log.String(), "panic") {
		t.Errorf("a panic:\n%s", p.log)
	}
}

func TestBadFlags(t *testing.T) {
	for _, tc := range []struct {
		args []string
		word string
	}{
		{[]string{"start", "--no-such-flag"}, "unknown flag"},
		{[]string{"start"}, "--store"},
		{[]string{"start", "--store", t.TempDir(), "--listen", "nonsense"}, "--listen"},
		{[]string{"start", "--store", t.TempDir(), "--listen", "127.0.0.1:99999"}, "--listen"},
		{[]string{"start", "--store", t.TempDir(), "--listen", "0.0.0.0:23791"}, "dvertise"},
		{[]string{"start", "--store", t.TempDir(), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1", "--join", "bad address"}, "join"},
		{[]string{"start", "--store", t.TempDir(), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1", "--locality", "novalue"}, "locality"},
		{[]string{"start", "--store", t.TempDir(), "--quota-backend-bytes", "1000"}, "--quota-backend-bytes"},
		{[]string{"start", "--store", t.TempDir(), "--auto-compaction-mode", "sometimes", "--auto-compaction-retention", "1"}, "sometimes"},
		{[]string{"start", "--store", t.TempDir(), "--auto-compaction-retention", "soon"}, "--auto-compaction-retention"},
		{[]string{"status", "--host", "127.0.0.1:1"}, "127.0.0.1:1"},
		{[]string{"status", "-o", "yaml"}, "yaml"},
		{[]string{"nonsense"}, "nonsense"},
	} {
		t.Run(strings.Join(tc.args[:min(2, len(tc.args))], " ")+" "+tc.word, func(t *testing.T) {
			_, err := run(20*time.Second, tc.args...)
			if err == nil {
				t.Fatal("no failure")
			}
			if !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%v\ndoes not say %q", err, tc.word)
			}
		})
	}
}

func TestAddressInUse(t *testing.T) {
	c := startCluster(t, 1)
	refused(t, newProc(t, "second", c.procs[0].addr), "--listen", "in use")
}

func TestStoreInUse(t *testing.T) {
	c := startCluster(t, 1)
	p := newProc(t, "second", freeAddrs(t, 1)[0])
	p.args[2] = c.procs[0].store
	refused(t, p, "in use")
}

func TestStoreOfAnotherCluster(t *testing.T) {
	a, b := startCluster(t, 1), startCluster(t, 1)
	a.procs[0].kill()
	p := newProc(t, "stranger", a.procs[0].addr, "--join", b.procs[0].addr)
	p.args[2] = a.procs[0].store
	refused(t, p, "cluster")
}

func TestJoinOnlyItself(t *testing.T) {
	addr := freeAddrs(t, 1)[0]
	refused(t, newProc(t, "alone", addr, "--join", addr), "itself", "cairn init")
}

func TestTwoNodesOneAdvertisedAddress(t *testing.T) {
	c := startCluster(t, 1)
	free := freeAddrs(t, 2)
	first := newProc(t, "first", free[0], "--join", c.procs[0].addr)
	first.start()
	c.procs = append(c.procs, first)
	c.eventually(30*time.Second, func() error {
		s, err := c.status(c.procs[0])
		if err == nil && len(s.Nodes) != 2 {
			err = fmt.Errorf("%d nodes", len(s.Nodes))
		}
		return err
	})
	second := newProc(t, "second", free[1], "--join", c.procs[0].addr)
	for i, a := range second.args {
		if a == "--advertise" {
			second.args[i+1] = free[0]
		}
	}
	refused(t, second, "in use", free[0])
}

func TestCorruptStore(t *testing.T) {
	c := startCluster(t, 1)
	p := c.procs[0]
	p.kill()
	names, err := filepath.Glob(filepath.Join(p.store, "MANIFEST*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no manifest: %v", err)
	}
	for _, name := range names {
		if err := os.WriteFile(name, []byte("this is no manifest, and long enough to be read as one"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, p, p.store)
}

// An operator starts nodes that wait, and makes the cluster by hand.
func TestInitByHand(t *testing.T) {
	addrs := freeAddrs(t, 3)
	c := &cluster{t: t}
	for i, a := range addrs {
		p := newProc(t, fmt.Sprintf("node%d", i+1), a, "--join", strings.Join(addrs, ","))
		p.start()
		c.procs = append(c.procs, p)
	}
	c.eventually(20*time.Second, func() error {
		_, err := run(10*time.Second, "init", "--host", addrs[0])
		return err
	})
	c.waitReplicated(3)
	if _, err := run(10*time.Second, "init", "--host", addrs[1]); err == nil {
		t.Error("a second init of the same cluster succeeded")
	}
}

package jepsen

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

func newRand() *base.Rand { return base.NewRand(11) }

// newProcess is a node whose process is a shell.
func newProcess(t *testing.T, script string) *Node {
	t.Helper()
	n := &Node{Name: "node1", Log: filepath.Join(t.TempDir(), "log"), binary: "bash", args: []string{"-c", script}}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = (&Cluster{Nodes: []*Node{n}}).Close() })
	return n
}

// A process that is killed is no finding; one that ends by itself is, with what it said last; so is a panic in a log.
func TestNodeFindings(t *testing.T) {
	n := newProcess(t, "exec sleep 60")
	c := &Cluster{Nodes: []*Node{n}}
	if err := c.Pause(0); err != nil || !n.Running() {
		t.Fatalf("paused: %v, running %v", err, n.Running())
	}
	if err := c.Kill(0); err != nil || n.Running() {
		t.Fatalf("killed while paused: %v, running %v", err, n.Running())
	}
	if err := c.Resume(0); err != nil { // of a heal that comes late
		t.Error(err)
	}
	if got := c.Findings(); len(got) != 0 {
		t.Errorf("a node that was killed: %v", got)
	}
	if err := c.Restart(t.Context(), 0); err != nil || !n.Running() {
		t.Errorf("started again: %v, running %v", err, n.Running())
	}

	n = newProcess(t, "echo the disk is gone; exit 7")
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	got := (&Cluster{Nodes: []*Node{n}}).Findings()
	if len(got) != 1 || !strings.Contains(got[0].Error(), "exit status 7") || !strings.Contains(got[0].Error(), "the disk is gone") {
		t.Errorf("a node that ended by itself: %v", got)
	}
}

func TestAlarms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	lines := "level=INFO msg=fine\npanic: runtime error: index out of range\n\ngoroutine 1 [running]:\n"
	if err := os.WriteFile(path, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := alarms("node1", path); len(got) != 1 || !strings.Contains(got[0].Error(), "index out of range") {
		t.Errorf("a panic: %v", got)
	}
	if got := alarms("node1", path+"x"); len(got) != 0 {
		t.Errorf("a node that was never started: %v", got)
	}
}

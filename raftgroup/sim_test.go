package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

const testRange base.RangeID = 7

func threeNodes(seed uint64) *world { return threeNodesWith(seed, nil) }

func threeNodesWith(seed uint64, config func(*Config)) *world {
	w := newWorld(seed)
	w.config = config
	for id := range base.NodeID(3) {
		w.addNode(id + 1)
	}
	w.place(descriptor(testRange, 1, 2, 3))
	for _, n := range w.sorted() {
		w.start(n)
	}
	return w
}

func TestElectAndPropose(t *testing.T) {
	w := threeNodes(1)
	w.run(5 * time.Second)
	l := w.leader(testRange)
	if l == nil {
		t.Fatalf("no leader\n%s", w.trace.String())
	}
	for i := range 10 {
		w.propose(l, testRange, fmt.Sprint("c", i), nil)
	}
	w.run(time.Second)
	for _, n := range w.sorted() {
		if got := n.disk.written[testRange].commands; len(got) != 10 {
			t.Errorf("n%d applied %v", n.id, got)
		}
	}
	l.ev.Reads = append(l.ev.Reads, Read{testRange, 1})
	f := w.nodes[l.id%3+1]
	f.ev.Reads = append(f.ev.Reads, Read{testRange, 2})
	w.run(100 * time.Millisecond)
	if !slices.Contains(l.outcomes, "read 1: ready") || !slices.Contains(f.outcomes, "read 2: ready") {
		t.Errorf("reads: leader %v, follower %v", l.outcomes, f.outcomes)
	}
}

// chaos runs a cluster with loss, delay, reordering and crashes under proposals, heals it, and checks it.
func chaos(t *testing.T, seed uint64) string {
	t.Helper()
	w := threeNodes(seed)
	r := base.NewRand(seed)
	w.config = func(c *Config) { c.LogKeepEntries, c.LogKeepBytes = 20, 1<<20 }
	acked := map[string]bool{}
	sent := map[uint64]string{}
	leaders := map[uint64]base.NodeID{} // of terms
	for range 3000 {
		w.now = w.now.Add(time.Duration(r.Int63n(int64(30 * time.Millisecond))))
		n := w.sorted()[r.Int63n(3)]
		switch x := r.Int63n(1000); {
		case x < 4 && !n.stopped:
			w.crash(n)
		case n.stopped && x < []int64{60, 10, 3}[seed%3]: // in some runs a node is away for long
			w.start(n)
		case n.stopped:
		case x < 500:
			w.chaosWire(r)
		case x < 600:
			sent[w.propose(n, testRange, fmt.Sprintf("%d", w.seq+1), nil)] = fmt.Sprint(w.seq)
		case x < 650:
			n.holdSync = !n.holdSync
		case x < 700:
			n.holdApply = !n.holdApply
		}
		if n.stopped {
			continue
		}
		if !n.holdSync {
			w.sync(n)
		}
		if !n.holdApply {
			w.apply(n)
		}
		w.sendSnapshots(n)
		if !empty(&n.ev) || n.wake <= w.now {
			w.step(n)
		}
		if c := n.lastChange[testRange]; c.Role == Leader {
			if old, ok := leaders[c.Term]; ok && old != n.id {
				t.Fatalf("seed %d: two leaders at term %d", seed, c.Term)
			}
			leaders[c.Term] = n.id
		}
	}
	for _, n := range w.sorted() {
		n.holdSync, n.holdApply = false, false
		if n.stopped {
			w.start(n)
		} else {
			w.sync(n)
			w.apply(n)
		}
	}
	w.run(10 * time.Second)
	l := w.leader(testRange)
	if l == nil {
		t.Fatalf("seed %d: no leader after the heal", seed)
	}
	final := w.propose(l, testRange, "final", nil)
	w.run(5 * time.Second)
	if !slices.Contains(l.outcomes, fmt.Sprintf("proposal %d: applied", final)) {
		t.Fatalf("seed %d: a proposal is not applied after the heal: %v", seed, l.outcomes[max(0, len(l.outcomes)-3):])
	}
	for _, n := range w.sorted() {
		for seq, cmd := range sent {
			if slices.Contains(n.outcomes, fmt.Sprintf("proposal %d: applied", seq)) {
				acked[cmd] = true
			}
			// What failed for certain was not applied.
			for _, o := range n.outcomes {
				if o == fmt.Sprintf("proposal %d: %s", seq, (&base.NotLeader{Range: testRange}).Error()) &&
					slices.Contains(l.disk.written[testRange].commands, cmd) {
					t.Fatalf("seed %d: proposal %d was refused and applied", seed, seq)
				}
			}
		}
		if !slices.Equal(n.disk.written[testRange].commands, l.disk.written[testRange].commands) {
			t.Fatalf("seed %d: n%d and n%d applied different commands", seed, n.id, l.id)
		}
	}
	for cmd := range acked {
		if !slices.Contains(l.disk.written[testRange].commands, cmd) {
			t.Fatalf("seed %d: command %s was acknowledged and is lost", seed, cmd)
		}
	}
	return w.trace.String()
}

// chaosWire loses, doubles or delivers some message that is under way, in no order.
func (w *world) chaosWire(r *base.Rand) {
	for range 8 {
		if len(w.wire) == 0 {
			return
		}
		i := int(r.Int63n(int64(min(len(w.wire), 6))))
		m := w.wire[i]
		switch x := r.Int63n(100); {
		case x < 8: // lost
			w.wire = slices.Delete(w.wire, i, i+1)
			continue
		case x < 12: // stays under way, and arrives twice
		default:
			w.wire = slices.Delete(w.wire, i, i+1)
		}
		if to := w.nodes[m.ToNode]; to != nil && !to.stopped {
			to.ev.Messages = append(to.ev.Messages, copyMessage(m))
			if !empty(&to.ev) {
				w.step(to)
			}
		}
	}
}

func TestChaos(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 30
	}
	happened := map[string]int{"installs the snapshot": 0, "drops its log up to": 0, "crashes": 0, "failed:": 0, "is leader": 0}
	for seed := range seeds {
		trace := chaos(t, seed+1)
		for what := range happened {
			happened[what] += strings.Count(trace, what)
		}
	}
	for what, n := range happened {
		if n == 0 {
			t.Errorf("in %d runs it never happened that: %s", seeds, what)
		}
	}
	t.Log(happened)
}

// The same seed gives the same trace, byte for byte; raft's own random numbers play no part. Pinned to the version of
// raft in go.mod: an upgrade that breaks it is seen here.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := range uint64(5) {
		if a, b := chaos(t, seed+1), chaos(t, seed+1); a != b {
			t.Fatalf("seed %d: two runs differ", seed+1)
		}
	}
}

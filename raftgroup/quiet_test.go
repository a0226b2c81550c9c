package raftgroup

import (
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// What a range that is used now and then does without, and how soon it makes good what was lost. In all of them n1 to n3 support each
// other, and one of them leads under a lease.

// A put is an entry, an answer and the word that it is committed for each follower, and no heartbeat, as long as the next put comes
// within two ticks. Each replica writes once.
func TestRuleARangeInUseSendsNoHeartbeats(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	w.propose(l, leaseRange, "first", nil)
	w.run(base.TickInterval)
	w.trace.Reset()
	for range 20 {
		w.propose(l, leaseRange, "x", nil)
		w.run(3 * base.TickInterval / 2)
	}
	trace := w.trace.String()
	if n := strings.Count(trace, "MsgHeartbeat"); n != 0 {
		t.Errorf("%d heartbeats or answers:\n%s", n, trace)
	}
	for what, want := range map[string]int{"MsgAppResp": 40, "MsgApp ": 80, "appends": 60} {
		if n := strings.Count(trace, what); n != want {
			t.Errorf("%q %d times for 20 puts, want %d:\n%s", what, n, want, trace)
		}
	}
	w.mustLead(t, l)
}

// A word that was lost on its way is said again: the entry and the answer to it within two ticks, since the follower is seen to be
// behind; that it is committed before the range rests.
func TestRuleWhatIsLostIsSaidAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		lost   func(*raftpb.Message) bool
		within time.Duration
	}{
		{"entry", func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgApp && len(m.GetEntries()) > 0 }, 2 * base.TickInterval},
		{"answer", func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgAppResp }, 2 * base.TickInterval},
		{"commit", func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgApp && len(m.GetEntries()) == 0 }, restAfter * base.TickInterval},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newLeaseWorld(t, nil)
			l := w.leader(leaseRange)
			f := w.others(l)[0]
			w.run(7 * base.TickInterval / 2) // it rests
			w.trace.Reset()
			w.propose(l, leaseRange, "x", nil)
			lost := 0
			for w.settle() {
				for i := 0; i < len(w.wire); i++ {
					if m := &w.wire[i]; (m.ToNode == f.id || m.FromNode == f.id) && m.Raft != nil && c.lost(m.Raft) {
						w.wire = append(w.wire[:i], w.wire[i+1:]...)
						lost++
						i--
					}
				}
			}
			w.run(c.within)
			at, _ := f.loop.Status(leaseRange)
			of, _ := l.loop.Status(leaseRange)
			if lost == 0 || of.Applied != of.Last || at.Applied != of.Last {
				t.Errorf("%d lost; n%d has applied %d, the leader has %d:\n%s", lost, f.id, at.Applied, of.Last, w.trace.String())
			}
			for _, p := range of.Progress {
				if p.Match != of.Last {
					t.Errorf("replica %d is at %d of %d:\n%s", p.Replica, p.Match, of.Last, w.trace.String())
				}
			}
			w.run(5 * base.TickInterval)
			if st, _ := l.loop.Status(leaseRange); !st.Resting {
				t.Errorf("it does not rest:\n%s", w.trace.String())
			}
		})
	}
}

// Where a follower lags, a leader that is used without a pause does not forget it.
func TestRuleAFollowerThatLagsIsCaredFor(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	f := w.others(l)[0]
	cut := [2]base.NodeID{l.id, f.id}
	w.cut[cut] = true
	for range 10 {
		w.propose(l, leaseRange, "x", nil)
		w.run(base.TickInterval)
	}
	delete(w.cut, cut)
	w.run(2 * base.TickInterval)
	if at, of := status(t, f), status(t, l); at.Applied != of.Last {
		t.Errorf("n%d has applied %d of %d:\n%s", f.id, at.Applied, of.Last, w.trace.String())
	}
}

func status(t *testing.T, n *testNode) Status {
	t.Helper()
	st, ok := n.loop.Status(leaseRange)
	if !ok {
		t.Fatalf("n%d has no replica", n.id)
	}
	return st
}

// Where a log is committed is not written for its own sake: a term and a vote are, each once. A replica that starts again is committed up to
// what it has applied at least, and learns the rest.
func TestRuleACommitAloneIsNotWritten(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	before := map[base.NodeID]string{}
	for _, n := range w.sorted() {
		before[n.id] = n.disk.written[leaseRange].hard.String()
	}
	for range 5 {
		w.propose(l, leaseRange, "x", nil)
		w.run(base.TickInterval)
	}
	last := status(t, l).Last
	for _, n := range w.sorted() {
		if hard := n.disk.written[leaseRange].hard; hard.String() != before[n.id] || hard.GetTerm() != status(t, l).Term || hard.GetCommit() >= last {
			t.Errorf("n%d: %v on disk, was %s, and its log is committed up to %d", n.id, hard, before[n.id], last)
		}
	}
	f := w.others(l)[0]
	w.crash(f)
	w.start(f)
	w.run(0)
	if st := status(t, f); st.Commit != st.Applied {
		t.Errorf("n%d starts with %d committed and %d applied", f.id, st.Commit, st.Applied)
	}
	w.propose(l, leaseRange, "y", nil)
	w.run(2 * base.TickInterval)
	if at, of := status(t, f), status(t, l); at.Applied != of.Last {
		t.Errorf("n%d has applied %d of %d:\n%s", f.id, at.Applied, of.Last, w.trace.String())
	}
}

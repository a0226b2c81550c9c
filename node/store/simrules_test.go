package store

import (
	"errors"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
)

// The rules that hold at every moment of every run on the ordered map, which says what a crash now would leave.

// checkSent: what an answer speaks of is on disk. A vote that was given, entries that were taken, the term in which, and
// the replica that says so.
func (n *simNode) checkSent(frame []byte, to base.NodeID) {
	t := n.c.t
	ms, err := decodeRaftFrame(frame, n.id, to)
	must(t, err)
	var left *logStore // what a crash would leave, made when it is needed
	for i := range ms {
		m := ms[i].Raft
		if m == nil || m.GetReject() || m.GetType() != raftpb.MsgAppResp && m.GetType() != raftpb.MsgVoteResp {
			continue
		}
		if left == nil {
			left = &logStore{eng: n.disk.(*memDisk).eng.Crash(0), cache: n.s.cache}
		}
		l, err := left.Load(ms[i].Range)
		must(t, err)
		switch {
		case l.ReplicaID != ms[i].FromReplica:
			t.Fatalf("%s sent %s as replica %d; on disk it is %d", n.id, m.GetType(), ms[i].FromReplica, l.ReplicaID)
		case l.HardState.GetTerm() < m.GetTerm():
			t.Fatalf("%s sent %s of term %d; on disk is term %d", n.id, m.GetType(), m.GetTerm(), l.HardState.GetTerm())
		case m.GetType() == raftpb.MsgVoteResp && l.HardState.GetTerm() == m.GetTerm() && l.HardState.GetVote() != m.GetTo():
			t.Fatalf("%s voted for %d at term %d; on disk is %v", n.id, m.GetTo(), m.GetTerm(), l.HardState)
		case m.GetType() == raftpb.MsgAppResp && l.LastIndex < m.GetIndex() && l.Applied < m.GetIndex():
			t.Fatalf("%s took entries of %s to %d; on disk is %d", n.id, ms[i].Range, m.GetIndex(), l.LastIndex)
		}
		n.c.checked++
	}
}

// checkImages: whatever prefix of the unsynced batches a crash leaves, the state is that of the applied index, the log
// begins at or before it, ends at or behind it and has no gap.
func (n *simNode) checkImages() {
	mem := n.disk.(*memDisk).eng
	for k := range mem.Unsynced() + 1 {
		img := mem.Crash(k)
		for _, id := range n.c.ranges {
			n.checkImage(img, id)
		}
	}
}

func (n *simNode) checkImage(img engine.Engine, id base.RangeID) {
	t := n.c.t
	l, err := (&logStore{eng: img, cache: n.s.cache}).Load(id)
	must(t, err)
	if l.ReplicaID == 0 {
		if _, err := img.Get(keys.RangeDescriptor(id)); !errors.Is(err, engine.ErrNotFound) {
			t.Fatalf("%s: %s has a state and no replica id: %v", n.id, id, err)
		}
		return
	}
	v, err := apply.ReadView(img, id)
	if l.Descriptor == nil {
		return // it waits for its first snapshot
	}
	must(t, err)
	if l.Truncated.Index > l.Applied || l.Applied > l.LastIndex {
		t.Fatalf("%s: after a crash the log of %s is (%d, %d] and %d is applied", n.id, id, l.Truncated.Index, l.LastIndex, l.Applied)
	}
	sum, err := apply.Checksum(img, &v)
	must(t, err)
	if want, ok := n.c.sums[appliedAt{id, v.AppliedIndex}]; ok && want != sum {
		t.Fatalf("%s: after a crash %s is at %d and does not hold what was applied to there", n.id, id, v.AppliedIndex)
	} else if ok {
		n.c.compared++
	}
	term := l.Truncated.Term
	for i := l.Truncated.Index + 1; i <= l.LastIndex; i++ {
		now, err := (&logStore{eng: img}).Term(id, i)
		must(t, err)
		if now < term || now > l.HardState.GetTerm() {
			t.Fatalf("%s: entry %d of %s has term %d after %d, and the term is %d", n.id, i, id, now, term, l.HardState.GetTerm())
		}
		term = now
	}
}

package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
)

// received steps a snapshot whose data is here. Raft may not want it; then its data is dropped.
func (l *Loop) received(r *ReceivedSnapshot) {
	m := &r.Message
	g := l.resolve(l.group(m.Range), m)
	if g == nil || g.staged != nil || m.Raft.GetType() != raftpb.MsgSnap {
		l.eff.DropStaged = append(l.eff.DropStaged, r.Token)
		return
	}
	l.hear(g, m)
	g.staged = r
	_ = g.rn.Step(m.Raft)
	l.touch(g)
}

// emitInstall makes the Append that installs the staged snapshot. It replaces all unreplicated state of the replica, so
// that a HardState and the ReplicaID are always in it. It returns the HardState that is still to be written, with the
// entries behind the snapshot: what commits them must not be durable before they are.
func (l *Loop) emitInstall(g *group, snap *raftpb.Snapshot, hard *raftpb.HardState) (rest *raftpb.HardState) {
	meta := snap.GetMetadata()
	invariants.Check(g.staged != nil && g.staged.Message.Raft.GetSnapshot().GetMetadata().GetIndex() == meta.GetIndex(),
		"%s: raft installs a snapshot at %d that was not received", g.id, meta.GetIndex())
	if hard == nil {
		hard = g.log.hard
	}
	if hard.GetCommit() > meta.GetIndex() {
		rest = hard
		hard = &raftpb.HardState{Term: hard.Term, Vote: hard.Vote, Commit: new(meta.GetIndex())}
	}
	l.eff.Appends = append(l.eff.Appends, Append{
		Range: g.id, ReplicaID: g.replica, Snapshot: meta, Token: g.staged.Token, HardState: hard,
	})
	g.unwritten, g.staged = false, nil
	g.log.reset(meta)
	l.eff.Failed = g.proposals.end(errReplaced, l.eff.Failed)
	return rest
}

// emitSnapshot has the range's state sent, once at a time to each replica: a leader that lost its place and won it again
// does not remember what is under way.
func (l *Loop) emitSnapshot(g *group, m Message) {
	if m.ToNode == 0 {
		g.rn.ReportSnapshot(uint64(m.ToReplica), raft.SnapshotFailure)
		return
	}
	if slices.Contains(g.sending, m.ToReplica) {
		return // the end of the one under way is reported for both
	}
	g.sending = append(g.sending, m.ToReplica)
	l.eff.SendSnapshot = append(l.eff.SendSnapshot, SendSnapshot{m})
}

// snapshotSent tells Raft how a SendSnapshot ended.
func (l *Loop) snapshotSent(g *group, s *SnapshotSent) {
	g.sending = slices.DeleteFunc(g.sending, func(id base.ReplicaID) bool { return id == s.To })
	status := raft.SnapshotFailure
	if s.OK {
		status = raft.SnapshotFinish
	}
	g.rn.ReportSnapshot(uint64(s.To), status)
}

// dropStaged drops the data of a snapshot that Raft did not take.
func (l *Loop) dropStaged(g *group) {
	if g.staged != nil {
		l.eff.DropStaged = append(l.eff.DropStaged, g.staged.Token)
		g.staged = nil
	}
}

// truncate drops what the log keeps too much of. Each replica does so on its own. A leader keeps, within four times the
// bound, what followers that are in touch still need; one that lags further gets a snapshot.
func (l *Loop) truncate(g *group) {
	if g.destroyed {
		return
	}
	to := g.log.dropTo(l.cfg.LogKeepEntries, l.cfg.LogKeepBytes)
	if to == 0 {
		return
	}
	if g.role == raft.StateLeader {
		floor := g.log.dropTo(4*l.cfg.LogKeepEntries, 4*l.cfg.LogKeepBytes)
		g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
			if base.ReplicaID(id) == g.replica || !l.inTouch(g, base.ReplicaID(id)) {
				return
			}
			has := p.Match
			if p.State == tracker.StateSnapshot {
				has = max(has, p.PendingSnapshot)
			}
			to = min(to, has)
		})
		to = max(to, floor)
	}
	if to <= g.log.truncated.Index {
		return
	}
	ts := g.log.truncate(to)
	l.eff.Appends = append(l.eff.Appends, Append{Range: g.id, Truncate: &ts})
}

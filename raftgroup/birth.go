package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// A range that is cut off another comes to life on each node when that node applies the split, which some do later than
// others. This file is what a loop does between the first word of such a range and its birth here: it keeps a candidate's
// question, and takes an empty group, made for a leader that spoke before, out for one of what the store holds now.

// question is a candidate's question about a range that is not here.
type question struct {
	m  Message
	at base.Instant
}

// keepEarly keeps the last question of a candidate about a range of which nothing is here: the split that makes it may be
// on its way, and the candidate would ask again only after a time-out.
func (l *Loop) keepEarly(m *Message) {
	if t := m.Raft.GetType(); t != raftpb.MsgPreVote && t != raftpb.MsgVote {
		return
	}
	if _, known := l.unanswered[m.Range]; !known && len(l.unanswered) >= base.EarlyVotes {
		for id, e := range l.unanswered {
			if l.now.Sub(e.at) >= heldBack {
				delete(l.unanswered, id)
			}
		}
		if len(l.unanswered) >= base.EarlyVotes {
			return
		}
	}
	l.unanswered[m.Range] = question{*m, l.now}
}

// born brings a replica into the loop that the store holds since a moment ago. The one that leads the range that it was cut
// off stands at once; the others give it the time of an election.
func (l *Loop) born(a *Admin) {
	g := l.group(a.Range)
	switch {
	case g == nil:
		g = l.load(a.Range)
	case g.log.desc == nil:
		g = l.reborn(g)
	}
	if g == nil || g.leading || g.log.desc == nil {
		return
	}
	if !g.fort.live {
		l.restartElection(g)
	}
	if e, ok := l.unanswered[a.Range]; ok {
		delete(l.unanswered, a.Range)
		if l.now.Sub(e.at) < heldBack {
			l.receive(&e.m)
		}
	}
	if a.Campaign && g.lead == 0 {
		l.stand(g)
	}
	l.touch(g)
}

// reborn takes an empty group out for one of what the store holds now. What the empty one said rests on what is on disk or on
// its way there, which the new one goes on from; what it promised and heard is taken over.
func (l *Loop) reborn(old *group) *group {
	ld := l.mustLoad(old.id)
	if ld.Descriptor == nil || ld.ReplicaID != old.replica {
		return old // another replica of the range is here now
	}
	old.destroyed = true
	l.stood(old)
	l.timers.set(old, base.Never)
	l.retime(old)
	delete(l.groups, old.id)
	l.eff.Failed = old.proposals.end(old.notLeader(), l.eff.Failed)
	l.endReads(old, func(*round) bool { return true }, true)
	l.dropStaged(old)
	l.endLatches(old, old.notLeader())
	g := l.add(old.id, old.replica, &ld)
	g.batch, g.bornHere = old.batch, old.bornHere
	g.nodes, g.spoke = old.nodes, old.spoke
	g.lastHeard, g.votedAt = old.lastHeard, old.votedAt
	g.heldBack, g.heldAt, g.fort = old.heldBack, old.heldAt, old.fort
	if g.fort.live {
		g.electAt = base.Never
		l.coolLater(g)
		l.retime(g)
	}
	return g
}

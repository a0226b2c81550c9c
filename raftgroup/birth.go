package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// A range that is cut off another comes to life on each node when that node applies the split, which some do later than
// others. This file is what a loop does between the first word of such a range and its birth here: it keeps a candidate's
// question, and takes an empty group, made for a leader that spoke before, out for one of what the store holds now.
//
// Some nodes never apply it: they are brought over it by a snapshot of the range that was cut. If so many are that the others are
// no quorum, nobody could lead the new range, and it is its leader that would send its snapshots. So a node that is asked for a vote
// again and again in a range that it does not have makes an empty replica, which votes: it has acknowledged nothing, so that what
// any quorum has acknowledged is known to some other voter of each quorum that it is in.

// question is a candidate's question about a range that is not here.
type question struct {
	m     Message
	at    base.Instant
	since base.Instant // when the first came of those that were never long apart
}

// patient is how long a candidate must have asked before its question is no longer taken for one that comes a little early, in
// elections' time-outs; apart, how far apart its questions may be.
const (
	patient = 3
	apart   = 5
)

// keepEarly keeps the last question of a candidate about a range of which nothing is here: the split that makes it may be
// on its way, and the candidate would ask again only after a time-out. It says whether that has gone on for so long that no split
// will come.
func (l *Loop) keepEarly(m *Message) (late bool) {
	if t := m.Raft.GetType(); t != raftpb.MsgPreVote && t != raftpb.MsgVote {
		return false
	}
	since := l.now
	if e, known := l.unanswered[m.Range]; known && l.now.Sub(e.at) < apart*l.cfg.electionTimeout() {
		since = e.since
	}
	if _, known := l.unanswered[m.Range]; !known && len(l.unanswered) >= base.EarlyVotes {
		for id, e := range l.unanswered {
			if l.now.Sub(e.at) >= heldBack {
				delete(l.unanswered, id)
			}
		}
		if len(l.unanswered) >= base.EarlyVotes {
			return false
		}
	}
	if l.now.Sub(since) >= patient*l.cfg.electionTimeout() {
		delete(l.unanswered, m.Range)
		return true
	}
	l.unanswered[m.Range] = question{*m, l.now, since}
	return false
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

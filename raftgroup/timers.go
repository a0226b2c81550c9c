package raftgroup

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// timers is a heap of the groups that have a deadline, the earliest first; equal deadlines by range, so that a run
// repeats. A group without one is in no list.
type timers struct{ groups []*group }

// Len implements heap.Interface.
func (t *timers) Len() int { return len(t.groups) }

// Less implements heap.Interface.
func (t *timers) Less(i, j int) bool {
	a, b := t.groups[i], t.groups[j]
	if a.deadline != b.deadline {
		return a.deadline < b.deadline
	}
	return a.id < b.id
}

// Swap implements heap.Interface.
func (t *timers) Swap(i, j int) {
	t.groups[i], t.groups[j] = t.groups[j], t.groups[i]
	t.groups[i].timer, t.groups[j].timer = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	g := x.(*group)
	g.timer = len(t.groups)
	t.groups = append(t.groups, g)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	n := len(t.groups) - 1
	g := t.groups[n]
	t.groups[n] = nil
	t.groups = t.groups[:n]
	g.timer = -1
	return g
}

func (t *timers) next() base.Instant {
	if len(t.groups) == 0 {
		return base.Never
	}
	return t.groups[0].deadline
}

// set moves the group to its deadline.
func (t *timers) set(g *group, at base.Instant) {
	switch {
	case at == base.Never:
		if g.timer >= 0 {
			heap.Remove(t, g.timer)
		}
		g.deadline = at
	case g.timer < 0:
		g.deadline = at
		heap.Push(t, g)
	case g.deadline != at:
		g.deadline = at
		heap.Fix(t, g.timer)
	}
}

// retime computes the group's deadline anew.
func (l *Loop) retime(g *group) {
	if !g.destroyed {
		l.timers.set(g, min(g.tickAt, g.electAt, g.readsAt, g.coldAt, g.latchAt))
	}
	l.count(g, !g.destroyed)
}

// count keeps the numbers of leaders and of those that do not rest.
func (l *Loop) count(g *group, here bool) {
	if leads := here && g.leading; leads != g.leads {
		g.leads = leads
		if l.leaders--; leads {
			l.leaders += 2
		}
	}
	if awake := here && g.leading && g.tickAt != base.Never; awake != g.awake {
		g.awake = awake
		if l.awake--; awake {
			l.awake += 2
		}
	}
}

// restartElection draws the time at which a replica that is not the leader campaigns, if it hears of no leader. A learner,
// or one that waits for its first snapshot, asks then whether it is still one.
func (l *Loop) restartElection(g *group) {
	g.electAt = base.Never
	switch t := l.cfg.electionTimeout(); {
	case g.voter():
		g.electAt = l.now.Add(t + time.Duration(l.rand.Int63n(int64(t))))
	default:
		g.electAt = l.now.Add(2 * t)
	}
	l.retime(g)
}

// fire does what is due.
func (l *Loop) fire() {
	for l.timers.next() <= l.now {
		g := l.timers.groups[0]
		if g.tickAt <= l.now {
			l.tick(g)
		}
		if g.electAt <= l.now {
			l.electionDue(g)
		}
		if g.readsAt <= l.now {
			l.expireReads(g)
		}
		if g.latchAt <= l.now {
			l.expireLatches(g)
		}
		if g.coldAt <= l.now {
			l.coolDue(g)
		}
		if l.groups[g.id] == g {
			l.retime(g)
		}
	}
}

// electionDue campaigns, unless a leader was heard or a vote granted since the timer was set: then the timer goes on from
// there.
func (l *Loop) electionDue(g *group) {
	if l.stood(g) && l.now < g.standAt {
		g.electAt = g.standAt
		return
	}
	t := l.cfg.electionTimeout()
	since := g.votedAt
	switch {
	case g.lead != 0 && !l.withdrawn(g):
		since = max(since, g.lastHeard)
	case l.cfg.Supports != nil:
		t = l.cfg.retry(1) // the candidate that has the vote has at most as long
	}
	if l.now.Sub(since) < t {
		g.electAt = since.Add(t + time.Duration(l.rand.Int63n(int64(t))))
		return
	}
	if l.silent(g) {
		g.electAt = l.silentUntil.Add(1 + time.Duration(l.rand.Int63n(int64(t))))
		return
	}
	if !g.voter() {
		l.ask(g)
		l.restartElection(g)
		return
	}
	l.stand(g)
}

// ask says a word to the range's other replicas that means nothing to them if this one is still a learner. If it was
// removed and the word of it was lost, nobody speaks to it, and it may not campaign: whoever has applied its removal
// answers that it is too old. One that never had a snapshot knows those alone that spoke to it, and it may have no term: then it
// says the lowest that a message can have.
func (l *Loop) ask(g *group) {
	_ = g.rn.ForgetLeader()
	others := slices.Sorted(maps.Keys(g.nodes))
	for _, r := range g.log.desc.GetReplicas() {
		if id := base.ReplicaID(r.ReplicaId); id != g.replica && !slices.Contains(others, id) {
			others = append(others, id)
		}
	}
	for _, id := range others {
		l.emitMessage(g, &raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(g.replica)), To: new(uint64(id)), Term: new(max(1, g.term)),
		})
	}
	l.touch(g)
}

// campaign begins an election, if the applied configuration lists this replica as a voter: one that it does not list
// never campaigns. Nor does one whose node's disk is stuck: the votes of the others and their logs suffice to make it leader,
// and to commit, but it would apply nothing, and nobody would support it. The replica forgets its leader first, so that it can be granted votes and grant them.
func (l *Loop) campaign(g *group) (stands bool) {
	if g.role == raft.StateLeader || !g.voter() || g.fort.live || l.silent(g) || !l.asks(g) {
		return false
	}
	_ = g.rn.ForgetLeader() // a no-op where there is none
	_ = g.rn.Campaign()     // refused while conf changes are not applied: the timer asks again
	l.touch(g)
	return true
}

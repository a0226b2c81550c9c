package raftgroup

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
	"github.com/cairndb/cairn/internal/mutant"
)

// Loop runs the groups of many ranges. It is not safe for concurrent use: one goroutine, or one simulator, steps it.
type Loop struct {
	cfg    Config
	rand   *base.Rand
	now    base.Instant
	groups map[base.RangeID]*group // never walked where order could reach an effect
	cold   map[base.RangeID]*row   // nor this
	timers timers
	dirty  []*group // touched in this step, in the order of the events
	eff    Effects

	seq            uint64  // of the newest batch
	batch          batch   // being made
	flying         []batch // made and not durable yet, in order
	reads          uint64  // ReadIndex questions asked
	lives          uint64  // groups built
	leaders, awake int     // replicas that lead, and those of them that do not rest

	owed        map[owedKey]*owed        // words that end promises, until they are answered
	owedAt      base.Instant             // when the next is due
	candidates  int                      // groups that are standing
	queue       []*group                 // those that wait to stand
	waking      []bereft                 // cold replicas that have lost their leader and are to be built again
	lookers     []base.RangeID           // cold leaders that are to look up
	promises    map[base.NodeID]Promised // of this node to others
	silentUntil base.Instant

	unanswered map[base.RangeID]question       // candidates' questions about ranges that are not here
	proposing  []*group                        // with proposals of this step
	buried     map[base.RangeID]base.ReplicaID // tombstones of this step, which the store does not show yet
}

// batch is what waits for one batch of appends to be durable.
type batch struct {
	seq     uint64
	waiting []answers
}

type answers struct {
	g  *group
	ms []*raftpb.Message
}

// NewLoop makes a loop without groups.
func NewLoop(cfg Config, now base.Instant) (*Loop, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("raft loop: %w", err)
	}
	return &Loop{cfg: cfg, rand: base.NewRand(cfg.Seed), now: now, groups: make(map[base.RangeID]*group), cold: make(map[base.RangeID]*row),
		unanswered: make(map[base.RangeID]question), buried: make(map[base.RangeID]base.ReplicaID), promises: make(map[base.NodeID]Promised), owed: make(map[owedKey]*owed), owedAt: base.Never,
		silentUntil: now.Add(cfg.SilentFor)}, nil
}

// Step delivers the events and returns what is to be done. The effects are valid until the next Step. An error of the
// LogStore is an invariant broken: what was stored cannot be read, and nothing can be decided without it.
func (l *Loop) Step(now base.Instant, ev *Events) *Effects {
	l.now = max(now, l.now)
	l.eff.reset()
	clear(l.buried)
	l.durable(ev.Durable)
	for i := range ev.Promised {
		l.promised(&ev.Promised[i])
	}
	if len(ev.Supported) > 0 {
		l.supported(ev.Supported)
	}
	if len(ev.Lost) > 0 {
		l.lost(ev.Lost)
	}
	l.unreachable(ev.Unreachable)
	for i := range ev.Applied {
		l.appliedTo(&ev.Applied[i])
	}
	for i := range ev.Admin {
		l.admin(&ev.Admin[i])
	}
	for i := range ev.Messages {
		l.receive(&ev.Messages[i])
	}
	for i := range ev.Latches {
		l.latch(&ev.Latches[i])
	}
	for i := range ev.Proposals {
		l.propose(&ev.Proposals[i])
	}
	l.flushProposals()
	for i := range ev.Reads {
		l.read(&ev.Reads[i])
	}
	l.wakeCold()
	l.fire()
	l.flushProposals() // that waited for latches which have run out
	l.takeTurns()
	l.collectAll()
	l.payOwed()
	if len(l.eff.Appends) > 0 {
		l.seq++
		l.batch.seq, l.eff.Seq = l.seq, l.seq
		l.flying = append(l.flying, l.batch)
		l.batch = batch{}
	}
	l.eff.Wake, l.eff.Leaders, l.eff.Awake = l.timers.next(), l.leaders, l.awake
	if len(l.owed) > 0 {
		l.eff.Wake = min(l.eff.Wake, l.owedAt)
	}
	if len(l.waking)+len(l.lookers) > 0 || len(l.queue) > 0 && l.candidates < base.CandidatesPerLoop {
		l.eff.Wake = l.now
	}
	return &l.eff
}

// collectAll asks the groups that were touched. Answering may touch more.
func (l *Loop) collectAll() {
	for i := 0; i < len(l.dirty); i++ {
		g := l.dirty[i]
		g.dirty = false
		if g.destroyed {
			continue
		}
		l.startRounds(g)
		l.collect(g)
		l.refuseUnplaced(g)
		l.dropStaged(g)
		l.truncate(g)
		l.grantLatches(g)
		if g.lease.ask {
			l.askForts(g)
		}
		l.refreshGate(g)
	}
	l.dirty = base.Emptied(l.dirty)
}

// touch has the group asked for its Ready at the end of the step. A leader that rested is ticked again.
func (l *Loop) touch(g *group) {
	g.touched = l.now
	if g.resting() {
		g.tickAt, g.stirred = l.now.Add(l.cfg.TickInterval), l.now
		l.retime(g)
	}
	if !g.dirty {
		g.dirty = true
		l.dirty = append(l.dirty, g)
	}
}

// newest returns the newest batch with appends of the group that is being made or under way, nil if there is none.
func (l *Loop) newest(g *group) *batch {
	if g.batch > l.seq {
		return &l.batch
	}
	if len(l.flying) == 0 || g.batch < l.flying[0].seq {
		return nil
	}
	return &l.flying[g.batch-l.flying[0].seq]
}

// durable delivers what waited for the batches up to those given.
func (l *Loop) durable(ds []Durable) {
	for _, d := range ds {
		n := 0
		for ; n < len(l.flying) && l.flying[n].seq <= d.Seq; n++ {
			for _, a := range l.flying[n].waiting {
				a.g.unborn = false // its first batch held the ReplicaID
				l.answer(a.g, a.ms)
			}
		}
		l.flying = slices.Delete(l.flying, 0, n)
	}
}

// appliedTo takes the driver's report that entries were applied, or a snapshot installed.
func (l *Loop) appliedTo(a *Applied) {
	g := l.groups[a.Range]
	if g == nil || a.Index < g.applied {
		return // it was destroyed or replaced meanwhile
	}
	invariants.Check(a.Index <= g.handed || a.Index == g.log.truncated.Index,
		"%s: applied %d, handed out %d", g.id, a.Index, g.handed)
	if a.Index >= g.log.truncated.Index {
		l.reconfigure(g, a)
	} // else a snapshot came while this was applied: Raft has its configuration already, to which these changes led
	g.applied, g.log.applied = a.Index, a.Index
	g.log.recent.shrink(a.Index)
	g.handed = max(g.handed, a.Index)
	n := 0
	for ; n < len(g.applying) && g.applying[n].index <= a.Index; n++ {
		for _, m := range g.applying[n].resp {
			_ = g.rn.Step(m) // a message to itself
		}
	}
	g.applying = slices.Delete(g.applying, 0, n)
	l.finishReads(g)
	if a.Removed && !mutant.Is(mutant.UnlistedCampaigns) {
		l.destroy(g, deadBelow(g.log.desc, l.cfg.Node), "removed from the range")
		return
	}
	l.touch(g)
}

// reconfigure takes in the conf changes that took effect, and the descriptor that they led to.
func (l *Loop) reconfigure(g *group, a *Applied) {
	var cs *raftpb.ConfState
	for _, cc := range a.Changes {
		if mutant.Is(mutant.ConfChangeAtAppend) || mutant.Is(mutant.ConfChangeSkipped) && l.cfg.Node == 2 ||
			mutant.Is(mutant.UnlistedCampaigns) && a.Removed {
			continue
		}
		cs = g.rn.ApplyConfChange(cc)
	}
	invariants.Check(cs == nil || a.Descriptor != nil && sameConf(cs, ConfState(a.Descriptor)),
		"%s: raft's configuration is %v, not the descriptor's", g.id, cs)
	if a.Descriptor == nil {
		return
	}
	l.part(g, a.Descriptor)
	g.log.desc = a.Descriptor
	g.lease.stale, g.lease.ask = g.leading, g.leading
	clear(g.nodes)
	maps.DeleteFunc(g.spoke, func(id base.ReplicaID, _ base.Instant) bool { return removed(a.Descriptor, id) })
	if g.electAt == base.Never && g.role != raft.StateLeader && !g.fort.live {
		l.restartElection(g)
	}
}

// admin carries out one request of the replica's own node.
func (l *Loop) admin(a *Admin) {
	switch {
	case a.Born:
		l.born(a)
		return
	case a.Absorbed != nil:
		l.absorbed(a.Range, a.Absorbed.Descriptor, a.Absorbed.Tombstone)
		return
	}
	cold := l.cold[a.Range] != nil
	g := l.group(a.Range)
	if a.Start && g == nil {
		g = l.load(a.Range)
	}
	if a.Received != nil {
		l.received(a.Received)
		return
	}
	if g == nil {
		return
	}
	switch {
	case a.Warm && !cold:
		g.touched = l.now
		return
	case a.Sent != nil:
		l.snapshotSent(g, a.Sent)
	case a.Transfer != 0:
		if g.role == raft.StateLeader && g.mayLead(a.Transfer) {
			l.giveUp(g)
			g.rn.TransferLeader(uint64(a.Transfer))
		}
	case a.Campaign:
		l.campaign(g)
	}
	l.touch(g)
}

func (e *Effects) reset() {
	e.Seq = 0
	e.Appends, e.Messages, e.Applies = base.Emptied(e.Appends), base.Emptied(e.Messages), base.Emptied(e.Applies)
	e.ReadsReady, e.Failed, e.SendSnapshot = base.Emptied(e.ReadsReady), base.Emptied(e.Failed), base.Emptied(e.SendSnapshot)
	e.DropStaged, e.Changes, e.Gates = base.Emptied(e.DropStaged), base.Emptied(e.Changes), base.Emptied(e.Gates)
	e.Commits, e.Cold, e.Latched = base.Emptied(e.Commits), base.Emptied(e.Cold), base.Emptied(e.Latched)
}

// unreachable tells leaders of followers to which nothing gets through.
func (l *Loop) unreachable(nodes []base.NodeID) {
	if len(nodes) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(l.groups)) {
		g := l.groups[id]
		if !g.leading || g.resting() {
			continue
		}
		for _, r := range g.log.desc.GetReplicas() {
			if slices.Contains(nodes, base.NodeID(r.NodeId)) {
				g.rn.ReportUnreachable(r.ReplicaId)
				l.touch(g)
			}
		}
	}
}

// Ranges lists the ranges that have a replica in the loop, in order.
func (l *Loop) Ranges() []base.RangeID {
	ids := make([]base.RangeID, 0, len(l.groups)+len(l.cold))
	ids = slices.AppendSeq(ids, maps.Keys(l.groups))
	ids = slices.AppendSeq(ids, maps.Keys(l.cold))
	slices.Sort(ids)
	return ids
}

// Status returns a replica as it is now.
func (l *Loop) Status(id base.RangeID) (Status, bool) {
	if r := l.cold[id]; r != nil {
		return l.coldStatus(id, r), true
	}
	g := l.groups[id]
	if g == nil {
		return Status{}, false
	}
	st := g.rn.Status()
	s := Status{
		Range: id, Replica: g.replica, Descriptor: g.log.desc, Role: g.roleNow(), Term: st.GetTerm(), Leader: g.lead,
		LeaderNode: g.nodeOf(g.lead), Commit: st.GetCommit(), Applied: g.applied,
		First: g.log.truncated.Index + 1, Last: g.log.last, LogBytes: g.log.bytes, Resting: g.resting(),
	}
	l.leaseStatus(g, &s)
	for rid, p := range st.Progress {
		s.Progress = append(s.Progress, Progress{
			Replica: base.ReplicaID(rid), Match: p.Match, State: stateName(p.State), Recent: l.inTouch(g, base.ReplicaID(rid)),
		})
	}
	slices.SortFunc(s.Progress, func(a, b Progress) int { return int(int64(a.Replica) - int64(b.Replica)) })
	return s, true
}

// stateName is the state's name as Status gives it.
func stateName(s tracker.StateType) string {
	return [...]string{tracker.StateProbe: "probe", tracker.StateReplicate: "replicate", tracker.StateSnapshot: "snapshot"}[s]
}

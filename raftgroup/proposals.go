package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// proposals knows where in the log the proposals of this node are: when another entry is applied at a proposal's index,
// the proposal is certainly lost, and may be made again.
type proposals struct {
	fresh    []Proposal // of this step, not given to Raft yet
	unplaced []ProposalID
	placed   []placed     // ordered by index
	refused  []ProposalID // Raft put something else in their place
	change   uint64       // index of the newest membership change that may not be applied yet
}

type placed struct {
	index, term uint64
	id          ProposalID
}

// elected: a new leader cannot tell which entries up to its last are membership changes that are not applied.
func (p *proposals) elected(last uint64) { p.change = last }

// indexed finds, in entries that the leader appends, the proposals that were just given to Raft.
func (p *proposals) indexed(entries []*raftpb.Entry) {
	for _, e := range entries {
		if len(p.unplaced) == 0 {
			return
		}
		id, ok := entryID(e)
		at := slices.Index(p.unplaced, id)
		if !ok || at < 0 {
			continue
		}
		p.refused = append(p.refused, p.unplaced[:at]...)
		p.unplaced = p.unplaced[at:]
		p.place(placed{e.GetIndex(), e.GetTerm(), id})
		if e.GetType() != raftpb.EntryNormal {
			p.change = e.GetIndex()
		}
		p.unplaced = p.unplaced[1:]
	}
}

// place puts a proposal at its index. Those of an earlier leadership may lie behind it: the log was cut there since.
func (p *proposals) place(x placed) {
	n := len(p.placed)
	for n > 0 && p.placed[n-1].index > x.index {
		n--
	}
	p.placed = slices.Insert(p.placed, n, x)
}

// resolved takes note that the log is committed up to last: the proposals up to there end here. One in whose place
// another term's entry was committed is certainly lost; the others are answered by who applies them.
func (p *proposals) resolved(last uint64, termAt func(uint64) (uint64, error), refusal func() error, failed []Failed) []Failed {
	n := 0
	for ; n < len(p.placed) && p.placed[n].index <= last; n++ {
		x := p.placed[n]
		switch term, err := termAt(x.index); {
		case err != nil:
			failed = append(failed, Failed{x.id, &base.Ambiguous{Cause: err}})
		case term != x.term:
			failed = append(failed, Failed{x.id, refusal()})
		}
	}
	p.placed = p.placed[n:]
	if len(p.placed) == 0 {
		p.placed = nil
	}
	return failed
}

// refuseUnplaced ends the proposals of this step that Raft took and did not append: it puts an empty entry in the place
// of a membership change that comes too early.
func (l *Loop) refuseUnplaced(g *group) {
	p := &g.proposals
	for _, ids := range [][]ProposalID{p.refused, p.unplaced} {
		for _, id := range ids {
			l.fail(id, &base.Throttled{What: "membership changes of " + g.id.String(), RetryAfter: l.cfg.TickInterval})
		}
	}
	p.refused, p.unplaced = nil, nil
}

// end ends all of them; whether they are carried out is not known.
func (p *proposals) end(cause error, failed []Failed) []Failed {
	for _, x := range p.placed {
		failed = append(failed, Failed{x.id, &base.Ambiguous{Cause: cause}})
	}
	for _, id := range p.unplaced {
		failed = append(failed, Failed{id, &base.Ambiguous{Cause: cause}})
	}
	*p = proposals{}
	return failed
}

// refuse ends all proposals of which it is certain that they have no effect.
func (p *proposals) refuse(why error, failed []Failed) []Failed {
	for _, x := range p.placed {
		failed = append(failed, Failed{x.id, why})
	}
	for _, id := range p.unplaced {
		failed = append(failed, Failed{id, why})
	}
	*p = proposals{}
	return failed
}

// entryID returns the proposal that an entry came from.
func entryID(e *raftpb.Entry) (ProposalID, bool) {
	data := e.GetData()
	if e.GetType() == raftpb.EntryConfChangeV2 {
		var cc raftpb.ConfChangeV2
		if proto.Unmarshal(data, &cc) != nil {
			return ProposalID{}, false
		}
		data = cc.GetContext()
	}
	id, _, ok := DecodeProposal(data)
	return id, ok
}

// propose keeps a proposal until all of the step are there: a range's go to Raft together.
func (l *Loop) propose(p *Proposal) {
	g := l.group(p.Range)
	switch {
	case g == nil:
		l.fail(p.ID, &base.RangeMoved{Range: p.Range})
		return
	case g.role != raft.StateLeader:
		l.fail(p.ID, g.notLeader())
		return
	case p.Latch != nil:
		l.proposeLatched(g, p)
		return
	case g.latches != nil && !mutant.Is(mutant.LatchLetsThrough):
		l.keepBack(g, p)
		return
	}
	l.enter(g, p)
}

// enter has a proposal go to Raft with those of the step.
func (l *Loop) enter(g *group, p *Proposal) {
	if len(g.proposals.fresh) == 0 {
		l.proposing = append(l.proposing, g)
	}
	g.proposals.fresh = append(g.proposals.fresh, *p)
}

// flushProposals gives Raft what was proposed. A membership change goes alone, in its place in the order.
func (l *Loop) flushProposals() {
	for _, g := range l.proposing {
		fresh := g.proposals.fresh
		for from := 0; from < len(fresh); {
			if fresh[from].Change != nil {
				l.stepChange(g, &fresh[from])
				from++
				continue
			}
			to := from
			for to < len(fresh) && fresh[to].Change == nil {
				to++
			}
			l.stepCommands(g, fresh[from:to])
			from = to
		}
		clear(fresh)
		g.proposals.fresh = fresh[:0]
		l.touch(g)
	}
	clear(l.proposing)
	l.proposing = l.proposing[:0]
}

func (l *Loop) stepCommands(g *group, ps []Proposal) {
	ps = l.ofTerm(g, ps)
	if len(ps) == 0 {
		return
	}
	entries := make([]*raftpb.Entry, len(ps))
	for i := range ps {
		entries[i] = &raftpb.Entry{Data: EncodeProposal(ps[i].ID, ps[i].Data)}
	}
	l.stepEntries(g, entries, ps)
}

// ofTerm refuses the proposals of another term than that in which they would be appended.
func (l *Loop) ofTerm(g *group, ps []Proposal) []Proposal {
	if !slices.ContainsFunc(ps, func(p Proposal) bool { return p.Term != 0 }) {
		return ps // nearly always
	}
	term, kept := g.rn.BasicStatus().GetTerm(), make([]Proposal, 0, len(ps))
	for i := range ps {
		if ps[i].Term != 0 && ps[i].Term != term {
			l.fail(ps[i].ID, g.notLeader())
			continue
		}
		kept = append(kept, ps[i])
	}
	return kept
}

func (l *Loop) stepChange(g *group, p *Proposal) {
	if g.proposals.change > g.applied {
		l.fail(p.ID, &base.Throttled{What: "membership changes of " + g.id.String(), RetryAfter: l.cfg.TickInterval})
		return
	}
	cc := proto.CloneOf(p.Change)
	cc.Context = EncodeProposal(p.ID, p.Data)
	data, err := proto.Marshal(cc)
	if err != nil {
		l.fail(p.ID, err)
		return
	}
	l.stepEntries(g, []*raftpb.Entry{{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}}, []Proposal{*p})
}

// stepEntries proposes to Raft. What it drops was certainly not proposed.
func (l *Loop) stepEntries(g *group, entries []*raftpb.Entry, ps []Proposal) {
	err := g.rn.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(g.replica)), Entries: entries})
	if err == nil {
		for i := range ps {
			g.proposals.unplaced = append(g.proposals.unplaced, ps[i].ID)
		}
		return
	}
	var refusal error = &base.Throttled{What: "proposals to " + g.id.String(), RetryAfter: base.ThrottleRetry}
	if g.rn.BasicStatus().RaftState != raft.StateLeader {
		refusal = g.notLeader()
	}
	for i := range ps {
		l.fail(ps[i].ID, refusal)
	}
}

func (l *Loop) fail(id ProposalID, err error) { l.eff.Failed = append(l.eff.Failed, Failed{id, err}) }

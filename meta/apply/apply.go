// Package apply is the replicated state machine of one range on one node: committed log entries in, writes and
// outcomes out.
//
// Every replica of a range applies the same entries in the same order to the same state, and comes to the same bytes.
// So an entry's effect rests on the range's replicated state and on the entry, and on nothing else: not on a clock, not
// on this node, not on how entries were grouped. The effects, the counters, the descriptor and the applied index and
// term go into one batch: what is applied and how far is one truth after any crash.
//
// A command may be refused (a stale generation, keys of another range, a compacted revision): that is its outcome, the
// same on every replica, and nothing but the applied index changes. An entry that cannot be read, or that this version
// does not know, is never skipped: Apply fails, and the store stops before its state can differ from the others'.
package apply

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/raftgroup"
)

// Replica is the replicated state of a range that is small enough to be at hand: the rest is in the engine. It is what
// the engine will hold once the last batch given to Apply is committed; if that fails, the Replica must be loaded anew.
// Not safe for concurrent use; the descriptor that it gives out is never changed in place.
type Replica struct {
	id       base.RangeID
	desc     *metapb.RangeDescriptor
	counters eval.Counters
	applied  position
	grants   int64       // number of the last lease that was granted
	heads    *eval.Heads // nil until the first command

	wantEvents, wantPrev bool
}

// position is a place in the log.
type position struct{ index, term uint64 }

// Result is what Apply tells the shell. It may be used again for the next Apply, which overwrites Outcomes.
type Result struct {
	Applied raftgroup.Applied
	// Outcomes are those of this node's own proposals, in log order.
	Outcomes []Outcome
	// Splits are the ranges that were cut off this one, in log order. Their replicated state is in the batch; the shell adds
	// what Raft needs of this node's replica before it commits (node/store/split.go).
	Splits []*metapb.RangeDescriptor
	// Merges are the ranges that this one took over, in log order. Their own replicated state is deleted in the batch; the shell
	// ends their replicas here (node/store/merge.go).
	Merges []*kvpb.FrozenRange
	// Indexed is what has changed in the index that the range holds, in log order.
	Indexed []Indexed
	// Events are what was written to the range's keys, in log order, if they are wanted (WantEvents).
	Events []*watch.Event
	// Leases are those that live in the range and were granted, attached to more, marked as ending or revoked, in log order. LeasesMoved:
	// a split or a merge has taken some away or brought some, and they are to be read anew (eval.ReadLeases).
	Leases      []LeaseChange
	LeasesMoved bool
}

// Indexed is an entry of the index as it is now; a nil Descriptor: it is gone. Without a key it says that any entry may be another.
type Indexed struct {
	Key        []byte
	Descriptor *metapb.RangeDescriptor
}

// Outcome ends a proposal: Response, or Err if the command was refused.
type Outcome struct {
	ID       raftgroup.ProposalID
	Response proto.Message
	Err      error
}

// ID is the range's.
func (r *Replica) ID() base.RangeID { return r.id }

// Descriptor is the range's descriptor after the last entry applied. It must not be changed.
func (r *Replica) Descriptor() *metapb.RangeDescriptor { return r.desc }

// Counters are the range's revisions after the last entry applied.
func (r *Replica) Counters() eval.Counters { return r.counters }

// AppliedIndex is the index of the last entry applied.
func (r *Replica) AppliedIndex() uint64 { return r.applied.index }

// AppliedTerm is its term.
func (r *Replica) AppliedTerm() uint64 { return r.applied.term }

// WantEvents says whether Apply is to tell what it writes to the range's keys, and with the versions before.
func (r *Replica) WantEvents(events, prev bool) { r.wantEvents, r.wantPrev = events, prev }

// Apply writes the effects of entries, which follow the last ones without a gap, into a pass's indexed batch. Several ranges may
// share a pass, and then share its look into the engine: that is most of what one command alone costs. Responses are made for the
// proposals of self only. After an error the batch must not be committed.
func (r *Replica) Apply(data *eval.Pass, entries []*raftpb.Entry, self base.NodeID, out *Result) error {
	*out = Result{Applied: raftgroup.Applied{Range: r.id}, Outcomes: out.Outcomes[:0]}
	before := *r
	mine := desc.ReplicaOn(r.desc, self)
	if r.heads == nil {
		r.heads = eval.NewHeads(base.HeadsPerRange)
	}
	p := pass{Replica: r, batch: data.Batch(), data: data, self: self, out: out}
	data.Remember(r.heads)
	err := p.entries(entries)
	data.Remember(nil) // they are this range's
	if err != nil {
		return err
	}
	if err := r.writeChanged(p.batch, &before); err != nil {
		return err
	}
	out.Applied.Index = r.applied.index
	if r.desc != before.desc {
		out.Applied.Descriptor = r.desc
	}
	// A replica that was removed and added again on this node has a new id: this one is removed all the same.
	out.Applied.Removed = mine == nil || desc.Replica(r.desc, base.ReplicaID(mine.ReplicaId)) == nil
	return nil
}

// pass is one call of Apply.
type pass struct {
	*Replica
	batch engine.Batch
	data  *eval.Pass // all that is written to the range's data goes through it
	self  base.NodeID
	out   *Result

	written []eval.Event // by the command, if that is wanted
}

// forget looks everything up again: whose the keys and the leases are has changed.
func (p *pass) forget() {
	p.heads = nil
	p.data.Remember(nil)
	p.out.LeasesMoved = true
}

func (p *pass) entries(entries []*raftpb.Entry) error {
	for _, e := range entries {
		again := mutant.Is(mutant.AppliedTwice) && e.GetIndex() == p.applied.index
		if e.GetIndex() != p.applied.index+1 && !again || e.GetTerm() < p.applied.term {
			return p.corrupt(e, fmt.Errorf("it follows index %d of term %d", p.applied.index, p.applied.term))
		}
		if err := p.entry(e); err != nil {
			return err
		}
		p.applied = position{e.GetIndex(), e.GetTerm()}
	}
	return nil
}

func (p *pass) entry(e *raftpb.Entry) error {
	data := e.GetData()
	var change *raftpb.ConfChangeV2
	switch e.GetType() {
	case raftpb.EntryNormal:
		if len(data) == 0 {
			return nil // a leader's first entry: it only commits what came before
		}
	case raftpb.EntryConfChangeV2:
		change = &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(data, change); err != nil {
			return p.corrupt(e, err)
		}
		data = change.GetContext()
	default:
		return p.corrupt(e, fmt.Errorf("its type is %s", e.GetType()))
	}
	id, body, ok := raftgroup.DecodeProposal(data)
	if !ok {
		return p.corrupt(e, errNoProposal)
	}
	cmd := &kvpb.Command{}
	if err := proto.Unmarshal(body, cmd); err != nil {
		return p.corrupt(e, err)
	}
	mine := id.Node == p.self
	done, err := p.command(cmd, change, mine)
	if err != nil {
		return fmt.Errorf("%s: entry %d of term %d: %w", p.id, e.GetIndex(), e.GetTerm(), err)
	}
	for i := range p.written {
		p.out.Events = append(p.out.Events, watch.EncodeEvent(&p.written[i]))
	}
	p.written = base.Emptied(p.written)
	if mine {
		p.out.Outcomes = append(p.out.Outcomes, Outcome{ID: id, Response: done.response, Err: done.refusal})
	}
	return nil
}

// done is how a command ended, the same on every replica: with a response, made where somebody waits for it, or refused.
type done struct {
	response proto.Message
	refusal  error
}

func refused(why error) (done, error) { return done{refusal: why}, nil }

// command carries a command out. An error stops the store.
func (p *pass) command(cmd *kvpb.Command, change *raftpb.ConfChangeV2, mine bool) (done, error) {
	if _, ok := cmd.Body.(*kvpb.Command_ChangeReplicas); ok != (change != nil) && cmd.Body != nil {
		return refused(errCarrier)
	}
	if _, thaw := cmd.Body.(*kvpb.Command_Thaw); desc.IsFrozen(p.desc) && !thaw && !mutant.Is(mutant.FrozenTakesWrites) {
		return refused(desc.Busy(p.desc))
	}
	switch body := cmd.Body.(type) {
	case *kvpb.Command_Put, *kvpb.Command_DeleteRange, *kvpb.Command_Txn, *kvpb.Command_Compaction:
		return p.evaluate(cmd, mine)
	case *kvpb.Command_ChangeReplicas:
		return p.changeReplicas(body.ChangeReplicas, change)
	case *kvpb.Command_Split:
		return p.split(body.Split)
	case *kvpb.Command_RaiseRevision:
		return p.raise(body.RaiseRevision, cmd.NowMicros)
	case *kvpb.Command_Freeze:
		return p.freeze(body.Freeze)
	case *kvpb.Command_Merge:
		return p.merge(body.Merge)
	case *kvpb.Command_GiveUpMerge:
		return p.giveUpMerge(body.GiveUpMerge)
	case *kvpb.Command_Thaw:
		return p.thaw(body.Thaw)
	case *kvpb.Command_Absorbed:
		return p.absorbed(body.Absorbed)
	case *kvpb.Command_LeaseGrant:
		return p.leaseGrant(body.LeaseGrant)
	case *kvpb.Command_LeaseRevoke:
		return p.leaseRevoke(body.LeaseRevoke, cmd.NowMicros)
	case *kvpb.Command_LeaseAttach:
		return p.leaseAttach(body.LeaseAttach)
	case *kvpb.Command_LeaseAdmit:
		return p.leaseAdmit(body.LeaseAdmit)
	case *kvpb.Command_LeaseEvict:
		return p.leaseEvict(body.LeaseEvict, cmd.NowMicros)
	case *kvpb.Command_PublishDescriptor:
		return p.publish(body.PublishDescriptor, cmd.NowMicros)
	case *kvpb.Command_UnpublishDescriptor:
		return p.unpublish(body.UnpublishDescriptor, cmd.NowMicros)
	}
	return done{}, errUnknown
}

var (
	errNoProposal = errors.New("it names no proposal")
	errCarrier    = errors.New("a membership change travels as a Raft conf change, and nothing else does")
	errUnknown    = errors.New("a command that this version does not know; start a version that does")
)

func (r *Replica) corrupt(e *raftpb.Entry, cause error) error {
	return &base.Corruption{Where: fmt.Sprintf("%s: entry %d of term %d", r.id, e.GetIndex(), e.GetTerm()), Cause: cause}
}

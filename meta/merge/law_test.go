package merge_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/merge"
	"github.com/cairndb/cairn/raftgroup"
)

// The world of the law: three neighbours on three nodes, each a log and the product's own state machine, and any number of Runs for
// any two of them, begun by what somebody once knew. A proposal is committed now, or later, or never, and whoever made it may be told
// so or not. A node applies a log when it is drawn to, and its replica of a range ends where it applies that range's merge; so a
// range that was taken over commits for as long as most of its replicas do not know of that.
const lawSpace = base.KeyspaceID(9)

type lawRange struct {
	id      base.RangeID
	sm      *apply.Replica
	log     []lawEntry
	was     []*metapb.RangeDescriptor // all descriptors that it had
	taken   bool                      // by a merge that is committed
	applied map[base.NodeID]int       // entries of the log, on the nodes that have a replica
}

type lawEntry struct {
	merges []*kvpb.FrozenRange
	splits []base.RangeID
	after  *metapb.RangeDescriptor
	index  uint64
}

type law struct {
	t      *testing.T
	rand   *base.Rand
	trace  bytes.Buffer
	eng    engine.Engine
	ranges map[base.RangeID]*lawRange
	limbo  []*merge.Proposal // may still be committed
	runs   []*merge.Run
	nextID base.RangeID
	merges int
	thawed int
	out    apply.Result
}

var lawNodes = []base.NodeID{1, 2, 3}

func newLaw(t *testing.T, seed uint64) *law {
	l := &law{t: t, rand: base.NewRand(seed), eng: engine.NewMem(), ranges: map[base.RangeID]*lawRange{}, nextID: 20}
	for i, bounds := range [][2]string{{"", "c"}, {"c", "k"}, {"k", ""}} {
		d := desctest.First(base.RangeID(8+i), lawSpace)
		d.Start, d.End, d.Generation, d.NextReplicaId = []byte(bounds[0]), []byte(bounds[1]), uint64(1+i), 4
		for _, n := range lawNodes[1:] {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(n), NodeId: uint64(n), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		b := l.eng.NewBatch()
		l.must(apply.Bootstrap(b, d))
		l.must(b.CommitNoSync())
		l.must(b.Close())
		r := l.load(base.RangeID(d.RangeId))
		for _, n := range lawNodes {
			r.applied[n] = 0
		}
	}
	return l
}

func (l *law) must(err error) {
	l.t.Helper()
	if err != nil {
		l.fatalf("%v", err)
	}
}

func (l *law) logf(format string, args ...any) { fmt.Fprintf(&l.trace, format+"\n", args...) }

func (l *law) fatalf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s"+format, append([]any{l.trace.String()}, args...)...)
}

func (l *law) load(id base.RangeID) *lawRange {
	sm, err := apply.Load(l.eng, id)
	l.must(err)
	l.ranges[id] = &lawRange{id: id, sm: sm, was: []*metapb.RangeDescriptor{sm.Descriptor()}, applied: map[base.NodeID]int{}}
	return l.ranges[id]
}

// holders are the ranges that would take a request for a key, by what they themselves know: those that were taken over too.
func (l *law) holders(key []byte) (out []*lawRange) {
	for _, id := range slices.Sorted(maps.Keys(l.ranges)) {
		if r := l.ranges[id]; desc.Contains(r.sm.Descriptor(), lawSpace, key) && len(r.applied) >= 2 {
			out = append(out, r)
		}
	}
	return out
}

func (l *law) draw(n int) int { return int(l.rand.Int63n(int64(n))) }

// commit commits a command in a range that has a quorum of replicas, and holds it to the law.
func (l *law) commit(r *lawRange, cmd *kvpb.Command) (proto.Message, error) {
	before := r.sm.Descriptor()
	raw, err := proto.Marshal(cmd)
	l.must(err)
	index := r.sm.AppliedIndex() + 1
	b := l.eng.NewIndexedBatch()
	e := &raftpb.Entry{Index: new(index), Term: new(uint64(apply.InitialTerm)), Type: raftpb.EntryNormal.Enum(), Data: raftgroup.EncodeProposal(raftgroup.ProposalID{Node: 1, Seq: index}, raw)}
	counters := r.sm.Counters()
	l.logf("%s, %s: %s", r.id, desc.Format(before), command(cmd))
	data := eval.NewPass(b)
	l.must(r.sm.Apply(data, []*raftpb.Entry{e}, 1, &l.out))
	l.must(data.Close())
	now := r.sm.Descriptor()
	if r.taken && (now != before || r.sm.Counters() != counters) {
		l.fatalf("%s was taken over, and went on as %s", desc.Format(before), desc.Format(now))
	}
	for _, m := range l.out.Merges {
		l.merged(r, m)
		if at := int64(r.sm.Counters().Revision); at < m.Revision || at < int64(counters.Revision) {
			l.fatalf("%s is at revision %d after it took over what was at %d", r.id, at, m.Revision)
		}
	}
	l.must(b.CommitNoSync())
	l.must(b.Close())
	entry := lawEntry{merges: slices.Clone(l.out.Merges), after: now, index: index}
	for _, d := range l.out.Splits {
		l.load(base.RangeID(d.RangeId))
		entry.splits = append(entry.splits, base.RangeID(d.RangeId))
	}
	r.log = append(r.log, entry)
	if desc.IsFrozen(before) && !desc.IsFrozen(now) {
		l.thawed++
	}
	if now != before {
		l.logf("\tis now %s", desc.Format(now))
		r.was = append(r.was, now)
	}
	return l.out.Outcomes[0].Response, l.out.Outcomes[0].Err
}

// merged: what was taken over is all that there is of the range, it will never change again, and every node has all of it.
func (l *law) merged(left *lawRange, m *kvpb.FrozenRange) {
	right := l.ranges[base.RangeID(m.Descriptor_.RangeId)]
	switch {
	case right.taken:
		l.fatalf("%s is taken over twice", right.id)
	case !desc.Equal(right.sm.Descriptor(), m.Descriptor_):
		l.fatalf("%s is taken over as %s, and has gone on as %s", right.id, desc.Format(m.Descriptor_), desc.Format(right.sm.Descriptor()))
	case m.Revision != int64(right.sm.Counters().Revision) || m.Compacted != int64(right.sm.Counters().Compacted):
		l.fatalf("%s is taken over at revision %d, and is at %d", right.id, m.Revision, right.sm.Counters().Revision)
	}
	for _, n := range lawNodes {
		if at, ok := right.applied[n]; !ok || at == 0 || right.log[at-1].index < m.AppliedIndex {
			l.fatalf("%s takes %s over, of which %s does not have all", left.id, right.id, n)
		}
	}
	right.taken = true
	l.merges++
}

// apply has a node apply one more entry of a range.
func (l *law) apply(r *lawRange, n base.NodeID) {
	at, ok := r.applied[n]
	if !ok || at == len(r.log) {
		return
	}
	for _, id := range r.log[at].splits {
		l.ranges[id].applied[n] = 0
	}
	for _, m := range r.log[at].merges {
		delete(l.ranges[base.RangeID(m.Descriptor_.RangeId)].applied, n)
	}
	r.applied[n]++
}

// confirmed counts the nodes that have applied a generation of a range.
func (l *law) confirmed(c *merge.Confirm) (n int) {
	for _, node := range c.Nodes {
		r := l.ranges[c.Range]
		if at, ok := r.applied[node]; ok && at > 0 && desc.Generation(r.log[at-1].after) >= c.Generation {
			n++
		}
	}
	return n
}

var errLost = errors.New("the answer was lost")

// step has a Run take a step, and any of what may become of it happen. fair: all goes well.
func (l *law) step(run *merge.Run, fair bool) {
	luck := 0
	if !fair {
		luck = l.draw(8)
	}
	switch step := run.Next(); {
	case step.Propose != nil:
		holders := l.holders(step.Propose.Key)
		if len(holders) == 0 || luck == 1 {
			run.Answered(nil, &base.NotLeader{})
			return
		}
		if luck == 2 {
			l.limbo = append(l.limbo, step.Propose)
			run.Answered(nil, &base.Ambiguous{Cause: errLost})
			return
		}
		to := holders[l.draw(len(holders))]
		resp, err := l.commit(to, step.Propose.Command)
		if luck == 3 {
			resp, err = nil, &base.Ambiguous{Cause: errLost}
		}
		run.Answered(resp, err)
	case step.Confirm != nil:
		for _, n := range step.Confirm.Nodes { // as a rule they are quick
			for r := l.ranges[step.Confirm.Range]; luck > 2 && r.applied[n] < len(r.log); {
				if _, ok := r.applied[n]; !ok {
					break
				}
				l.apply(r, n)
			}
		}
		n := l.confirmed(step.Confirm)
		if n > 0 && luck == 1 {
			n = l.draw(n)
		}
		run.Confirmed(n)
	case step.Look != nil:
		holders := l.holders(step.Look.Key)
		if len(holders) == 0 || luck == 1 {
			run.Found(nil, errLost)
			return
		}
		run.Found(holders[l.draw(len(holders))].sm.Descriptor(), nil)
	}
}

// live are the ranges that were not taken over, in order of their keys.
func (l *law) live() (out []*lawRange) {
	for _, r := range l.ranges {
		if !r.taken {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *lawRange) int { return bytes.Compare(a.sm.Descriptor().Start, b.sm.Descriptor().Start) })
	return out
}

// begin: somebody begins a merge, by what was so once, or is so.
func (l *law) begin() {
	live := l.live()
	known := func(r *lawRange) *metapb.RangeDescriptor {
		if l.draw(4) == 0 {
			return r.was[l.draw(len(r.was))]
		}
		return r.sm.Descriptor()
	}
	if at := l.draw(len(live)); at+1 < len(live) {
		l.runs = append(l.runs, merge.Begin(known(live[at]), known(live[at+1])))
	}
}

// act does one thing that may happen.
func (l *law) act() {
	ids := slices.Sorted(maps.Keys(l.ranges))
	r := l.ranges[ids[l.draw(len(ids))]]
	switch l.draw(12) {
	case 0:
		l.begin()
	case 1: // a leader ends what stands frozen or absorbing, as it is or as it was when the leader was one
		d := r.was[max(0, len(r.was)-1-l.draw(3))]
		if desc.IsFrozen(d) {
			l.runs = append(l.runs, merge.Resume(d))
		} else if d.Absorbing != 0 {
			l.runs = append(l.runs, merge.Finish(d))
		}
	case 2: // a proposal comes through after all
		if len(l.limbo) > 0 {
			i := l.draw(len(l.limbo))
			p := l.limbo[i]
			l.limbo = slices.Delete(l.limbo, i, i+1)
			if holders := l.holders(p.Key); len(holders) > 0 {
				_, _ = l.commit(holders[l.draw(len(holders))], p.Command) // nobody is told
			}
		}
	case 3: // a range is cut, at a key where one began, or another
		d := r.sm.Descriptor()
		key := []byte([]string{"c", "f", "k"}[l.draw(3)])
		if cmd, err := apply.Split(d, key, l.nextID); err == nil && len(r.applied) >= 2 {
			l.nextID++
			_, err := l.commit(r, cmd)
			l.must(err)
		}
	case 4: // somebody writes
		if len(r.applied) >= 2 {
			key := slices.Concat(r.sm.Descriptor().Start, []byte{0})
			raw, err := proto.Marshal(&pb.PutRequest{Key: key, Value: []byte("v")})
			l.must(err)
			_, err = l.commit(r, &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Put{Put: raw}})
			if (err == nil) == desc.IsFrozen(r.sm.Descriptor()) {
				l.fatalf("a write to %s: %v", desc.Format(r.sm.Descriptor()), err)
			}
		}
	case 5, 6, 7: // nodes go on
		n := lawNodes[l.draw(len(lawNodes))]
		for range 1 + l.draw(8) {
			l.apply(r, n)
		}
	default: // a Run goes on, or whoever drives it is gone
		if len(l.runs) == 0 {
			return
		}
		i := l.draw(len(l.runs))
		if l.runs[i].Next().Done == nil && l.draw(12) > 0 {
			l.step(l.runs[i], false)
			return
		}
		l.runs = slices.Delete(l.runs, i, i+1)
	}
}

func (l *law) applyAll() {
	for again := true; again; {
		again = false
		for _, id := range slices.Sorted(maps.Keys(l.ranges)) {
			for _, n := range lawNodes {
				if at, ok := l.ranges[id].applied[n]; ok && at < len(l.ranges[id].log) {
					l.apply(l.ranges[id], n)
					again = true
				}
			}
		}
	}
}

// settle is what the nodes do by themselves once nothing goes wrong: all is applied, and each leader ends what was begun.
func (l *law) settle() {
	for range 10 {
		l.applyAll()
		open := false
		for _, r := range l.live() {
			d := r.sm.Descriptor()
			var run *merge.Run
			switch {
			case desc.IsFrozen(d):
				run = merge.Resume(d)
			case d.Absorbing != 0:
				run = merge.Finish(d)
			default:
				continue
			}
			open = true
			for run.Next().Done == nil {
				l.applyAll()
				l.step(run, true)
			}
		}
		if !open {
			return
		}
	}
	for _, r := range l.live() {
		l.t.Logf("%s", desc.Format(r.sm.Descriptor()))
	}
	l.fatalf("a merge that was begun is never ended")
}

// TestNoHoleNoOverlap: whatever any number of Runs do at once, and whichever of them die where, no range is both taken over and
// going on, the ranges that are left tile the keyspace, and once nothing goes wrong none of them stays frozen or absorbing.
func TestNoHoleNoOverlap(t *testing.T) {
	merges, given := 0, 0
	for seed := range uint64(1500) {
		l := newLaw(t, seed)
		l.logf("seed %d", seed)
		for range 20 + l.draw(300) {
			l.act()
		}
		l.runs = nil
		l.settle()
		end := []byte{}
		live := l.live()
		for i, r := range live {
			d := r.sm.Descriptor()
			if !bytes.Equal(d.Start, end) || (len(d.End) == 0) != (i == len(live)-1) {
				l.fatalf("%s does not begin at %q", desc.Format(d), end)
			}
			end = d.End
		}
		merges += l.merges
		given += l.thawed
	}
	t.Logf("%d merges, %d ranges thawed", merges, given)
	if merges < 300 || given < 300 {
		t.Error("too little of what there is was tried")
	}
}

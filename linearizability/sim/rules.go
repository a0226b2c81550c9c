package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// rules are what must hold at every moment of every run, seen from outside of the nodes, which do not know each other's
// state.
type rules struct {
	w       *world
	leaders map[rangeTerm]base.NodeID
	entries map[rangeIndex]entrySum
	sums    map[rangeIndex]uint64
	owners  map[rangeReplica]base.NodeID
	buried  map[nodeRange]base.ReplicaID // tombstones: ids below never live there again
	moved   map[base.RangeID]movedAt
	left    map[nodeRange]uint64    // what the last crash image of a replica had applied
	newest  map[base.RangeID]uint64 // the highest index that any node applied: it is committed
	puts    map[rangeData]uint64    // where each put was applied: it is to be carried out once
	placed  map[keyspaceData]int64  // where each command was last applied
	offset  map[base.RangeID]int64  // from a range's indexes to places in its keyspace: one that was cut off goes on behind the split
	tiling  *tiling
	refused map[uint64]bool // the puts that a range refused where it applied them, for their keys were not its own, or it was frozen
	ends    []rangeIndex    // of logs that were cut in this pass
	holders map[base.RangeID]base.NodeID
	without map[nodeRange]without
}

// rangeData is a command, by the sum of its bytes.
type rangeData struct {
	id  base.RangeID
	sum uint64
}

// keyspaceData is a command to a keyspace, by the sum of its bytes.
type keyspaceData struct {
	ks  base.KeyspaceID
	sum uint64
}

// place is where a command took effect, in the order of the writes of each key.
func (r *rules) place(ks base.KeyspaceID, sum uint64) (int64, bool) {
	at, ok := r.placed[keyspaceData{ks, sum}]
	return at, ok
}

// movedAt is when a range's replicas were last seen to change.
type movedAt struct {
	generation uint64
	at         time.Duration
}

type rangeTerm struct {
	id   base.RangeID
	term uint64
}

type rangeIndex struct {
	id    base.RangeID
	index uint64
}

type rangeReplica struct {
	id      base.RangeID
	replica base.ReplicaID
}

type nodeRange struct {
	node base.NodeID
	id   base.RangeID
}

type entrySum struct{ term, sum uint64 }

func newRules(w *world) *rules {
	return &rules{
		w: w, leaders: make(map[rangeTerm]base.NodeID), entries: make(map[rangeIndex]entrySum), sums: make(map[rangeIndex]uint64),
		owners: make(map[rangeReplica]base.NodeID), buried: make(map[nodeRange]base.ReplicaID), moved: make(map[base.RangeID]movedAt),
		left: make(map[nodeRange]uint64), newest: make(map[base.RangeID]uint64), puts: make(map[rangeData]uint64), placed: make(map[keyspaceData]int64), offset: make(map[base.RangeID]int64),
		refused: make(map[uint64]bool), holders: make(map[base.RangeID]base.NodeID), without: make(map[nodeRange]without),
	}
}

// changed: a term has one leader.
func (r *rules) changed(p *process, c *raftgroup.StateChange) {
	r.w.heardOf(c.Descriptor)
	if !c.Destroyed && c.Replica != 0 {
		r.own(p.n.id, c.Range, c.Replica)
	}
	if g := c.Descriptor.GetGeneration(); g > r.moved[c.Range].generation {
		r.moved[c.Range] = movedAt{g, r.w.now}
	}
	if !c.Destroyed && c.Role == raftgroup.Candidate {
		r.listed(p, c.Range, "campaigns for")
	}
	if c.Destroyed || c.Role != raftgroup.Leader {
		return
	}
	at := rangeTerm{c.Range, c.Term}
	if old, ok := r.leaders[at]; !ok {
		r.leaders[at] = p.n.id
		r.w.count("elections")
	} else if old != p.n.id {
		r.w.violate("one leader a term", "%s and %s both led %s at term %d", old, p.n.id, c.Range, c.Term)
	}
	r.listed(p, c.Range, "leads")
}

// listed: who leads or campaigns is a voter of its own applied configuration.
func (r *rules) listed(p *process, id base.RangeID, what string) {
	st, ok := p.hand.Status(id)
	if !ok || st.Descriptor == nil {
		return
	}
	if rep := desc.Replica(st.Descriptor, st.Replica); rep == nil || rep.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
		r.w.violate("only voters campaign", "%s %s %s as replica %d, and its descriptor is %s", p.n.id, what, id, st.Replica, desc.Format(st.Descriptor))
	}
}

// effects sees a step's effects before they are carried out: what is durable at that moment is what the messages of the
// step may speak of.
func (r *rules) effects(p *process, eff *raftgroup.Effects) {
	for i := range eff.Messages {
		r.message(p, &eff.Messages[i])
	}
	for i := range eff.Appends {
		a := &eff.Appends[i]
		r.life(p, a)
		if n := len(a.Entries); n > 0 && a.OldLast > a.Entries[n-1].GetIndex() {
			r.ends = append(r.ends, rangeIndex{a.Range, a.Entries[n-1].GetIndex()})
		}
	}
	for i := range eff.Applies {
		r.applies(p, &eff.Applies[i])
	}
}

// passed: a log whose end was overwritten ends where the new entries do.
func (r *rules) passed(p *process) {
	for _, end := range r.ends {
		r.w.count("log ends checked")
		if _, err := p.eng.Get(keys.RaftLogEntry(end.id, end.index+1)); !errors.Is(err, engine.ErrNotFound) {
			r.w.violate("logs match", "%s: the log of %s was overwritten up to %d, and an entry behind that is still there: %v", p.n.id, end.id, end.index, err)
		}
	}
	r.ends = r.ends[:0]
}

// fresh: a linearizable read is served by a replica that has applied all that was committed when it was asked for. It
// returns the check to be made when the read is served.
func (r *rules) fresh(p *process, id base.RangeID) func() {
	committed := r.newest[id]
	return func() {
		r.w.count("reads held against the commit")
		if v := p.store.View(id); v != nil && v.AppliedIndex < committed {
			r.w.violate("reads are fresh", "%s serves a read of %s at %d, and %d was committed before it was asked for", p.n.id, id, v.AppliedIndex, committed)
		}
	}
}

// life: a replica id belongs to one node for ever, and one that was destroyed does not come again.
func (r *rules) life(p *process, a *raftgroup.Append) {
	key := nodeRange{p.n.id, a.Range}
	if a.Destroy != 0 {
		r.buried[key] = max(r.buried[key], a.Destroy)
		return
	}
	if a.ReplicaID == 0 {
		return
	}
	r.own(p.n.id, a.Range, a.ReplicaID)
	if a.ReplicaID < r.buried[key] {
		r.w.violate("one life a replica id", "%s brings replica %d of %s to life, and ids below %d are dead there", p.n.id, a.ReplicaID, a.Range, r.buried[key])
	}
}

// born: a split makes no replica whose id is dead on the node.
func (r *rules) born(p *process, id base.RangeID, replica uint64) {
	r.w.count("replicas born by splits")
	if _, err := p.eng.Get(keys.RaftReplicaID(id)); err == nil {
		r.w.count("born where a leader had spoken")
	}
	if raw, err := p.eng.Get(keys.RaftTombstone(id)); err == nil && be64(raw) > replica {
		r.w.violate("one life a replica id", "%s brings replica %d of %s to life by a split, and ids below %d are dead there", p.n.id, replica, id, be64(raw))
	}
}

// sworn: what a replica knew of terms and votes before a split made it stays.
func (r *rules) sworn(p *process, id base.RangeID, raw []byte) {
	before, after := &raftpb.HardState{}, &raftpb.HardState{}
	old, err := p.eng.Get(keys.RaftHardState(id))
	if err != nil || proto.Unmarshal(old, before) != nil || proto.Unmarshal(raw, after) != nil {
		return
	}
	if after.GetTerm() < before.GetTerm() {
		r.w.violate("terms only grow", "a split takes %s on %s from term %d back to %d", id, p.n.id, before.GetTerm(), after.GetTerm())
	}
}

func (r *rules) own(n base.NodeID, id base.RangeID, replica base.ReplicaID) {
	k := rangeReplica{id, replica}
	if owner, ok := r.owners[k]; ok && owner != n {
		r.w.violate("one life a replica id", "replica %d of %s is on %s and was on %s", replica, id, n, owner)
	}
	r.owners[k] = n
}

// message: what an answer says is on disk.
func (r *rules) message(p *process, m *raftgroup.Message) {
	d, ok := p.n.disk.(*mapDisk)
	if m.Raft == nil || !ok {
		return
	}
	if raw, err := d.eng.Synced(keys.RaftReplicaID(m.Range)); (err != nil || be64(raw) != uint64(m.FromReplica)) && !r.bornNow(d.eng, m) {
		r.w.violate("durable before spoken", "%s sends %s for %s as replica %d, and on disk is %x", p.n.id, m.Raft.GetType(), m.Range, m.FromReplica, raw)
	}
	if m.Raft.GetReject() || m.Raft.GetType() == raftpb.MsgAppResp && m.Raft.GetIndex() <= apply.InitialIndex {
		return // up to there a range's log was never written
	}
	t := m.Raft.GetType()
	if t != raftpb.MsgAppResp && t != raftpb.MsgVoteResp {
		return
	}
	r.w.count("answers held against the disk")
	hard := &raftpb.HardState{}
	if raw, err := d.eng.Synced(keys.RaftHardState(m.Range)); err == nil {
		if err := proto.Unmarshal(raw, hard); err != nil {
			r.w.violate("durable before spoken", "%s: HardState of %s: %v", p.n.id, m.Range, err)
		}
	}
	switch {
	case hard.GetTerm() < m.Raft.GetTerm():
		r.w.violate("durable before spoken", "%s sends %s of term %d for %s, and on disk is term %d", p.n.id, t, m.Raft.GetTerm(), m.Range, hard.GetTerm())
	case t == raftpb.MsgVoteResp && hard.GetTerm() == m.Raft.GetTerm() && hard.GetVote() != m.Raft.GetTo():
		r.w.violate("durable before spoken", "%s votes for %d at term %d of %s, and on disk is %d", p.n.id, m.Raft.GetTo(), hard.GetTerm(), m.Range, hard.GetVote())
	case t == raftpb.MsgAppResp && !onDisk(d.eng, m.Range, m.Raft.GetIndex(), 0):
		r.w.violate("durable before spoken", "%s takes entries of %s up to %d, and that one is not on disk", p.n.id, m.Range, m.Raft.GetIndex())
	}
}

// bornNow says whether a message is one of a replica that a split has made here, and that is not on disk yet: after a crash the
// split makes the same one again, for it is in a log that is. What the message says must be on disk all the same.
func (r *rules) bornNow(eng *engine.Mem, m *raftgroup.Message) bool {
	raw, err := eng.Get(keys.RaftReplicaID(m.Range))
	return m.Range >= firstCutOff && err == nil && be64(raw) == uint64(m.FromReplica)
}

// onDisk says whether a crash now would leave an entry of a replica: in the log, of the given term unless that is 0, or
// behind its beginning.
func onDisk(eng *engine.Mem, id base.RangeID, index, term uint64) bool {
	if raw, err := eng.Synced(keys.RaftTruncated(id)); index == 0 || err == nil && len(raw) >= 8 && be64(raw) >= index {
		return true
	}
	raw, err := eng.Synced(keys.RaftLogEntry(id, index))
	if err != nil {
		return false
	}
	e := &raftpb.Entry{}
	return proto.Unmarshal(raw, e) == nil && (term == 0 || e.GetTerm() == term)
}

func be64(b []byte) (v uint64) {
	for _, c := range b[:8] {
		v = v<<8 | uint64(c)
	}
	return v
}

// applies: every replica applies the same entry at an index; and, as long as the replicas of the range stay what they are,
// one that most of them have on disk.
func (r *rules) applies(p *process, a *raftgroup.Apply) {
	for _, e := range a.Entries {
		at := rangeIndex{a.Range, e.GetIndex()}
		sum := entrySum{e.GetTerm(), xxhash.Sum64(e.GetData())}
		r.w.note(noteApply, uint64(p.n.id), uint64(a.Range), e.GetIndex(), sum.term, sum.sum)
		if old, ok := r.entries[at]; !ok {
			r.entries[at] = sum
			r.newest[a.Range] = max(r.newest[a.Range], at.index)
			r.quorum(p, a.Range, e)
			r.once(a.Range, e)
		} else if old != sum {
			r.w.violate("logs match", "%s applies at %d of %s an entry of term %d, and another replica applied one of term %d there", p.n.id, at.index, a.Range, sum.term, old.term)
		}
	}
	r.w.result.Seen["entries applied"] += len(a.Entries)
}

// once: nobody carries a put out again whose outcome he does not know. (A put's value is its writer's alone; two deletions
// or compactions may be equal to the byte.)
func (r *rules) once(id base.RangeID, e *raftpb.Entry) {
	const proposalID = 16 // before the command
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) <= proposalID {
		return
	}
	at := rangeData{id, xxhash.Sum64(e.GetData()[proposalID:])}
	in := keyspaceData{r.w.byID[id].ks, at.sum}
	place := r.offset[id] + int64(e.GetIndex())
	r.placed[in] = max(place, r.placed[in]) // it was refused where it was applied before
	cmd := &kvpb.Command{}
	if proto.Unmarshal(e.GetData()[proposalID:], cmd) != nil {
		return
	}
	if s := cmd.GetSplit(); s != nil {
		r.offset[base.RangeID(s.RightRangeId)] = place - apply.InitialIndex
	}
	if m := cmd.GetMerge(); m != nil {
		// What comes behind the merge comes behind all that the right one did. (If it is refused, places are left out.)
		right := base.RangeID(m.Right.Descriptor_.RangeId)
		r.offset[id] = max(r.offset[id], r.offset[right]+int64(r.newest[right])-int64(e.GetIndex()))
	}
	if cmd.GetPut() == nil {
		return
	}
	if first, ok := r.puts[at]; ok && !r.refused[at.sum] {
		r.w.violate("carried out once", "the put that %s applied at %d is in its log again at %d", id, first, e.GetIndex())
	}
	r.puts[at] = e.GetIndex()
}

// calm is how long a range's replicas must have been the same for quorum to look.
const calm = 2 * time.Second

func (r *rules) quorum(p *process, id base.RangeID, e *raftpb.Entry) {
	if m := r.moved[id]; m.generation > 1 && r.w.now-m.at < calm || r.w.merged[id] {
		return // or its log is gone, where its keys are another's
	}
	st, ok := p.hand.Status(id)
	if !ok || st.Descriptor == nil || desc.Joint(st.Descriptor) || st.Descriptor.Generation < r.moved[id].generation {
		return // a node whose applier is stuck knows of older voters than those that commit
	}
	voters, have := 0, 0
	for _, rep := range st.Descriptor.Replicas {
		if rep.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
			continue
		}
		voters++
		n := r.w.node(base.NodeID(rep.NodeId))
		if n == nil {
			return
		}
		d, ok := n.disk.(*mapDisk)
		if !ok {
			return
		}
		if onDisk(d.eng, id, e.GetIndex(), e.GetTerm()) {
			have++
		}
	}
	r.w.count("commits held against the disks")
	if have <= voters/2 {
		r.w.violate("committed is durable", "%s applies entry %d/%d of %s, and %d of %d voters have it on disk", p.n.id, e.GetTerm(), e.GetIndex(), id, have, voters)
	}
}

// sumEvery: the checksum of a replica is taken at one in so many indexes, the same ones on every replica.
const sumEvery = 8

// applied: replicas are equal at equal applied indexes.
func (r *rules) applied(p *process) {
	r.tiling.applied(p)
	for _, id := range p.store.Ranges() {
		v := p.store.View(id)
		if mix(v.AppliedIndex^uint64(id)<<32)%sumEvery == 0 {
			r.compare(p.n, p.eng, id)
		}
	}
}

// compare holds a replica against what another was at the same index.
func (r *rules) compare(n *node, reader engine.Reader, id base.RangeID) {
	v, err := apply.ReadView(reader, id)
	if err != nil {
		r.w.violate("replicas are equal", "%s: %s cannot be read: %v", n.id, id, err)
		return
	}
	sum, err := apply.Checksum(reader, &v)
	if err != nil {
		r.w.violate("replicas are equal", "%s: %s has no checksum: %v", n.id, id, err)
		return
	}
	at := rangeIndex{id, v.AppliedIndex}
	r.w.note(noteChecksum, uint64(n.id), uint64(id), v.AppliedIndex, sum)
	if want, ok := r.sums[at]; !ok {
		r.sums[at] = sum
	} else if want != sum {
		r.w.violate("replicas are equal", "%s at %d of %s holds something else than another replica did there", n.id, v.AppliedIndex, id)
	} else {
		r.w.count("checksums compared")
	}
}

// died: the image that a crash left holds what the rules of the log want.
func (r *rules) died(n *node) {
	d, ok := n.disk.(*mapDisk)
	if !ok {
		return
	}
	r.w.count("crash images checked")
	for _, info := range r.w.ranges {
		delete(r.left, nodeRange{n.id, info.id})
	}
	for _, info := range r.w.ranges {
		if err := r.image(n, d.eng, info.id); err != nil {
			r.w.violate("crash image opens", "%s: %s: %v", n.id, info.id, err)
		}
	}
}

// started: what a process found is what the image held, and what was applied is committed.
func (r *rules) started(p *process) {
	for _, id := range p.store.Ranges() {
		st, ok := p.hand.Status(id)
		if !ok || st.Replica == 0 {
			continue
		}
		r.own(p.n.id, id, st.Replica)
		left := r.left[nodeRange{p.n.id, id}]
		if st.Applied < left || st.Commit < st.Applied {
			r.w.violate("commit never goes back", "%s starts %s with %d applied and %d committed; the crash left %d applied", p.n.id, id, st.Applied, st.Commit, left)
		}
	}
}

// image: the log begins at or before what is applied, ends at or behind it, has no gap, and its terms only grow up to the
// term of the HardState; the state is the one of its applied index.
func (r *rules) image(n *node, eng *engine.Mem, id base.RangeID) error {
	if _, err := eng.Get(keys.RaftReplicaID(id)); errors.Is(err, engine.ErrNotFound) {
		if _, err := eng.Get(keys.RangeDescriptor(id)); !errors.Is(err, engine.ErrNotFound) {
			return errors.New("a state and no replica id")
		}
		return nil
	}
	v, err := apply.ReadView(eng, id)
	if _, missing := eng.Get(keys.RangeDescriptor(id)); errors.Is(missing, engine.ErrNotFound) {
		return nil // it waits for its first snapshot
	}
	if err != nil {
		return err
	}
	r.left[nodeRange{n.id, id}] = v.AppliedIndex
	last, err := checkLog(eng, id)
	if err != nil {
		return err
	}
	if last.commit > last.index {
		return fmt.Errorf("the log ends at %d and %d is said to be committed", last.index, last.commit)
	}
	if last.truncated > v.AppliedIndex || v.AppliedIndex > last.index {
		return fmt.Errorf("the log is (%d, %d] and %d is applied", last.truncated, last.index, v.AppliedIndex)
	}
	if _, ok := r.sums[rangeIndex{id, v.AppliedIndex}]; ok {
		r.compare(n, eng, id)
	}
	return nil
}

type logEnd struct{ truncated, index, commit uint64 }

func checkLog(eng *engine.Mem, id base.RangeID) (logEnd, error) {
	raw, err := eng.Get(keys.RaftTruncated(id))
	if err != nil || len(raw) < 16 {
		return logEnd{}, fmt.Errorf("the truncated state: %x %w", raw, err)
	}
	end := logEnd{truncated: be64(raw), index: be64(raw)}
	term := be64(raw[8:])
	hard := &raftpb.HardState{}
	switch raw, err = eng.Get(keys.RaftHardState(id)); {
	case errors.Is(err, engine.ErrNotFound) && end.truncated == apply.InitialIndex:
		hard.Term, hard.Commit = new(term), new(end.truncated) // a range that was cut off begins without one
	case err != nil:
		return end, fmt.Errorf("HardState: %w", err)
	}
	if err := proto.Unmarshal(raw, hard); err != nil && len(raw) > 0 {
		return end, fmt.Errorf("HardState: %w", err)
	}
	end.commit = hard.GetCommit()
	span := keys.RaftLogSpan(id)
	it, err := eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return end, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		raw, err := it.Value()
		if err != nil {
			return end, err
		}
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(raw, e); err != nil {
			return end, err
		}
		if e.GetIndex() != end.index+1 || e.GetTerm() < term || e.GetTerm() > hard.GetTerm() {
			return end, fmt.Errorf("entry %d/%d follows %d/%d, and the term is %d", e.GetTerm(), e.GetIndex(), term, end.index, hard.GetTerm())
		}
		end.index, term = e.GetIndex(), e.GetTerm()
	}
	return end, it.Error()
}

// sortedKeys are a map's keys in order: nothing in a run may rest on a map's own order.
func sortedKeys[K interface{ ~uint64 | ~int | ~string }, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

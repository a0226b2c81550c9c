package store

import (
	"runtime/debug"
	"slices"
	"sync/atomic"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// replica is the state machine of one local replica, and what of it is shown to readers. Of a cold one all is nil, and is
// read from the engine when it is wanted.
type replica struct {
	sm   *apply.Replica                 // the applier's
	view atomic.Pointer[apply.View]     // after some applied index: everything it says is visible in the engine
	gate atomic.Pointer[raftgroup.Gate] // of a leader that may read under a lease
	// committed is what a leader with a gate knows to be committed: what any follower can have applied.
	committed atomic.Uint64
	load      atomic.Pointer[tally] // what is served of it; nil while it is not in use
}

// publish shows the state machine's state to readers, and says whether a compaction moved its mark.
func (r *replica) publish() (compacted bool) {
	v := r.sm.View()
	old := r.view.Swap(&v)
	return old != nil && old.Counters.Compacted != v.Counters.Compacted
}

// localRanges lists the ranges that have a replica in the store, in order.
func localRanges(r engine.Reader) ([]base.RangeID, error) {
	span := keys.RaftReplicaIDSpan()
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var ids []base.RangeID
	for ok := it.First(); ok; ok = it.Next() {
		id, ok := keys.DecodeRaftReplicaID(it.Key())
		if !ok {
			return nil, &base.Corruption{Where: "list of replicas", Cause: errNoReplica}
		}
		ids = append(ids, id)
	}
	return ids, it.Error()
}

// load reads a replica's state machine from the engine and shows it. A replica that never had a snapshot has none.
func (s *Store) load(id base.RangeID) error {
	sm, err := apply.Load(s.eng, id)
	if err != nil || sm == nil {
		return err
	}
	r := &replica{sm: sm}
	r.publish()
	s.mu.Lock()
	s.replicas[id] = r
	s.mu.Unlock()
	s.replaced(id)
	return nil
}

func (s *Store) forget(id base.RangeID) {
	s.mu.Lock()
	delete(s.replicas, id)
	delete(s.absorbed, id)
	s.mu.Unlock()
	s.replaced(id)
}

func (s *Store) replica(id base.RangeID) *replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.replicas[id]
}

// onlyVoter says whether this node holds the range's only voter: it need not wait for an election timer.
func (s *Store) onlyVoter(id base.RangeID) bool {
	r := s.replica(id)
	if r == nil {
		return false
	}
	voters := 0
	mine := false
	for _, rep := range s.viewOf(id, r).Descriptor.GetReplicas() {
		if rep.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
			voters++
			mine = mine || base.NodeID(rep.NodeId) == s.node
		}
	}
	return voters == 1 && mine
}

// View returns the local replica's state; nil if there is no (initialised) replica.
func (s *Store) View(id base.RangeID) *apply.View {
	if r := s.replica(id); r != nil {
		return s.viewOf(id, r)
	}
	return nil
}

// Has says whether there is an initialised replica of the range here.
func (s *Store) Has(id base.RangeID) bool { return s.replica(id) != nil }

// viewOf is the state of a replica; nil if it was removed a moment ago. That of a cold one is read each time: whoever wants
// more of it than a look has its group built again, and with it this.
func (s *Store) viewOf(id base.RangeID, r *replica) *apply.View {
	if v := r.view.Load(); v != nil {
		return v
	}
	snap := s.eng.NewSnapshot()
	defer snap.Close()
	v, err := apply.ReadView(snap, id)
	if err != nil {
		return nil
	}
	return &v
}

// cool drops what a cold replica has in memory. Everything is applied, and the applier has nothing of it.
func (s *Store) cool(id base.RangeID) {
	r := s.replica(id)
	if r == nil {
		return
	}
	v := r.view.Swap(nil)
	r.sm = nil
	r.load.Store(nil)
	s.cooled.Add(1)
	s.mu.Lock()
	if st, ok := s.statuses[id]; ok {
		st.Descriptor, st.Reason = nil, ""
		s.statuses[id] = st
	}
	s.mu.Unlock()
	if v != nil {
		s.cfg.OnCold(v.Descriptor)
	}
}

// giveBackAfter is how many replicas go cold before their memory is given back to the machine: some megabytes.
const giveBackAfter = 1000

// giveBack returns the memory of many replicas that went cold. The runtime would keep it for minutes on an idle node.
func (s *Store) giveBack() {
	if s.cooled.Load() >= giveBackAfter {
		s.cooled.Store(0)
		debug.FreeOSMemory()
	}
}

// warm reads a replica's state machine again. It is the applier's to call.
func (s *Store) warm(id base.RangeID, r *replica) error {
	sm, err := apply.Load(s.eng, id)
	if err != nil {
		return err
	}
	if sm == nil {
		return &base.Corruption{Where: id.String(), Cause: errNoReplica}
	}
	r.sm = sm
	r.publish()
	return nil
}

// Ranges lists the ranges that have an initialised replica here, in order.
func (s *Store) Ranges() []base.RangeID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make([]base.RangeID, 0, len(s.replicas))
	for id := range s.replicas {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// State returns the newest role, term and leader of the local replica.
func (s *Store) State(id base.RangeID) (raftgroup.StateChange, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st, ok := s.statuses[id]
	return st, ok
}

// changed keeps and passes on what a loop says of a replica.
func (s *Store) changed(c *raftgroup.StateChange) {
	s.mu.Lock()
	before, after := s.statuses[c.Range].Descriptor, c.Descriptor
	if c.Destroyed {
		after = nil
		delete(s.statuses, c.Range)
	} else {
		s.statuses[c.Range] = *c
	}
	s.mu.Unlock()
	if !c.Thawed { // a cold replica's nodes were counted on
		s.supports.shares(before, after)
	}
	s.cfg.OnChange(*c)
}

package change_test

import (
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// world is a range as its leader would see it: enough of Raft to carry out steps.
type world struct {
	d      *metapb.RangeDescriptor
	leader base.ReplicaID
	last   uint64
	match  map[base.ReplicaID]uint64
	down   []base.NodeID
}

func newWorld(d *metapb.RangeDescriptor, down ...base.NodeID) *world {
	w := &world{d: d, last: 100_000, match: map[base.ReplicaID]uint64{}, down: down}
	for _, r := range d.Replicas {
		if !w.isDown(r) {
			w.match[base.ReplicaID(r.ReplicaId)] = w.last
		}
	}
	w.elect()
	return w
}

func (w *world) isDown(r *metapb.Replica) bool { return slices.Contains(w.down, base.NodeID(r.NodeId)) }

// elect makes the first live voter the leader, if the present one cannot lead.
func (w *world) elect() {
	if r := desc.Replica(w.d, w.leader); r != nil && !w.isDown(r) {
		return
	}
	w.leader = 0
	for _, r := range w.d.Replicas {
		if inNew, _ := desc.Votes(r.Role); inNew && !w.isDown(r) && w.match[base.ReplicaID(r.ReplicaId)] == w.last {
			w.leader = base.ReplicaID(r.ReplicaId)
			return
		}
	}
}

func (w *world) observe() change.Observed {
	st := &raftgroup.Status{Role: raftgroup.Leader, Replica: w.leader, Last: w.last}
	for _, r := range w.d.Replicas {
		p := raftgroup.Progress{Replica: base.ReplicaID(r.ReplicaId), Match: w.match[base.ReplicaID(r.ReplicaId)], Recent: !w.isDown(r)}
		switch {
		case w.isDown(r):
			p.State = "probe"
		case p.Match == 0:
			p.State = "snapshot"
		default:
			p.State = "replicate"
		}
		st.Progress = append(st.Progress, p)
	}
	return change.Observe(st, w.down)
}

// do carries a step out; a step that waits lets the replicas that are up catch up. It says whether anything changed.
func (w *world) do(s change.Step) bool {
	switch {
	case s.Propose != nil:
		w.d = s.Propose
	case s.Transfer != 0:
		w.leader = s.Transfer
	default:
		moved := false
		for _, r := range w.d.Replicas {
			if id := base.ReplicaID(r.ReplicaId); !w.isDown(r) && w.match[id] != w.last {
				w.match[id], moved = w.last, true
			}
		}
		return moved
	}
	w.elect()
	return true
}

// quorum says whether what is up decides in both halves of the configuration.
func (w *world) quorum() bool {
	var n, up [2]int
	for _, r := range w.d.Replicas {
		inNew, inOld := desc.Votes(r.Role)
		for half, in := range []bool{inNew, inOld} {
			if in {
				n[half]++
				if !w.isDown(r) {
					up[half]++
				}
			}
		}
	}
	return 2*up[0] > n[0] && 2*up[1] > n[1]
}

package store

import (
	"context"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// HandOver asks every range that this node leads to hand its leadership to the voter that has the most of the log, and
// returns how many such ranges there still are. A range without another voter in reach keeps its leader.
func (s *Store) HandOver(ctx context.Context) int {
	led := 0
	for _, id := range s.Ranges() {
		st, ok, err := s.Status(ctx, id)
		if err != nil || !ok || st.Role != raftgroup.Leader {
			continue
		}
		if to := successor(&st); to != 0 {
			led++
			s.Transfer(id, to)
		}
	}
	return led
}

// successor is the voter to lead next, 0 if there is none in reach.
func successor(st *raftgroup.Status) base.ReplicaID {
	var best raftgroup.Progress
	for _, p := range st.Progress {
		if p.Replica != st.Replica && p.Recent && votes(st.Descriptor, p.Replica) && (best.Replica == 0 || p.Match > best.Match) {
			best = p
		}
	}
	return best.Replica
}

func votes(d *metapb.RangeDescriptor, id base.ReplicaID) bool {
	for _, r := range d.GetReplicas() {
		if base.ReplicaID(r.ReplicaId) == id {
			return r.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER || r.Role == metapb.ReplicaRole_REPLICA_ROLE_INCOMING
		}
	}
	return false
}

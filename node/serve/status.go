package serve

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// answer is what one node said of itself, or why it did not.
type answer struct {
	record *metapb.NodeRecord
	status *clusterpb.NodeStatusResponse
	err    error
}

// collect asks all nodes for their status at once, each for a bounded time, and merges what came. It is a picture
// of a moment, not a consistent one: what cannot be reached is said to be so.
func (c *Config) collect(ctx context.Context, ranges bool) *clusterpb.StatusResponse {
	own := c.Backend.Identity()
	nodes := slices.DeleteFunc(slices.Clone(c.Backend.Members()), func(n *metapb.NodeRecord) bool {
		return base.NodeID(n.NodeId) == own.NodeID
	})
	nodes = append(nodes, c.ownRecord())
	slices.SortFunc(nodes, func(a, b *metapb.NodeRecord) int { return cmp.Compare(a.NodeId, b.NodeId) })

	answers := make([]answer, len(nodes))
	var g errgroup.Group
	g.SetLimit(base.StatusFanout)
	for i, n := range nodes {
		answers[i].record = n
		if gone(n) {
			answers[i].err = errGone
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, c.StatusTimeout)
			defer cancel()
			if base.NodeID(n.NodeId) == own.NodeID {
				answers[i].status, answers[i].err = c.nodeStatus(ctx, ranges)
			} else {
				answers[i].status, answers[i].err = c.askNode(ctx, n, ranges)
			}
			return nil
		})
	}
	_ = g.Wait() // each answer carries its own error
	return merge(own.ClusterID, answers)
}

var errGone = fmt.Errorf("it is no longer part of the cluster")

func gone(n *metapb.NodeRecord) bool {
	return n.State == metapb.NodeState_NODE_STATE_LEFT || n.State == metapb.NodeState_NODE_STATE_REPLACED
}

func (c *Config) askNode(ctx context.Context, n *metapb.NodeRecord, ranges bool) (*clusterpb.NodeStatusResponse, error) {
	conn, err := c.Dial(n.Address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := clusterpb.NewClusterClient(conn).NodeStatus(ctx, &clusterpb.NodeStatusRequest{Ranges: ranges})
	if err != nil {
		return nil, err
	}
	if resp.Node.GetNodeId() != n.NodeId {
		return nil, fmt.Errorf("%s answers at %s", base.NodeID(resp.Node.GetNodeId()), n.Address)
	}
	return resp, nil
}

// merge makes one picture of the nodes' answers. It is pure.
func merge(cluster uint64, answers []answer) *clusterpb.StatusResponse {
	resp := &clusterpb.StatusResponse{ClusterId: cluster}
	said := make(map[base.RangeID][]replicaSaid)
	for _, a := range answers {
		e := &clusterpb.NodeEntry{Node: a.record, Reachable: a.err == nil, Supports: a.status.GetSupports()}
		if a.err != nil {
			e.Error = status.Convert(a.err).Message()
		}
		resp.Nodes = append(resp.Nodes, e)
		for _, r := range a.status.GetReplicas() {
			if r.Descriptor_ == nil {
				continue // a replica that has taken no snapshot yet knows of no range
			}
			id := base.RangeID(r.Descriptor_.GetRangeId())
			said[id] = append(said[id], replicaSaid{node: a.record.NodeId, ReplicaStatus: r})
		}
	}
	for _, replicas := range said {
		resp.Ranges = append(resp.Ranges, mergeRange(replicas))
	}
	slices.SortFunc(resp.Ranges, func(a, b *clusterpb.RangeEntry) int {
		x, y := a.Descriptor_, b.Descriptor_
		return cmp.Or(cmp.Compare(x.KeyspaceId, y.KeyspaceId), bytes.Compare(x.Start, y.Start),
			cmp.Compare(x.RangeId, y.RangeId))
	})
	return resp
}

// replicaSaid is what a node said of its replica.
type replicaSaid struct {
	node uint64
	*clusterpb.ReplicaStatus
}

// mergeRange: the newest descriptor counts, and the leader of the highest term that anybody knows one for. A
// replica at a higher term without a leader is a candidate, and its term is shown only if there is no leader.
func mergeRange(replicas []replicaSaid) *clusterpb.RangeEntry {
	e := &clusterpb.RangeEntry{}
	var leaderTerm, highest uint64
	var leader *clusterpb.ReplicaStatus // what the leader itself said, if it could be asked
	byReplica := make(map[uint64]*clusterpb.ReplicaStatus)
	for _, r := range replicas {
		byReplica[r.ReplicaId] = r.ReplicaStatus
		highest = max(highest, r.Term)
		if e.Descriptor_ == nil || r.Descriptor_.GetGeneration() > e.Descriptor_.Generation {
			e.Descriptor_ = r.Descriptor_
		}
		if id := leaderOf(r.ReplicaStatus); id != 0 && r.Term > leaderTerm {
			leaderTerm, e.LeaderReplica = r.Term, id
		}
	}
	for _, r := range replicas {
		if r.Leader && r.Term == leaderTerm {
			leader = r.ReplicaStatus
			e.LeaderReplica = r.ReplicaId
		}
	}
	e.Term = cmp.Or(leaderTerm, highest)
	e.Keyspace = base.KeyspaceID(e.Descriptor_.GetKeyspaceId()).String()
	e.LeaderNode = nodeOf(e.Descriptor_, e.LeaderReplica)
	e.Lease, e.Rate = leader.GetLease(), leader.GetRate()
	match := matches(leader)
	for _, d := range e.Descriptor_.GetReplicas() {
		entry := &clusterpb.ReplicaEntry{Node: d.NodeId, Replica: d.ReplicaId, Role: d.Role, Match: match[d.ReplicaId]}
		if own := byReplica[d.ReplicaId]; own != nil {
			entry.Applied, entry.Reachable = own.Applied, true
		}
		e.Replicas = append(e.Replicas, entry)
	}
	return e
}

// matches is what the leader knows to be in each replica's log; its own log is there as far as it goes.
func matches(leader *clusterpb.ReplicaStatus) map[uint64]uint64 {
	if leader == nil {
		return nil
	}
	m := map[uint64]uint64{leader.ReplicaId: leader.LastIndex}
	for _, p := range leader.Progress {
		m[p.ReplicaId] = max(m[p.ReplicaId], p.Match)
	}
	return m
}

// leaderOf is whom a replica takes for the leader; 0: nobody.
func leaderOf(r *clusterpb.ReplicaStatus) uint64 {
	if r.Leader {
		return r.ReplicaId
	}
	return r.LeaderReplica
}

func replicaIn(d *metapb.RangeDescriptor, replica uint64) *metapb.Replica {
	for _, r := range d.GetReplicas() {
		if r.ReplicaId == replica {
			return r
		}
	}
	return nil
}

func nodeOf(d *metapb.RangeDescriptor, replica uint64) uint64 {
	return replicaIn(d, replica).GetNodeId()
}

func roleOf(d *metapb.RangeDescriptor, replica uint64) metapb.ReplicaRole {
	return replicaIn(d, replica).GetRole()
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/allocator/simulate"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// loadCluster reads the cluster at --host into a scenario. Only what every node of a cluster answers is needed; a node that knows
// more of loads and policies is asked for it.
func loadCluster(ctx context.Context, host *hostFlag, s *simulate.Scenario) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := host.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	cl := clusterpb.NewClusterClient(conn)
	state, err := cl.Status(ctx, &clusterpb.StatusRequest{Ranges: true})
	if err != nil {
		return host.explain("sim", err)
	}
	listed, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
	if err != nil {
		return host.explain("sim", err)
	}
	infos, err := cl.ListNodes(ctx, &clusterpb.ListNodesRequest{})
	if status.Code(err) == codes.Unimplemented {
		infos = &clusterpb.ListNodesResponse{}
		for _, n := range state.Nodes {
			infos.Nodes = append(infos.Nodes, &clusterpb.NodeInfo{Record: n.Node})
		}
	} else if err != nil {
		return host.explain("sim", err)
	}
	l := liveCluster{loads: map[uint64]*metapb.NodeLoad{}, live: simulate.Live{Names: map[base.KeyspaceID]string{}}}
	l.nodes(infos)
	l.ranges(state, listed)
	if err := l.policies(ctx, cl); err != nil {
		return host.explain("sim", err)
	}
	if err := s.Load(l.live); err != nil {
		return &usageError{[]error{fmt.Errorf("--from-cluster: %w", err)}}
	}
	return nil
}

// liveCluster gathers what the cluster says.
type liveCluster struct {
	live  simulate.Live
	loads map[uint64]*metapb.NodeLoad
}

func (l *liveCluster) nodes(infos *clusterpb.ListNodesResponse) {
	for _, info := range infos.Nodes {
		r := info.Record
		if r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED {
			continue
		}
		l.loads[r.NodeId] = info.Health.GetLoad()
		n := simulate.Node{ID: base.NodeID(r.NodeId), Attributes: r.Attributes, Disk: int64(r.DiskBytes), State: nodeStates[r.State],
			Cordoned: r.Cordoned, Draining: r.Draining}
		for _, t := range r.Locality {
			n.Locality = append(n.Locality, allocator.Tier{Key: t.Key, Value: t.Value})
		}
		l.live.Nodes = append(l.live.Nodes, n)
	}
}

var nodeStates = map[metapb.NodeState]allocator.NodeState{
	metapb.NodeState_NODE_STATE_JOINING: allocator.Joining, metapb.NodeState_NODE_STATE_ACTIVE: allocator.Active,
	metapb.NodeState_NODE_STATE_SUSPECT: allocator.Suspect, metapb.NodeState_NODE_STATE_FAILED: allocator.Failed,
	metapb.NodeState_NODE_STATE_LEAVING: allocator.Leaving,
}

// ranges takes the descriptors of the index, and of the range that it does not list, root; leaders and rates are as nodes say.
func (l *liveCluster) ranges(state *clusterpb.StatusResponse, listed *clusterpb.ListRangesResponse) {
	seen := map[uint64]*clusterpb.RangeEntry{}
	descriptors := map[uint64]*clusterpb.IndexedRange{}
	for _, r := range state.Ranges {
		seen[r.Descriptor_.GetRangeId()] = r
		descriptors[r.Descriptor_.GetRangeId()] = &clusterpb.IndexedRange{Descriptor_: r.Descriptor_, Keyspace: r.Keyspace}
	}
	for _, r := range listed.Ranges {
		descriptors[r.Descriptor_.GetRangeId()] = r
	}
	for id, r := range descriptors {
		d, entry := r.Descriptor_, seen[id]
		out := allocator.Range{ID: base.RangeID(id), Keyspace: base.KeyspaceID(d.KeyspaceId), Generation: base.Generation(d.Generation),
			Leader: base.NodeID(entry.GetLeaderNode()), Load: entry.GetRate(), Bytes: l.bytes(d)}
		for _, p := range d.Replicas {
			out.Replicas = append(out.Replicas, allocator.Replica{Node: base.NodeID(p.NodeId), Role: replicaRoles[p.Role]})
		}
		l.live.Ranges = append(l.live.Ranges, out)
		l.live.Names[out.Keyspace] = r.Keyspace
	}
	slices.SortFunc(l.live.Ranges, func(a, b allocator.Range) int { return cmp.Compare(a.ID, b.ID) })
}

var replicaRoles = map[metapb.ReplicaRole]allocator.Role{
	metapb.ReplicaRole_REPLICA_ROLE_VOTER: allocator.Voter, metapb.ReplicaRole_REPLICA_ROLE_LEARNER: allocator.Learner,
	metapb.ReplicaRole_REPLICA_ROLE_INCOMING: allocator.Incoming, metapb.ReplicaRole_REPLICA_ROLE_OUTGOING: allocator.Outgoing,
}

// bytes guesses a range's size: the mean of a replica on its nodes.
func (l *liveCluster) bytes(d *metapb.RangeDescriptor) int64 {
	sum, n := uint64(0), uint64(0)
	for _, p := range d.Replicas {
		if load := l.loads[p.NodeId]; load.GetReplicas() > 0 {
			sum, n = sum+load.Bytes/load.Replicas, n+1
		}
	}
	if n == 0 {
		return 0
	}
	return int64(sum / n)
}

// policies asks for what somebody set. A node that knows no policies has the defaults.
func (l *liveCluster) policies(ctx context.Context, cl clusterpb.ClusterClient) error {
	names := map[base.KeyspaceID]string{0: ""} // the cluster's own
	maps.Copy(names, l.live.Names)
	var stored []*metapb.PolicyRecord
	for _, id := range slices.Sorted(maps.Keys(names)) {
		resp, err := cl.GetPolicy(ctx, &clusterpb.GetPolicyRequest{Keyspace: names[id]})
		if status.Code(err) == codes.Unimplemented {
			break
		} else if err != nil {
			return err
		}
		if resp.Stored != nil {
			stored = append(stored, resp.Stored)
		}
	}
	p := placement.Policies(stored)
	l.live.Policy = &p
	return nil
}

package serve

import (
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

func descriptor(generation uint64, replicas ...uint64) *metapb.RangeDescriptor {
	d := &metapb.RangeDescriptor{RangeId: uint64(base.RangeDefault), KeyspaceId: uint64(base.KeyspaceDefault), Generation: generation}
	for _, r := range replicas { // replica 11 is on node 1, and so on
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: r, NodeId: r - 10, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}

// answers are what three nodes say of one range: replica 11 leads at term 5 and node 3 is a term behind.
func threeAnswers() []answer {
	d := descriptor(2, 11, 12, 13)
	says := func(node uint64, r *clusterpb.ReplicaStatus) answer {
		r.ReplicaId = node + 10
		if r.Descriptor_ == nil {
			r.Descriptor_ = d
		}
		return answer{record: &metapb.NodeRecord{NodeId: node, Address: fmt.Sprintf("h%d:1", node)},
			status: &clusterpb.NodeStatusResponse{Replicas: []*clusterpb.ReplicaStatus{r}}}
	}
	return []answer{
		says(1, &clusterpb.ReplicaStatus{Term: 5, Leader: true, LeaderReplica: 11, Applied: 98, LastIndex: 100, Rate: 250,
			Progress: []*clusterpb.Progress{{ReplicaId: 12, Match: 99}, {ReplicaId: 13, Match: 40}}}),
		says(2, &clusterpb.ReplicaStatus{Term: 5, LeaderReplica: 11, Applied: 97}),
		says(3, &clusterpb.ReplicaStatus{Term: 4, Leader: true, LeaderReplica: 13, Applied: 40, Rate: 700, Descriptor_: descriptor(1, 13)}),
	}
}

func TestMergeTakesTheNewest(t *testing.T) {
	got := merge(0xc1, threeAnswers()).Ranges
	voter := metapb.ReplicaRole_REPLICA_ROLE_VOTER
	want := &clusterpb.RangeEntry{Descriptor_: descriptor(2, 11, 12, 13), Keyspace: "default", LeaderNode: 1, LeaderReplica: 11, Term: 5, Rate: 250,
		Replicas: []*clusterpb.ReplicaEntry{
			{Node: 1, Replica: 11, Role: voter, Match: 100, Applied: 98, Reachable: true},
			{Node: 2, Replica: 12, Role: voter, Match: 99, Applied: 97, Reachable: true},
			{Node: 3, Replica: 13, Role: voter, Match: 40, Applied: 40, Reachable: true},
		}}
	if len(got) != 1 || !proto.Equal(got[0], want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestMergeWithoutTheLeader(t *testing.T) {
	answers := threeAnswers()
	answers[0] = answer{record: answers[0].record, err: fmt.Errorf("gone")}
	resp := merge(0xc1, answers)
	if n := resp.Nodes[0]; n.Reachable || n.Error != "gone" {
		t.Errorf("node 1: %v", n)
	}
	r := resp.Ranges[0]
	if r.LeaderNode != 1 || r.Term != 5 {
		t.Errorf("the leader as others know it: node %d at term %d, want 1 at 5", r.LeaderNode, r.Term)
	}
	if p := r.Replicas[0]; p.Reachable || p.Applied != 0 || p.Match != 0 {
		t.Errorf("the replica that nobody could ask: %v", p)
	}
}

func TestMergeWithoutALeader(t *testing.T) {
	answers := threeAnswers()[1:2]
	answers[0].status.Replicas[0].LeaderReplica = 0
	if r := merge(0xc1, answers).Ranges[0]; r.LeaderNode != 0 || r.Term != 5 {
		t.Errorf("leader n%d at term %d, want none at 5", r.LeaderNode, r.Term)
	}
}

// Five nodes: two answer, at the third's address is another one, the fourth was replaced, the fifth is gone.
func TestStatusAsksEveryNode(t *testing.T) {
	var ls []net.Listener
	var members []*metapb.NodeRecord
	for i := range 5 {
		ls = append(ls, listen(t))
		members = append(members, &metapb.NodeRecord{NodeId: uint64(i + 1), Address: ls[i].Addr().String(),
			State: metapb.NodeState_NODE_STATE_ACTIVE})
	}
	members[3].State = metapb.NodeState_NODE_STATE_REPLACED
	answers := threeAnswers()
	serveNode := func(at int, id base.NodeID, a answer) *grpc.ClientConn {
		b := memberBackend()
		b.id.NodeID, b.id.Address = id, members[at].Address
		b.members, b.replicas = members, a.status.Replicas
		_, conn := serveOn(t, ls[at], Config{Backend: b})
		return conn
	}
	cl := clusterpb.NewClusterClient(serveNode(0, 1, answers[0]))
	serveNode(1, 2, answers[1])
	serveNode(2, 9, answers[2])
	for _, l := range ls[3:] {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := cl.Status(t.Context(), &clusterpb.StatusRequest{Ranges: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false, false, false} {
		n := resp.Nodes[i]
		if n.Reachable != want || n.Node.NodeId != uint64(i+1) || (n.Error == "") != want {
			t.Errorf("node %d: %v", i+1, n)
		}
	}
	if len(resp.Ranges) != 1 || resp.Ranges[0].LeaderNode != 1 || resp.Ranges[0].Replicas[2].Reachable {
		t.Errorf("ranges: %v", resp.Ranges)
	}
	if resp, err = cl.Status(t.Context(), &clusterpb.StatusRequest{}); err != nil || len(resp.Ranges) != 0 || len(resp.Nodes) != 5 {
		t.Errorf("without ranges: %v, %v", resp, err)
	}
}

func TestMaintenanceStatus(t *testing.T) {
	b := memberBackend()
	b.replicas = threeAnswers()[1].status.Replicas
	b.replicas[0].Commit, b.replicas[0].Revision = 99, fakeRevision
	got, err := pb.NewMaintenanceClient(serveFake(t, b)).Status(t.Context(), &pb.StatusRequest{})
	want := &pb.StatusResponse{Header: wantHeader, Version: EtcdVersion, StorageVersion: EtcdVersion, DbSize: 1000, DbSizeInUse: 100,
		Leader: 1, RaftIndex: 99, RaftTerm: 5, RaftAppliedIndex: 97, DowngradeInfo: &pb.DowngradeInfo{}}
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
}

func TestMaintenanceStatusWithoutAReplica(t *testing.T) {
	got, err := pb.NewMaintenanceClient(serveFake(t, memberBackend())).Status(t.Context(), &pb.StatusRequest{})
	if err != nil || got.Leader != 0 || len(got.Errors) != 1 || got.Errors[0] != "etcdserver: no leader" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMemberList(t *testing.T) {
	b := memberBackend()
	records := []*metapb.NodeRecord{
		{NodeId: 1, Address: "h1:1", State: metapb.NodeState_NODE_STATE_ACTIVE},
		{NodeId: 2, Address: "h2:1", State: metapb.NodeState_NODE_STATE_REPLACED},
		{NodeId: 3, Address: "h2:1", State: metapb.NodeState_NODE_STATE_JOINING},
	}
	b.members = records[:1]
	for _, r := range records {
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.sys = append(b.sys, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "node/%d", r.NodeId), Value: raw})
	}
	one := &pb.Member{ID: 1, Name: "n1", PeerURLs: []string{"http://h1:1"}, ClientURLs: []string{"http://h1:1"}}
	three := &pb.Member{ID: 3, PeerURLs: []string{"http://h2:1"}}
	cl := pb.NewClusterClient(serveFake(t, b))
	for _, c := range []struct {
		linearizable bool
		want         []*pb.Member
	}{{false, []*pb.Member{one}}, {true, []*pb.Member{one, three}}} {
		got, err := cl.MemberList(t.Context(), &pb.MemberListRequest{Linearizable: c.linearizable})
		if err != nil || !proto.Equal(&pb.MemberListResponse{Members: got.Members}, &pb.MemberListResponse{Members: c.want}) {
			t.Errorf("linearizable %v: %v, %v, want %v", c.linearizable, got, err, c.want)
		}
	}
}

// A replica that has taken no snapshot yet knows of no range: it is left out, beside others and alone.
func TestMergeReplicaWithoutDescriptor(t *testing.T) {
	answers := threeAnswers()
	want := len(merge(0xc1, answers).Ranges)
	for i := range answers {
		if s := answers[i].status; s != nil {
			s.Replicas = append(s.Replicas, &clusterpb.ReplicaStatus{ReplicaId: 9}, &clusterpb.ReplicaStatus{ReplicaId: 10})
		}
	}
	if got := len(merge(0xc1, answers).Ranges); got != want {
		t.Errorf("%d ranges, want %d", got, want)
	}
}

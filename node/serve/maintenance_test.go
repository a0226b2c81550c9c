package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// inShards is a request for the keyspace that fakeBackend knows beside default.
func inShards(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, "shards")
}

func TestHashKV(t *testing.T) {
	cl := pb.NewMaintenanceClient(serveFake(t, memberBackend()))
	for ks, ctx := range map[base.KeyspaceID]context.Context{base.KeyspaceDefault: t.Context(), 100: inShards(t.Context())} {
		got, err := cl.HashKV(ctx, &pb.HashKVRequest{Revision: 7})
		want := &pb.HashKVResponse{Header: wantHeader, Hash: uint32(ks), HashRevision: 7, CompactRevision: 3}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", ks, got, err, want)
		}
	}
}

func TestDefragment(t *testing.T) {
	b := memberBackend()
	cl := pb.NewMaintenanceClient(serveFake(t, b))
	for _, ctx := range []context.Context{t.Context(), inShards(t.Context())} {
		if resp, err := cl.Defragment(ctx, &pb.DefragmentRequest{}); err != nil || resp.Header.GetMemberId() != 1 {
			t.Errorf("%v, %v", resp, err)
		}
	}
	if got := fmt.Sprint(b.defragmented); got != fmt.Sprint([]base.KeyspaceID{base.KeyspaceDefault, 100}) {
		t.Errorf("of %s", got)
	}
}

// What takes as long as there is data has the time that its asker has; everything else of etcd's has an end.
func TestLongRequestsHaveNoTimeoutOfTheServer(t *testing.T) {
	cfg := Config{Backend: memberBackend(), Membership: fakeMembership{}, RequestTimeout: time.Nanosecond}
	_, conn := serveOn(t, listen(t), cfg)
	cl := pb.NewMaintenanceClient(conn)
	if _, err := cl.Defragment(t.Context(), &pb.DefragmentRequest{}); err != nil {
		t.Error(err)
	}
	for method, want := range map[string]bool{pb.Maintenance_HashKV_FullMethodName: true, pb.Maintenance_Defragment_FullMethodName: true,
		pb.Maintenance_Status_FullMethodName: false, pb.KV_Put_FullMethodName: false} {
		if long(method) != want {
			t.Errorf("%s: %v", method, !want)
		}
	}
}

func TestMoveLeader(t *testing.T) {
	l1, l2 := listen(t), listen(t)
	members := []*metapb.NodeRecord{{NodeId: 1, Address: l1.Addr().String()}, {NodeId: 2, Address: l2.Addr().String()}, {NodeId: 3, Address: "h3:1"}}
	d := descriptor(5, 11, 12, 13) // as operator.Descriptor says, and one more
	d.Replicas[0].Role = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	leader, other := newOperator(t, 2, members), newOperator(t, 1, members)
	leader.where, other.where = Where{Range: d, Leader: 2}, Where{Range: d, Leader: 2}
	_, conn1 := serveOn(t, l1, Config{Backend: other.fakeBackend, Operator: other})
	_, conn2 := serveOn(t, l2, Config{Backend: leader.fakeBackend, Operator: leader})
	cl := pb.NewMaintenanceClient(conn2)
	refused := func(what string, want string, cl pb.MaintenanceClient, ctx context.Context, to uint64) {
		t.Helper()
		_, err := cl.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
		if st := status.Convert(err); st.Code() != codes.FailedPrecondition || st.Message() != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	refused("of a node that does not lead", "etcdserver: not leader", pb.NewMaintenanceClient(conn1), t.Context(), 3)
	refused("to a learner", "etcdserver: bad leader transferee", cl, t.Context(), 1)
	refused("to nobody", "etcdserver: bad leader transferee", cl, t.Context(), 99)
	refused("in a sharded keyspace", "etcdserver: the keyspace is sharded, and each of its ranges has a leader of its own: see cairn range transfer",
		cl, inShards(t.Context()), 3)
	if len(leader.moved)+len(other.moved) > 0 {
		t.Errorf("moved to %v and %v", leader.moved, other.moved)
	}
	resp, err := cl.MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: 3})
	if err != nil || resp.Header.GetMemberId() != 2 || len(leader.moved) != 1 || leader.moved[0] != 3 {
		t.Errorf("%v, %v, moved to %v", resp, err, leader.moved)
	}
	if _, err := cl.MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: 2}); err != nil || len(leader.moved) != 1 {
		t.Errorf("to the leader itself: %v, moved to %v", err, leader.moved)
	}
}

// Status is of the keyspace that the request is for.
func TestMaintenanceStatusOfAKeyspace(t *testing.T) {
	b := memberBackend()
	d := descriptor(5, 11, 12)
	d.RangeId, d.KeyspaceId = 77, 100
	b.where = Where{Range: d, Leader: 2}
	b.replicas = append(threeAnswers()[0].status.Replicas,
		&clusterpb.ReplicaStatus{Descriptor_: d, ReplicaId: 11, LeaderReplica: 12, Term: 9, Commit: 4, Applied: 4, Revision: 70})
	cl := pb.NewMaintenanceClient(serveFake(t, b))
	got, err := cl.Status(inShards(t.Context()), &pb.StatusRequest{})
	if err != nil || got.Leader != 2 || got.RaftTerm != 9 || got.RaftIndex != 4 || got.Header.Revision != 70 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = cl.Status(t.Context(), &pb.StatusRequest{}); err != nil || got.Leader != 1 || got.RaftTerm != 5 {
		t.Errorf("of default: %v, %v", got, err)
	}
}

// TestAlarms: what alarms forbid is refused with etcd's own error, and what makes room is not.
func TestAlarms(t *testing.T) {
	b := memberBackend()
	b.alarms, b.quota = []*pb.AlarmMember{{MemberID: 2, Alarm: pb.AlarmType_NOSPACE}}, 4096
	conn := serveFake(t, b)
	cl, kv := pb.NewMaintenanceClient(conn), pb.NewKVClient(conn)
	if resp, err := cl.Alarm(t.Context(), &pb.AlarmRequest{}); err != nil || len(resp.Alarms) != 1 || resp.Header.GetMemberId() != 1 {
		t.Errorf("%v, %v", resp, err)
	}
	if st, err := cl.Status(t.Context(), &pb.StatusRequest{}); err != nil || len(st.Errors) != 2 || st.DbSizeQuota != 4096 || st.Errors[0] != b.alarms[0].String() {
		t.Errorf("%v, %v", st, err)
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}}}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{put}}}}
	_, errPut := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	_, errTxn := kv.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{del}, Failure: []*pb.RequestOp{put}})
	_, errNested := kv.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{nested}})
	for what, err := range map[string]error{"put": errPut, "txn": errTxn, "nested": errNested} {
		if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "etcdserver: mvcc: database space exceeded" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(b.proposed) != 0 {
		t.Errorf("%d proposed", len(b.proposed))
	}
	b.answer = &pb.TxnResponse{}
	if _, err := kv.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{del}}); err != nil {
		t.Errorf("a txn that deletes: %v", err)
	}
	b.answer = &pb.DeleteRangeResponse{}
	if _, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("delete: %v", err)
	}
	b.answer = &pb.CompactionResponse{}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 3}); err != nil {
		t.Errorf("compaction: %v", err)
	}
}

// TestSnapshotInPieces: the first message has the header, all but the last say that there are more, and an error ends it.
func TestSnapshotInPieces(t *testing.T) {
	b := memberBackend()
	b.blocks = 5
	cl := pb.NewMaintenanceClient(serveFake(t, b))
	stream, err := cl.Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	size, left := 0, uint64(1)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 || (size == 0) != (resp.Header != nil) || resp.Version != EtcdVersion {
			t.Fatalf("after %d bytes: %d were left, header %v", size, left, resp.Header)
		}
		size, left = size+len(resp.Blob), resp.RemainingBytes
	}
	if size != 5<<20 || left != 0 {
		t.Errorf("%d bytes, %d left", size, left)
	}
	b.err = &base.Corruption{Where: "here", Cause: io.EOF}
	if stream, err = cl.Snapshot(t.Context(), &pb.SnapshotRequest{}); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DataLoss {
		t.Errorf("%v", err)
	}
}

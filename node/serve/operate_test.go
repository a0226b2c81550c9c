package serve

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/operate"
	"github.com/cairndb/cairn/node/sysrec"
)

// operator is a node's, of a cluster of one range beside sys.
type operator struct {
	*fakeBackend
	*operate.Manager
	moved []base.NodeID
}

func (o *operator) Operate() (*operate.Manager, error) { return o.Manager, nil }

func (o *operator) Transfer(_ context.Context, _ base.RangeID, to base.NodeID) error {
	o.moved = append(o.moved, to)
	return nil
}

// Range reads one key, or what fakeBackend reads of a span; the records are in order.
func (o *operator) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp, err := o.fakeBackend.Range(ctx, ks, req)
	if err == nil && len(req.RangeEnd) == 0 {
		resp.Kvs = slices.DeleteFunc(resp.Kvs, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) != string(req.Key) })
	}
	return resp, err
}

// Descriptor finds the one range everywhere.
func (o *operator) Descriptor(context.Context, base.KeyspaceID, []byte) (*metapb.RangeDescriptor, error) {
	return descriptor(5, 12, 13), nil
}

func newOperator(t *testing.T, id base.NodeID, members []*metapb.NodeRecord) *operator {
	b := memberBackend()
	b.id.NodeID, b.members = id, members
	put := func(key []byte, m proto.Message) {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b.sys = append(b.sys, &mvccpb.KeyValue{Key: key, Value: raw, ModRevision: 1})
	}
	for _, m := range members {
		put(binary.BigEndian.AppendUint64([]byte("node/"), m.NodeId), m)
	}
	put(sysrec.OperationKey(7), &metapb.Operation{OpId: 7, Generation: 1, State: metapb.OperationState_OPERATION_STATE_DONE})
	o := &operator{fakeBackend: b}
	m, err := operate.New(operate.Config{
		Cluster: o, Leads: func() bool { return false }, Holds: func() bool { return true }, UnixMicros: func() int64 { return 1 }, Now: func() base.Instant { return 1 },
		NodeStatus: func(context.Context, base.NodeID, bool) (*clusterpb.NodeStatusResponse, error) {
			return nil, base.ErrStopped
		},
		Explain: func(context.Context, *metapb.RangeDescriptor) (*metapb.Explanation, base.NodeID, error) {
			return nil, 0, base.ErrStopped
		},
		Report: func(context.Context, base.NodeID, *rangepb.ReportRequest) (*rangepb.Report, error) {
			return nil, base.ErrStopped
		},
		Keyspaces: func(context.Context) ([]*metapb.KeyspaceRecord, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Manager = m
	return o
}

// What only some node can do is passed on to it: from one that knows no more than where the replicas are to one that has one, and from
// that to the leader. It is not passed on for ever.
func TestPassedOn(t *testing.T) {
	l1, l2, l3 := listen(t), listen(t), listen(t)
	members := []*metapb.NodeRecord{{NodeId: 1, Address: l1.Addr().String()}, {NodeId: 2, Address: l2.Addr().String()}, {NodeId: 3, Address: l3.Addr().String()}}
	nodes := map[base.NodeID]*operator{}
	for id := base.NodeID(1); id <= 3; id++ {
		nodes[id] = newOperator(t, id, members)
		nodes[id].where = Where{Range: descriptor(5, 12, 13), Leader: 3}
	}
	nodes[1].where.Leader = 0 // it has no replica
	_, conn := serveOn(t, l1, Config{Backend: nodes[1].fakeBackend, Operator: nodes[1]})
	serveOn(t, l2, Config{Backend: nodes[2].fakeBackend, Operator: nodes[2]})
	serveOn(t, l3, Config{Backend: nodes[3].fakeBackend, Operator: nodes[3]})
	cl := clusterpb.NewClusterClient(conn)

	resp, err := cl.TransferRange(t.Context(), &clusterpb.TransferRangeRequest{RangeId: uint64(base.RangeDefault), ToNode: 2})
	if err != nil || resp.FromNode != 3 || resp.ToNode != 2 || len(nodes[3].moved) != 1 || len(nodes[1].moved)+len(nodes[2].moved) != 0 {
		t.Errorf("%v, %v, %v", resp, err, nodes[3].moved)
	}
	if resp, err = cl.TransferRange(t.Context(), &clusterpb.TransferRangeRequest{RangeId: uint64(base.RangeDefault), ToNode: 2, DryRun: true}); err != nil || resp.FromNode != 3 || len(nodes[3].moved) != 1 {
		t.Errorf("a dry run: %v, %v, %v", resp, err, nodes[3].moved)
	}
	if _, err = cl.TransferRange(t.Context(), &clusterpb.TransferRangeRequest{RangeId: uint64(base.RangeDefault), ToNode: 1}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("to a node without a replica: %v", err)
	}
	watch, err := cl.WatchOperation(t.Context(), &clusterpb.WatchOperationRequest{OpId: 7})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.Operation.GetOpId() != 7 {
		t.Errorf("%v, %v", got, err)
	}
	watch, err = cl.WatchOperation(t.Context(), &clusterpb.WatchOperationRequest{OpId: 8})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("an operation that there is not: %v", err)
	}

	// Two that take each other for the leader.
	nodes[2].where.Leader, nodes[3].where.Leader = 3, 2
	if _, err = cl.TransferRange(t.Context(), &clusterpb.TransferRangeRequest{RangeId: uint64(base.RangeDefault), ToNode: 2}); status.Code(err) != codes.Unavailable {
		t.Errorf("passed on in a circle: %v", err)
	}
}

func TestNoOperator(t *testing.T) {
	conn := serveFake(t, memberBackend())
	if _, err := clusterpb.NewClusterClient(conn).ListOperations(t.Context(), &clusterpb.ListOperationsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

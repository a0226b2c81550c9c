package node

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/sysrec"
)

// trio is three nodes of one cluster in this process, on real stores and connections.
type trio struct {
	t     *testing.T
	cfgs  []Config
	nodes []*Node
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	x := &trio{t: t, nodes: make([]*Node, 3)}
	var addresses []string
	for range x.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	for _, a := range addresses {
		x.cfgs = append(x.cfgs, Config{StoreDir: filepath.Join(t.TempDir(), "store"), Listen: a, Join: addresses, BootstrapExpect: 3, Version: "0.1.0"})
	}
	return x
}

func (x *trio) start(i int) {
	x.t.Helper()
	n, err := New(x.cfgs[i])
	if err != nil {
		x.t.Fatal(err)
	}
	if err := n.Start(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	x.nodes[i] = n
	x.t.Cleanup(func() { x.stop(i) })
}

func (x *trio) stop(i int) {
	n := x.nodes[i]
	if n == nil {
		return
	}
	x.nodes[i] = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		x.t.Errorf("stopping: %v", err)
	}
}

func (x *trio) ready(i int) {
	x.t.Helper()
	select {
	case <-x.nodes[i].Ready():
	case err := <-x.nodes[i].Fatal():
		x.t.Fatal(err)
	case <-time.After(time.Minute):
		x.t.Fatalf("node %d is not ready within a minute", i)
	}
}

// eventually asks again until f succeeds.
func (x *trio) eventually(what string, f func() error) {
	x.t.Helper()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			x.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (x *trio) record(id uint64) (*metapb.NodeRecord, error) {
	ctx, cancel := context.WithTimeout(x.t.Context(), 5*time.Second)
	defer cancel()
	nodes, err := join.ReadNodes(ctx, x.nodes[0])
	for _, r := range nodes {
		if r.NodeId == id {
			return r, nil
		}
	}
	return nil, errors.Join(err, errors.New("there is no such record"))
}

func (x *trio) write(key []byte, m proto.Message) {
	x.t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		x.t.Fatal(err)
	}
	put, err := proto.Marshal(&pb.PutRequest{Key: key, Value: value})
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.nodes[0].Propose(x.t.Context(), base.KeyspaceSys, key, &kvpb.Command{Body: &kvpb.Command_Put{Put: put}}); err != nil {
		x.t.Fatal(err)
	}
}

// apply carries events out on a node's record, as if somebody had decided so.
func (x *trio) apply(id uint64, events ...liveness.Event) {
	x.t.Helper()
	for _, e := range events {
		_, err := join.Change(x.t.Context(), x.nodes[0].current().dispatch, base.NodeID(id), func(r *metapb.NodeRecord) (*metapb.NodeRecord, error) {
			return liveness.Apply(r, e, "a test says so", 1)
		})
		if err != nil {
			x.t.Fatal(err)
		}
	}
}

// voters waits until every range has three.
func (x *trio) voters() {
	x.t.Helper()
	x.eventually("replication", func() error {
		for _, id := range []base.RangeID{base.RangeRoot, base.RangeMeta, base.RangeSys, base.RangeDefault} {
			v := x.nodes[0].current().store.View(id)
			if v == nil {
				return errors.New("no replica yet")
			}
			n := 0
			for _, r := range v.Descriptor.GetReplicas() {
				if r.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER {
					n++
				}
			}
			if n != 3 {
				return errors.New("not three voters yet")
			}
		}
		return nil
	})
}

// TestGivenUp: a node that is away for longer than the policy lets it is held to be failed; when it is back it serves under the
// epoch that was raised, and knows it at its next start. One that is given up while it runs finds out, and announces itself again. One
// that is removed ends.
func TestGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for windows to pass")
	}
	x := newTrio(t)
	for i := range x.nodes {
		x.start(i)
	}
	for i := range x.nodes {
		x.ready(i)
	}
	x.voters()
	x.write(sysrec.PolicyKey(0), &metapb.PolicyRecord{Cluster: &metapb.ClusterPolicy{FailedAfterMillis: 1000}})
	gone := 2
	id := x.nodes[gone].storeIdentity().NodeId
	before, err := x.record(id)
	if err != nil || before.State != metapb.NodeState_NODE_STATE_ACTIVE || before.Epoch != 0 || before.Cpus == 0 || before.DiskBytes == 0 {
		t.Fatalf("announced: %v, %v", before, err)
	}

	x.stop(gone)
	x.eventually("held to be failed", func() error {
		r, err := x.record(id)
		if err == nil && r.State != metapb.NodeState_NODE_STATE_FAILED {
			err = errors.New(r.String())
		}
		return err
	})
	x.start(gone)
	x.ready(gone)
	n := x.nodes[gone]
	if r, err := x.record(id); err != nil || r.State != metapb.NodeState_NODE_STATE_ACTIVE || r.Epoch != 1 || r.Generation != before.Generation+3 || n.storeIdentity().Epoch != 1 {
		t.Errorf("back: %v, %v; its store knows epoch %d", r, err, n.storeIdentity().Epoch)
	}
	if err := n.mayServe(); err != nil {
		t.Errorf("ready, and does not serve: %v", err)
	}

	x.apply(id, liveness.Suspected, liveness.Failed)
	x.eventually("given up while it runs, and let in again", func() error {
		r, err := x.record(id)
		if err == nil && (r.State != metapb.NodeState_NODE_STATE_ACTIVE || n.storeIdentity().Epoch != 2 || n.mayServe() != nil) {
			err = errors.Join(errors.New(r.String()), n.mayServe())
		}
		return err
	})

	x.apply(id, liveness.Leave, liveness.Removed)
	select {
	case err := <-n.Fatal():
		var refused *join.Refused
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "was removed from the cluster (a test says so): start with an empty store directory") {
			t.Errorf("removed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("removed, and runs on")
	}
	conn, err := join.Dial(n.cfg.Advertise)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Serializable: true}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("removed, and answers %v", err)
	}
}

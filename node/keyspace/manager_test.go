package keyspace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// ledger is a cluster, as far as keyspaces are made and dropped: its sys and meta as maps, and which nodes were told to make and to end replicas.
type ledger struct {
	Cluster  // nil: what a merge needs is not called here
	mu       sync.Mutex
	revision int64
	kvs      map[base.KeyspaceID]map[string]*mvccpb.KeyValue
	placed   map[base.RangeID][]base.NodeID
	ended    map[base.RangeID][]base.NodeID
	steps    int // that may still be made; then all fails
}

var errBroken = errors.New("broken off")

func newLedger() *ledger {
	return &ledger{
		kvs:    map[base.KeyspaceID]map[string]*mvccpb.KeyValue{base.KeyspaceSys: {}, base.KeyspaceMeta: {}},
		placed: map[base.RangeID][]base.NodeID{}, ended: map[base.RangeID][]base.NodeID{}, steps: 1 << 30,
	}
}

// manager is that of a node that sees so many nodes.
func (l *ledger) manager(nodes int) *Manager {
	return New(Config{Cluster: l, UnixMicros: func() int64 { return 7 }, Nodes: func() (out []base.NodeID) {
		for n := range nodes {
			out = append(out, base.NodeID(n+1))
		}
		return out
	}})
}

// step takes the lock, and counts.
func (l *ledger) step() error {
	l.mu.Lock()
	if l.steps--; l.steps < 0 {
		l.mu.Unlock()
		return errBroken
	}
	return nil
}

func (l *ledger) Range(_ context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	resp := &pb.RangeResponse{}
	for k, kv := range l.kvs[ks] {
		if k == string(req.Key) || len(req.RangeEnd) > 0 && k >= string(req.Key) && k < string(req.RangeEnd) {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return resp, nil
}

func (l *ledger) Propose(_ context.Context, ks base.KeyspaceID, _ []byte, cmd *kvpb.Command) (proto.Message, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	at := l.kvs[ks]
	if body := cmd.GetDeleteRange(); body != nil {
		req := &pb.DeleteRangeRequest{}
		err := proto.Unmarshal(body, req)
		delete(at, string(req.Key))
		return &pb.DeleteRangeResponse{}, err
	}
	txn := &pb.TxnRequest{}
	if err := proto.Unmarshal(cmd.GetTxn(), txn); err != nil {
		return nil, err
	}
	if cmp := txn.Compare[0]; at[string(cmp.Key)].GetModRevision() != cmp.GetModRevision() {
		return &pb.TxnResponse{}, nil
	}
	if put := txn.Success[0].GetRequestPut(); put != nil {
		l.revision++
		at[string(put.Key)] = &mvccpb.KeyValue{Key: put.Key, Value: put.Value, ModRevision: l.revision}
	} else {
		delete(at, string(txn.Success[0].GetRequestDeleteRange().Key))
	}
	return &pb.TxnResponse{Succeeded: true}, nil
}

// Place makes a replica; the first also publishes its range, as its leader would.
func (l *ledger) Place(_ context.Context, node base.NodeID, d *metapb.RangeDescriptor) error {
	if err := l.step(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.placed[base.RangeID(d.RangeId)] = append(l.placed[base.RangeID(d.RangeId)], node)
	raw, err := desc.Encode(d)
	k := string(route.DescriptorKey(d))
	l.kvs[base.KeyspaceMeta][k] = &mvccpb.KeyValue{Key: []byte(k), Value: raw}
	return err
}

func (l *ledger) End(_ context.Context, node base.NodeID, d *metapb.RangeDescriptor) error {
	if err := l.step(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.ended[base.RangeID(d.RangeId)] = append(l.ended[base.RangeID(d.RangeId)], node)
	return nil
}

func (l *ledger) Descriptor(context.Context, base.KeyspaceID, []byte) (*metapb.RangeDescriptor, error) {
	return nil, errBroken
}

func TestCreateFindDrop(t *testing.T) {
	l, ctx := newLedger(), t.Context()
	m := l.manager(4)
	rec, err := m.Create(ctx, "shards", false)
	if err != nil || rec.State != metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE || len(rec.First.Replicas) != replicas || rec.CreatedUnixMicros != 7 {
		t.Fatalf("%v, %v", rec, err)
	}
	id := base.KeyspaceID(rec.KeyspaceId)
	if !id.Splits() || len(l.placed[base.RangeID(rec.First.RangeId)]) != replicas {
		t.Errorf("%s: %v", id, l.placed)
	}
	one, err := l.manager(2).Create(ctx, "config", true)
	if err != nil || base.KeyspaceID(one.KeyspaceId).Splits() || len(one.First.Replicas) != 1 || one.KeyspaceId == rec.KeyspaceId {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := l.manager(4).Create(ctx, "shards", false); code(err) != codes.AlreadyExists {
		t.Errorf("made twice: %v", err)
	}
	if got, err := m.Find(ctx, "shards"); err != nil || got != id {
		t.Errorf("%s, %v", got, err)
	}
	for _, name := range []string{"", "default"} {
		if got, err := m.Find(ctx, name); err != nil || got != base.KeyspaceDefault {
			t.Errorf("%q is %s, %v", name, got, err)
		}
	}
	if gone, err := m.Gone(ctx, id); err != nil || gone {
		t.Errorf("it is gone: %v, %v", gone, err)
	}
	if err := m.MayPlace(ctx, rec.First); code(err) != codes.FailedPrecondition {
		t.Errorf("a replica of a keyspace that was made long ago may be placed: %v", err)
	}
	if n, err := m.Drop(ctx, "shards"); err != nil || n != 1 || len(l.ended[base.RangeID(rec.First.RangeId)]) != replicas {
		t.Errorf("%d ranges, %v, %v", n, err, l.ended)
	}
	if _, err := m.Find(ctx, "shards"); code(err) != codes.NotFound {
		t.Errorf("found after its drop: %v", err)
	}
	if _, err := m.Drop(ctx, "shards"); code(err) != codes.NotFound {
		t.Errorf("dropped twice: %v", err)
	}
	if gone, err := m.Gone(ctx, id); err != nil || !gone {
		t.Errorf("it is not gone: %v, %v", gone, err)
	}
	again, err := m.Create(ctx, "shards", false)
	if err != nil || again.KeyspaceId == rec.KeyspaceId || again.First.RangeId == rec.First.RangeId {
		t.Errorf("an id was used twice: %v, %v", again, err)
	}
}

func TestNames(t *testing.T) {
	l := newLedger()
	for name, want := range map[string]codes.Code{
		"": codes.InvalidArgument, "A": codes.InvalidArgument, "1a": codes.InvalidArgument, "a b": codes.InvalidArgument, "a/b": codes.InvalidArgument,
		strings.Repeat("a", 64): codes.InvalidArgument, "root": codes.FailedPrecondition, "meta": codes.FailedPrecondition,
		"sys": codes.FailedPrecondition, "default": codes.FailedPrecondition, strings.Repeat("a", 63): codes.OK, "a-b_1": codes.OK,
	} {
		if _, err := l.manager(1).Create(t.Context(), name, false); code(err) != want {
			t.Errorf("create %q: %v, want %s", name, err, want)
		}
		if _, err := l.manager(1).Drop(t.Context(), name); code(err) != want {
			t.Errorf("drop %q: %v, want %s", name, err, want)
		}
	}
}

// TestBrokenOff: wherever a create or a drop is broken off, the same on another node goes on with it; and a drop undoes a create of
// which nothing is known but its record.
func TestBrokenOff(t *testing.T) {
	for steps, done := 0, false; !done; steps++ {
		l, ctx := newLedger(), t.Context()
		l.steps = steps
		_, err := l.manager(3).Create(ctx, "shards", false)
		done = err == nil
		if !done && !errors.Is(err, errBroken) {
			t.Fatalf("create, broken off after %d: %v", steps, err)
		}
		l.steps = 1 << 30
		if !done {
			if _, err := l.manager(3).Create(ctx, "shards", false); err != nil && code(err) != codes.AlreadyExists {
				t.Errorf("create again, after %d: %v", steps, err)
			}
		}
		if all, err := l.manager(3).List(ctx); err != nil || len(all) != 1 || all[0].State != metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE {
			t.Errorf("after %d: %v, %v", steps, all, err)
		}
	}
	for steps, done := 0, false; !done; steps++ {
		l, ctx := newLedger(), t.Context()
		rec, err := l.manager(3).Create(ctx, "shards", false)
		if err != nil {
			t.Fatal(err)
		}
		l.steps = steps
		_, err = l.manager(3).Drop(ctx, "shards")
		done = err == nil
		l.steps = 1 << 30
		if _, err := l.manager(3).Drop(ctx, "shards"); err != nil && code(err) != codes.NotFound {
			t.Errorf("drop again, after %d: %v", steps, err)
		}
		if all, err := l.manager(3).List(ctx); err != nil || len(all) != 0 || len(l.kvs[base.KeyspaceMeta]) != 0 {
			t.Errorf("after %d: %v, %v, %v", steps, all, err, l.kvs[base.KeyspaceMeta])
		}
		if gone, err := l.manager(3).Gone(ctx, base.KeyspaceID(rec.KeyspaceId)); err != nil || !gone {
			t.Errorf("after %d it is not gone: %v", steps, err)
		}
	}
}

// TestAtOnce: several nodes make one name, and then drop it; one keyspace comes of it, and then none.
func TestAtOnce(t *testing.T) {
	l, ctx := newLedger(), t.Context()
	all := func(f func(*Manager) error) (errs []error) {
		errs = make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = f(l.manager(3)) })
		}
		wg.Wait()
		return errs
	}
	made := map[string]int{}
	for _, err := range all(func(m *Manager) error { _, err := m.Create(ctx, "shards", false); return err }) {
		made[fmt.Sprint(code(err))]++
	}
	if made["OK"] == 0 || made["OK"]+made["AlreadyExists"] != 8 {
		t.Errorf("made: %v", made)
	}
	recs, err := l.manager(3).List(ctx)
	if err != nil || len(recs) != 1 {
		t.Fatalf("%v, %v", recs, err)
	}
	dropped := map[string]int{}
	for _, err := range all(func(m *Manager) error { _, err := m.Drop(ctx, "shards"); return err }) {
		dropped[fmt.Sprint(code(err))]++
	}
	if recs, err = l.manager(3).List(ctx); err != nil || len(recs) != 0 || dropped["OK"] == 0 || dropped["OK"]+dropped["NotFound"] != 8 {
		t.Errorf("dropped: %v; %v, %v", dropped, recs, err)
	}
}

// code is what a client is told of an error.
func code(err error) codes.Code {
	if none := (*base.NoKeyspace)(nil); errors.As(err, &none) {
		return codes.NotFound
	}
	return status.Code(err)
}

// changing is a range that is a little further each time it is looked at.
type changing struct {
	Cluster
	looks []*metapb.RangeDescriptor
}

func (c *changing) Descriptor(context.Context, base.KeyspaceID, []byte) (*metapb.RangeDescriptor, error) {
	d := c.looks[0]
	c.looks = c.looks[1:]
	return d, nil
}

// A range in the middle of a change of replicas is waited for: it is cut, and merged, once it has left its joint configuration.
func TestSettledWaitsForChangesOfReplicas(t *testing.T) {
	rests := &metapb.RangeDescriptor{RangeId: 5, Generation: 3, Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}}
	joint := proto.CloneOf(rests)
	joint.Generation = 2
	joint.Replicas = append(joint.Replicas, &metapb.Replica{ReplicaId: 2, NodeId: 2, Role: metapb.ReplicaRole_REPLICA_ROLE_OUTGOING})
	c := &changing{looks: []*metapb.RangeDescriptor{joint, joint, rests}}
	if d, err := New(Config{Cluster: c}).settled(t.Context(), base.KeyspaceDefault, nil); err != nil || d.GetGeneration() != 3 {
		t.Errorf("%v, %v", d, err)
	}
}

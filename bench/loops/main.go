// Command loops measures Cairn's bare loops: three nodes' stores in one process, on real Pebble with synced logs,
// joined by queues in memory. There is no server in front of them; clients propose at the leader. It is what cmd/bench
// holds against dragonboat.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// firstRange is the range of group 0, and its keyspace's number: above those that every cluster has.
const firstRange = 100

// transferEvery is how long a transfer of leadership is given before it is asked for again.
const transferEvery = 500 * time.Millisecond

func main() {
	puts := flag.Bool("puts", false, "propose puts, which are evaluated and written to the store, and not entries that do nothing")
	closed.Main(func(ctx context.Context, p closed.Program) (closed.Subject, error) {
		return start(ctx, p, *puts)
	})
}

// nodes are the three, and the network between them.
type nodes struct {
	puts    bool
	network *network
	engines []engine.Engine
	stores  []*store.Store
	leaders []atomic.Uint64 // of each group, the node where clients propose
	changed chan struct{}   // has an element if some replica's role changed since it was taken
	fatal   chan error      // the first error that stopped a store
}

// start makes the ranges on every node, starts all, and waits until each range is led by the node that should lead it.
func start(ctx context.Context, p closed.Program, puts bool) (_ closed.Subject, err error) {
	n := &nodes{puts: puts, network: newNetwork(), changed: make(chan struct{}, 1), fatal: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for i := range closed.Nodes {
		if err := n.open(base.NodeID(i+1), filepath.Join(p.Folder, fmt.Sprint(i+1)), p); err != nil {
			return nil, err
		}
	}
	n.network.start(n.stores)
	for i, s := range n.stores {
		if err := s.Start(n.network.end(base.NodeID(i + 1))); err != nil {
			return nil, err
		}
	}
	n.leaders = make([]atomic.Uint64, p.Groups)
	for g := range p.Groups {
		if err := n.placeLeader(ctx, g); err != nil {
			return nil, err
		}
		n.leaders[g].Store(uint64(g%closed.Nodes + 1))
	}
	return n, nil
}

// open makes one node's store with a replica of every group.
func (n *nodes) open(id base.NodeID, folder string, p closed.Program) error {
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: folder})
	if err != nil {
		return err
	}
	n.engines = append(n.engines, eng)
	_, incarnation, err := store.OpenIdentity(eng)
	if err != nil {
		return err
	}
	b := eng.NewBatch()
	for g := range p.Groups {
		if err := store.CreateReplica(b, descriptor(g), base.ReplicaID(id)); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	wait, err := b.CommitSync()
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := wait(); err != nil {
		return err
	}
	s, err := store.New(store.Config{
		Engine: eng, Node: id, Incarnation: incarnation, Seed: p.Seed + uint64(id),
		OnFatal:  func(err error) { n.stopped(fmt.Errorf("node %d: %w", id, err)) },
		OnChange: func(raftgroup.StateChange) { n.signal() },
	})
	if err != nil {
		return err
	}
	n.stores = append(n.stores, s)
	return nil
}

// descriptor is that of a group: a voter on each node, whose replica has the node's number.
func descriptor(group int) *metapb.RangeDescriptor {
	d := &metapb.RangeDescriptor{
		RangeId: uint64(rangeOf(group)), KeyspaceId: uint64(rangeOf(group)), Generation: 1, NextReplicaId: closed.Nodes + 1,
	}
	for i := range uint64(closed.Nodes) {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: i + 1, NodeId: i + 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}

func rangeOf(group int) base.RangeID { return base.RangeID(firstRange + group) }

func (n *nodes) signal() {
	select {
	case n.changed <- struct{}{}:
	default: // whoever waits has not looked since the last
	}
}

func (n *nodes) stopped(err error) {
	select {
	case n.fatal <- err:
	default: // the first is enough
	}
}

// placeLeader moves a group's leadership to where it belongs.
func (n *nodes) placeLeader(ctx context.Context, group int) error {
	id, want := rangeOf(group), group%closed.Nodes
	again := time.NewTicker(transferEvery)
	defer again.Stop()
	for {
		for i, s := range n.stores {
			state, ok := s.State(id)
			switch {
			case !ok || state.Role != raftgroup.Leader:
			case i == want:
				return nil
			default:
				s.Transfer(id, base.ReplicaID(want+1))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not led by node %d: %w", id, want+1, ctx.Err())
		case err := <-n.fatal:
			return err
		case <-n.changed:
		case <-again.C:
		}
	}
}

// Propose implements closed.Subject. Who is told that the leader is elsewhere goes there, as the peer's client does.
func (n *nodes) Propose(ctx context.Context, group int, entry []byte) error {
	data, err := n.command(entry)
	if err != nil {
		return err
	}
	for range base.RetryHints {
		err = n.proposeAt(ctx, base.NodeID(n.leaders[group].Load()), rangeOf(group), data)
		var elsewhere *base.NotLeader
		if !errors.As(err, &elsewhere) || elsewhere.HintNode == 0 {
			return err
		}
		n.leaders[group].Store(uint64(elsewhere.HintNode))
	}
	return err
}

func (n *nodes) proposeAt(ctx context.Context, node base.NodeID, id base.RangeID, data []byte) error {
	limit, ok := ctx.Deadline()
	if !ok {
		return errors.New("a proposal without a deadline")
	}
	ended := make(chan error, 1)
	n.stores[node-1].Propose(raftgroup.Proposal{Range: id, Data: data},
		store.Now().Add(time.Until(limit)), func(_ proto.Message, err error) { ended <- err })
	select {
	case err := <-ended:
		return err
	case err := <-n.fatal:
		n.stopped(err) // for the next that asks
		return err
	}
}

const (
	// keyBytes of an entry are the key of its put: they are random, so that the keys are spread.
	keyBytes = 16
	// rider is a field that no command has: what is in it is carried and not looked at.
	rider = 1 << 20
)

// command is what an entry is proposed as. A transaction without operations that carries the entry is ordered, stored,
// applied and answered, and asks nothing of the state machine, as in the peer that this is compared with.
func (n *nodes) command(entry []byte) ([]byte, error) {
	c := &kvpb.Command{NowMicros: time.Now().UnixMicro()}
	if !n.puts {
		c.Body = &kvpb.Command_Txn{}
		c.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, rider, protowire.BytesType), entry))
		return proto.Marshal(c)
	}
	put, err := proto.Marshal(&pb.PutRequest{Key: entry[:min(len(entry), keyBytes)], Value: entry})
	if err != nil {
		return nil, err
	}
	c.Body = &kvpb.Command_Put{Put: put}
	return proto.Marshal(c)
}

// Close implements closed.Subject.
func (n *nodes) Close() error {
	for _, s := range n.stores {
		s.Stop()
	}
	n.network.stop()
	var errs []error
	for _, e := range n.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}

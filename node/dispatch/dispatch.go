package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/node/latency"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// Config is what a Dispatcher is made of.
type Config struct {
	Node      base.NodeID
	Store     *store.Store
	Transport transport.Transport
	Logger    *slog.Logger
	// CreatedMicros is when the cluster was made: the origin of the revisions of sharded keyspaces.
	CreatedMicros int64
	UnixMicros    func() int64 // the wall clock; nil: the machine's
	// MayPlace says whether a range that another node wants this one to make a replica of is a new one; nil: none is.
	MayPlace func(context.Context, *metapb.RangeDescriptor) error
	// Align has the replicas of a range that this node leads brought to where another's are; nil: it moves none.
	Align func(id base.RangeID, with *metapb.RangeDescriptor)
	// Leases answers what only the leader of a range knows of clients' leases; nil: this node answers nothing of them.
	Leases Leases
	// Placement is this node's part in placing replicas; nil: it has none.
	Placement Placement
	// Heartbeat is given what nodes say of themselves to the leader of `sys`, which is here; nil: this node keeps no table.
	Heartbeat func(*metapb.Heartbeat) (*metapb.HeartbeatAnswer, error)
	// Gone says whether a keyspace was certainly dropped; nil: that is not known of any.
	Gone func(context.Context, base.KeyspaceID) (bool, error)
	// Root finds the descriptor of the root range when this node has no replica of it and knows none.
	Root func(context.Context) (*metapb.RangeDescriptor, error)
}

// Dispatcher serves requests of this node's clients and of other nodes. Its methods may be called from any goroutine.
type Dispatcher struct {
	cfg    Config
	routes *routes

	checks  *checksums
	keepers keepers
	exports *checksums    // what is read for snapshots of the clients' data
	pulls   chan struct{} // slots of pages of changes that are read
	turn    atomic.Uint64 // which of a range's nodes is asked for changes

	nextID atomic.Uint64
	puts   latency.Histogram // of the writes that are led here

	mu       sync.Mutex
	pending  map[uint64]*remote // requests sent to other nodes
	outboxes map[base.NodeID]*outbox
	changed  chan struct{} // closed and replaced whenever a leader becomes known
	stopped  bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// remote is a request that another node is to answer.
type remote struct {
	to base.NodeID
	id base.RangeID
	ch chan *rangepb.Response
}

// New makes a dispatcher.
func New(cfg Config) *Dispatcher {
	ctx, cancel := context.WithCancel(context.Background())
	if cfg.UnixMicros == nil {
		cfg.UnixMicros = func() int64 { return time.Now().UnixMicro() }
	}
	d := &Dispatcher{
		cfg: cfg, routes: newRoutes(), pending: make(map[uint64]*remote), outboxes: make(map[base.NodeID]*outbox),
		changed: make(chan struct{}), ctx: ctx, cancel: cancel, checks: newChecksums(), exports: newExports(),
		pulls: make(chan struct{}, base.WatchPullsAtOnce),
	}
	// An answer to a request of an earlier process of this node, late, must not be taken for one of this process.
	d.nextID.Store(uint64(cfg.Store.Incarnation()) << 40)
	return d
}

// Stop ends what waits and the senders.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	d.stopped = true
	for _, o := range d.outboxes {
		o.stop()
	}
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
}

// Changed is told that a local replica has a new leader or descriptor: requests that wait for one go on.
func (d *Dispatcher) Changed(c raftgroup.StateChange) {
	switch {
	case c.Destroyed && desc.IsFrozen(c.Descriptor):
		d.routes.ended(c.Descriptor)
	case c.Descriptor != nil:
		d.routes.learn(c.Descriptor)
	}
	d.wake()
}

// wake has the requests go on that wait for a leader or a descriptor.
func (d *Dispatcher) wake() {
	d.mu.Lock()
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
}

// NowMicros is the time since the cluster was made, for the revisions of sharded keyspaces.
func (d *Dispatcher) NowMicros() int64 { return d.cfg.UnixMicros() - d.cfg.CreatedMicros }

// Propose carries a command to the leader of the range that holds key and returns its response.
func (d *Dispatcher) Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	if c, ok := cmd.Body.(*kvpb.Command_Compaction); ok && ks.Splits() {
		return d.compact(ctx, ks, c)
	}
	return d.leases(ctx, ks).Write(key, cmd)
}

// propose is Propose to the one range that holds key.
func (d *Dispatcher) propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	cmd.NowMicros = d.NowMicros()
	return d.proposeAt(ctx, ks, key, cmd)
}

// proposeAt proposes a command as being of the time that it names.
func (d *Dispatcher) proposeAt(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	empty := emptyResponse(cmd)
	if empty == nil {
		return nil, errors.New("a command without a body")
	}
	var out proto.Message
	err = d.retry(ctx, ks, key, func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		id := base.RangeID(desc.RangeId)
		if node == d.cfg.Node {
			out, err = d.proposeHere(ctx, raftgroup.Proposal{Range: id, Data: data})
			return err
		}
		out = empty()
		return d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_PROPOSE, data, out)
	})
	return out, err
}

// ProposeChange proposes a membership change in a range whose leader is here.
func (d *Dispatcher) ProposeChange(ctx context.Context, p raftgroup.Proposal) (proto.Message, error) {
	return d.proposeHere(ctx, p)
}

func (d *Dispatcher) proposeHere(ctx context.Context, p raftgroup.Proposal) (proto.Message, error) {
	return wait(ctx, true, func(done store.Done) { d.cfg.Store.Propose(p, d.deadline(ctx), d.timed(done)) })
}

// timed counts how long a write took from here on, if it went into a log. One whose outcome is not known took at least as long.
func (d *Dispatcher) timed(done store.Done) store.Done {
	began := d.cfg.Store.Now()
	return func(m proto.Message, err error) {
		var ambiguous *base.Ambiguous
		if err == nil || errors.As(err, &ambiguous) {
			d.puts.Record(d.cfg.Store.Now().Sub(began))
		}
		done(m, err)
	}
}

// Puts is how long the writes take that this node leads.
func (d *Dispatcher) Puts() *latency.Histogram { return &d.puts }

// Range reads keys of one range, or of several as they were at one moment (spread.go).
func (d *Dispatcher) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	out := &pb.RangeResponse{}
	if req.Serializable {
		if id, ok := d.local(ks, req.Key); ok {
			var moved *base.RangeMoved
			if err := d.cfg.Store.Read(id, req, out); !errors.As(err, &moved) {
				return out, err
			}
		}
	}
	err := d.read(ctx, ks, req.Key, req, out)
	var several *base.SeveralRanges
	if errors.As(err, &several) {
		return d.spread(ctx, ks, req)
	}
	if ks.Splits() && spread.Beyond(err) {
		if err = d.raise(ctx, ks, req.Key, req.Revision); err == nil {
			err = d.read(ctx, ks, req.Key, req, out)
		}
	}
	return out, err
}

// ReadTxn evaluates a transaction that does not write.
func (d *Dispatcher) ReadTxn(ctx context.Context, ks base.KeyspaceID, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	out := &pb.TxnResponse{}
	return out, d.read(ctx, ks, eval.FirstKey(req), req, out)
}

// read serves a linearizable read here, if a replica is here, or asks a node that has one.
func (d *Dispatcher) read(ctx context.Context, ks base.KeyspaceID, key []byte, req, out proto.Message) error {
	return d.retry(ctx, ks, key, func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		if d.cfg.Store.Has(base.RangeID(desc.RangeId)) {
			node = d.cfg.Node
		}
		return d.readAt(ctx, desc, node, req, out)
	})
}

// readAt reads at one node.
func (d *Dispatcher) readAt(ctx context.Context, desc *metapb.RangeDescriptor, node base.NodeID, req, out proto.Message) error {
	id := base.RangeID(desc.RangeId)
	if node == d.cfg.Node {
		if served, err := d.cfg.Store.ReadLeased(id, req, out); served {
			return err
		}
		_, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.ReadIndex(id, d.deadline(ctx), done) })
		if err != nil {
			return err
		}
		return d.cfg.Store.Read(id, req, out)
	}
	kind := rangepb.RequestKind_REQUEST_KIND_READ
	switch req.(type) {
	case *pb.TxnRequest:
		kind = rangepb.RequestKind_REQUEST_KIND_READ_TXN
	case *rangepb.PageRequest:
		kind = rangepb.RequestKind_REQUEST_KIND_PAGE
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	return d.retriable(ctx, id, d.ask(ctx, node, id, kind, body, out))
}

// local returns the range of a key if a replica of it is here.
func (d *Dispatcher) local(ks base.KeyspaceID, key []byte) (base.RangeID, bool) {
	desc := d.routes.find(ks, key)
	if desc == nil || !d.cfg.Store.Has(base.RangeID(desc.RangeId)) {
		return 0, false
	}
	return base.RangeID(desc.RangeId), true
}

// wait turns a callback into a call. A write that ctx gave up on may still happen.
func wait(ctx context.Context, write bool, start func(store.Done)) (proto.Message, error) {
	type result struct {
		m   proto.Message
		err error
	}
	ch := make(chan result, 1)
	start(func(m proto.Message, err error) { ch <- result{m, err} })
	select {
	case r := <-ch:
		return r.m, r.err
	case <-ctx.Done():
		if write {
			return nil, &base.Ambiguous{Cause: ctx.Err()}
		}
		return nil, ctx.Err()
	}
}

// deadline is ctx's, on the node's clock.
func (d *Dispatcher) deadline(ctx context.Context) base.Instant {
	if t, ok := ctx.Deadline(); ok {
		return d.cfg.Store.Now().Add(time.Until(t))
	}
	return d.cfg.Store.Now().Add(base.RequestTimeout)
}

func emptyResponse(cmd *kvpb.Command) func() proto.Message {
	switch cmd.Body.(type) {
	case *kvpb.Command_Put:
		return func() proto.Message { return &pb.PutResponse{} }
	case *kvpb.Command_DeleteRange:
		return func() proto.Message { return &pb.DeleteRangeResponse{} }
	case *kvpb.Command_Txn:
		return func() proto.Message { return &pb.TxnResponse{} }
	case *kvpb.Command_Compaction:
		return func() proto.Message { return &pb.CompactionResponse{} }
	case *kvpb.Command_PublishDescriptor:
		return func() proto.Message { return &kvpb.PublishDescriptorResponse{} }
	case *kvpb.Command_Split:
		return func() proto.Message { return &kvpb.SplitResponse{} }
	case *kvpb.Command_Freeze:
		return func() proto.Message { return &kvpb.FreezeResponse{} }
	case *kvpb.Command_Merge:
		return func() proto.Message { return &kvpb.MergeResponse{} }
	case *kvpb.Command_GiveUpMerge:
		return func() proto.Message { return &kvpb.GiveUpMergeResponse{} }
	case *kvpb.Command_Thaw:
		return func() proto.Message { return &kvpb.ThawResponse{} }
	case *kvpb.Command_Absorbed:
		return func() proto.Message { return &kvpb.AbsorbedResponse{} }
	case *kvpb.Command_UnpublishDescriptor:
		return func() proto.Message { return &kvpb.UnpublishDescriptorResponse{} }
	case *kvpb.Command_RaiseRevision:
		return func() proto.Message { return &kvpb.RaiseRevisionResponse{} }
	case *kvpb.Command_LeaseGrant:
		return func() proto.Message { return &kvpb.LeaseGrantResponse{} }
	case *kvpb.Command_LeaseRevoke:
		return func() proto.Message { return &kvpb.LeaseRevokeResponse{} }
	case *kvpb.Command_LeaseAttach:
		return func() proto.Message { return &kvpb.LeaseAttachResponse{} }
	case *kvpb.Command_LeaseAdmit:
		return func() proto.Message { return &kvpb.LeaseAdmitResponse{} }
	case *kvpb.Command_LeaseEvict:
		return func() proto.Message { return &kvpb.LeaseEvictResponse{} }
	}
	return nil
}

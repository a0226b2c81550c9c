// Package reconcile brings what is observed to what is wanted, again and again: observe, decide, carry out one
// idempotent step, observe again.
//
// On the leader of each range it publishes the descriptor to the index until the index has it, and takes the steps that a
// decider directs: meta/change gives the next one from the stored descriptor, so that any node can finish what another began. It
// also keeps the node's knowledge of the other nodes fresh. It looks at a range when something of it changed, and again and
// again while something is left to be done, because followers catch up without telling. A range that is as it should be is
// not looked at: ten thousand of them cost nothing.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// Config is what a Reconciler works with.
type Config struct {
	Node     base.NodeID
	Store    *store.Store
	Dispatch *dispatch.Dispatcher
	Peers    interface{ Peers() []transport.PeerStatus }
	// Learn is given the nodes' records, as they are stored.
	Learn  func(...*metapb.NodeRecord)
	Logger *slog.Logger

	// Gone says whether a keyspace was dropped, certainly.
	Gone func(context.Context, base.KeyspaceID) (bool, error)
	// Split cuts a range, of just that generation, at a key. SplitBytes is how large a range may be before it is cut; 0: base's.
	Split      func(context.Context, *metapb.RangeDescriptor, []byte) error
	SplitBytes int64
	// SplitQPS is the requests per second above which a range is cut; 0: none is for that.
	SplitQPS float64
	Merges   Merges
	Reports  Reports
}

// Reconciler is the loop. Wake and NodesChanged may be called from any goroutine and do not block.
type Reconciler struct {
	cfg    Config
	wake   chan struct{} // capacity 1
	nodes  chan struct{} // capacity 1
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	published map[base.RangeID]uint64    // the generation that the index acknowledged
	alone     map[base.RangeID]time.Time // since when a local replica hears of no leader
	frozen    map[base.RangeID]frozenSince
	looks     map[base.RangeID]int       // at sizes, since a range was last written to: watchSizes'
	stepped   map[base.RangeID]time.Time // when a step was taken last, of ranges with more to be done
	moving    map[base.RangeID]struct{}  // of these, those to be looked at soon
	lagging   map[base.RangeID]struct{}  // led here, with a replica that was behind at the last look

	splits struct{ size, load atomic.Uint64 } // that it had done, by their reason

	mu      sync.Mutex
	due     map[base.RangeID]struct{} // to be looked at
	written map[base.RangeID]struct{} // whose size may have changed
	wanted  map[base.RangeID]wanted
	follow  map[base.RangeID]*change.Follower
}

// New makes a reconciler; Start runs it.
func New(cfg Config) *Reconciler {
	if cfg.SplitBytes == 0 {
		cfg.SplitBytes = base.SplitBytes
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Reconciler{
		cfg: cfg, wake: make(chan struct{}, 1), nodes: make(chan struct{}, 1), ctx: ctx, cancel: cancel,
		published: make(map[base.RangeID]uint64), alone: make(map[base.RangeID]time.Time), due: make(map[base.RangeID]struct{}), written: make(map[base.RangeID]struct{}),
		frozen: make(map[base.RangeID]frozenSince), looks: make(map[base.RangeID]int), wanted: make(map[base.RangeID]wanted),
		stepped: make(map[base.RangeID]time.Time), moving: make(map[base.RangeID]struct{}), lagging: make(map[base.RangeID]struct{}), follow: make(map[base.RangeID]*change.Follower),
	}
}

// Start runs the loop.
func (r *Reconciler) Start() {
	r.WakeAll()
	r.wg.Go(r.run)
	r.wg.Go(r.watchNodes)
	r.wg.Go(r.watchSizes)
	r.wg.Go(r.watchLoads)
}

// Stop ends it; a step under way is finished by whoever leads next.
func (r *Reconciler) Stop() {
	r.cancel()
	r.wg.Wait()
}

// Wake has it look now at what is left to be done.
func (r *Reconciler) Wake() { signal(r.wake) }

// Changed has it look at a replica whose role, leader or descriptor is another.
func (r *Reconciler) Changed(c raftgroup.StateChange) {
	r.mu.Lock()
	r.due[c.Range] = struct{}{}
	r.mu.Unlock()
	r.Wake()
}

// WakeAll has it look at every range: a node is reached again.
func (r *Reconciler) WakeAll() {
	ids := r.cfg.Store.Ranges()
	r.mu.Lock()
	for _, id := range ids {
		r.due[id] = struct{}{}
	}
	r.mu.Unlock()
	r.Wake()
}

// take returns the ranges to be looked at, in order, and forgets them.
func (r *Reconciler) take() []base.RangeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.Sorted(maps.Keys(r.due))
	clear(r.due)
	return ids
}

// NodesChanged has it read the nodes' records again.
func (r *Reconciler) NodesChanged() { signal(r.nodes) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *Reconciler) run() {
	again, lagging, soon := time.NewTimer(base.ReconcileInterval), time.NewTicker(base.LaggingInterval), time.NewTimer(base.ReconcileInterval)
	defer again.Stop()
	defer lagging.Stop()
	defer soon.Stop()
	for {
		var ids []base.RangeID
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
			ids = r.take()
		case <-again.C:
			ids = r.take()
		case <-lagging.C:
			ids = r.late()
		case <-soon.C:
			ids = slices.Sorted(maps.Keys(r.moving))
			clear(r.moving)
		}
		if r.pass(ids) {
			again.Reset(base.ReconcileInterval)
		}
		if r.ctx.Err() != nil {
			return
		}
		if len(r.moving) > 0 {
			soon.Reset(base.StepInterval)
		}
	}
}

// pass looks at ranges, and says whether some must be looked at again without being told. Those of which a step was taken a moment
// ago are looked at soon: a replica that comes in has caught up in a moment, and does not say so.
func (r *Reconciler) pass(ids []base.RangeID) (left bool) {
	var nodes *observed
	for _, id := range ids {
		if r.ctx.Err() != nil {
			return false
		}
		if !r.look(id, &nodes) {
			delete(r.stepped, id)
			continue
		}
		if at, ok := r.stepped[id]; ok && time.Since(at) < base.StepSoon {
			r.moving[id] = struct{}{}
			continue
		}
		left = true
		r.mu.Lock()
		r.due[id] = struct{}{}
		r.mu.Unlock()
	}
	return left
}

// look looks at one range, and says whether it must be looked at again without being told.
func (r *Reconciler) look(id base.RangeID, nodes **observed) bool {
	st, ok := r.cfg.Store.State(id)
	if !ok || st.Role != raftgroup.Leader {
		r.ledNoMore(id)
	}
	if !ok || st.Leader != 0 {
		delete(r.alone, id)
		return ok && st.Role == raftgroup.Leader && !r.lead(id, nodes)
	}
	switch {
	case r.alone[id].IsZero():
		r.alone[id] = time.Now()
	case time.Since(r.alone[id]) > base.OrphanAfter:
		delete(r.alone, id) // asked again after as long
		r.askIndex(id, st.Replica)
	}
	return true
}

// askIndex finds out whether a replica that hears of no leader is still one of its range. The root range is in no index.
func (r *Reconciler) askIndex(id base.RangeID, replica base.ReplicaID) {
	view := r.cfg.Store.View(id)
	if view == nil {
		return
	}
	own := view.Descriptor
	index, ok := route.IndexKeyspace(base.KeyspaceID(own.KeyspaceId))
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	// By its first key: that stays its own, whatever was cut off behind it meanwhile.
	start, end := route.IndexSpan(base.KeyspaceID(own.KeyspaceId), own.Start)
	resp, err := r.cfg.Dispatch.Range(ctx, index, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: 1})
	if err != nil {
		return // the index is as far away as the leader is
	}
	if len(resp.Kvs) == 0 { // it does not know the range yet, or no more
		if gone, err := r.cfg.Gone(ctx, base.KeyspaceID(own.KeyspaceId)); err == nil && gone {
			r.cfg.Logger.Info("this replica's keyspace was dropped", "range", id, "keyspace", base.KeyspaceID(own.KeyspaceId))
			r.cfg.Store.Drop(id)
		}
		return
	}
	indexed := &metapb.RangeDescriptor{}
	if err := proto.Unmarshal(resp.Kvs[0].Value, indexed); err != nil {
		r.cfg.Logger.Error("an index entry cannot be read", "range", id, "error", err)
		return
	}
	if change.Remnant(own, r.cfg.Store.Left(own), indexed) {
		r.cfg.Logger.Info("this replica is what is left of a range that was merged", "range", id, "into", indexed.RangeId)
		r.cfg.Store.Drop(id)
		return
	}
	if below, ok := change.Orphaned(own, replica, r.cfg.Node, indexed); ok {
		r.cfg.Logger.Info("the index does not list this replica: it was removed", "range", id, "replica", replica, "generation", indexed.Generation)
		r.cfg.Store.Removed(id, replica, below)
	}
}

// lead looks after one range that this node leads, and says whether it is as it should be.
func (r *Reconciler) lead(id base.RangeID, nodes **observed) (done bool) {
	st, ok, err := r.cfg.Store.Status(r.ctx, id)
	if err != nil || !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
		return false // it is told when somebody else leads
	}
	if err := r.publish(st.Descriptor); err != nil {
		if r.ctx.Err() == nil {
			r.cfg.Logger.Debug("descriptor not published yet", "range", id, "error", err)
		}
	} else {
		done = r.unmerged(st.Descriptor)
	}
	if *nodes == nil {
		*nodes = r.observe()
	}
	stepped, busy, err := r.step(&st, *nodes)
	late := behind(&st, *nodes)
	r.lag(id, len(late) > 0)
	r.cfg.Reports.Replicas(id, late, busy)
	if err != nil && r.ctx.Err() == nil {
		r.cfg.Logger.Info("replica change did not go through; it is tried again", "range", id, "error", err)
	}
	return done && stepped
}

// publish puts the descriptor into the index that lists the range, unless it is there already.
func (r *Reconciler) publish(d *metapb.RangeDescriptor) error {
	id := base.RangeID(d.RangeId)
	index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
	if !ok || r.published[id] >= d.Generation {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	key := route.DescriptorKey(d)
	if r.inIndex(ctx, index, d) {
		r.published[id] = d.Generation
		return nil
	}
	_, err := r.cfg.Dispatch.Propose(ctx, index, key, &kvpb.Command{
		Body: &kvpb.Command_PublishDescriptor{PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: d}},
	})
	if err == nil {
		err = r.clear(ctx, index, d)
	}
	if err == nil {
		r.published[id] = d.Generation
	}
	return err
}

// inIndex says whether a lookup of the range's first key finds the descriptor: a new leader's predecessor will have published it,
// and ten thousand new leaders at once need not write that again. It asks a replica of the index, as old as it may be: an index
// entry's generation only grows.
func (r *Reconciler) inIndex(ctx context.Context, index base.KeyspaceID, d *metapb.RangeDescriptor) bool {
	start, end := route.IndexSpan(base.KeyspaceID(d.KeyspaceId), d.Start)
	resp, err := r.cfg.Dispatch.Range(ctx, index, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: 1, Serializable: true})
	if err != nil || len(resp.Kvs) == 0 {
		return false
	}
	indexed := &metapb.RangeDescriptor{}
	return proto.Unmarshal(resp.Kvs[0].Value, indexed) == nil && indexed.RangeId == d.RangeId && indexed.Generation >= d.Generation
}

// step carries out the next step of the range's replica change; done says that there is none, and that none will come by
// itself. busy says why nobody else is to decide for the range now.
func (r *Reconciler) step(st *raftgroup.Status, o *observed) (done bool, busy string, err error) {
	step, done, busy := r.next(st, o, r.cfg.Store.Now())
	switch {
	case done:
	case step.Transfer != 0:
		r.cfg.Logger.Info("handing leadership over", "range", st.Range, "to", step.Transfer, "reason", step.Reason)
		r.cfg.Store.Transfer(st.Range, step.Transfer)
	case step.Propose != nil: // else it waits for what the reason says
		err = r.propose(st, &step)
	}
	return done, busy, err
}

// propose puts a step into the range's log.
func (r *Reconciler) propose(st *raftgroup.Status, step *change.Step) error {
	cmd, cc, err := apply.Change(st.Descriptor, step.Propose)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	_, err = r.cfg.Dispatch.ProposeChange(ctx, raftgroup.Proposal{Range: st.Range, Data: data, Change: cc})
	var stale *base.StaleGeneration
	switch {
	case errors.As(err, &stale):
		return nil // somebody else took a step: look again
	case err != nil:
		return err
	}
	r.cfg.Logger.Info("replica change", "range", st.Range, "reason", step.Reason, "generation", step.Propose.Generation)
	r.stepped[st.Range] = time.Now()
	return nil
}

// ledNoMore forgets what only a leader needs.
func (r *Reconciler) ledNoMore(id base.RangeID) {
	delete(r.lagging, id)
	delete(r.stepped, id)
	r.mu.Lock()
	delete(r.follow, id)
	delete(r.wanted, id)
	r.mu.Unlock()
}

// observed says which nodes this node does not reach now.
type observed struct{ down []base.NodeID }

// observe is made once for all ranges that are looked at together. A node that nothing was ever sent to is taken to be up: the
// first message to it will show.
func (r *Reconciler) observe() *observed {
	o := &observed{}
	for _, p := range r.cfg.Peers.Peers() {
		if !p.Up {
			o.down = append(o.down, p.Node)
		}
	}
	return o
}

// watchNodes reads the nodes' records from `sys` when they may have changed: told by the local replica of sys, and
// once in a while on nodes that have none.
func (r *Reconciler) watchNodes() {
	tick := time.NewTicker(base.NodesInterval)
	defer tick.Stop()
	for {
		if err := r.readNodes(); err != nil && r.ctx.Err() == nil {
			r.cfg.Logger.Debug("the nodes' records were not read", "error", err)
		}
		select {
		case <-r.ctx.Done():
			return
		case <-r.nodes:
		case <-tick.C:
		}
	}
}

func (r *Reconciler) readNodes() error {
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	start, end := join.RecordSpan()
	req := &pb.RangeRequest{Key: start, RangeEnd: end, Serializable: true}
	resp, err := r.cfg.Dispatch.Range(ctx, base.KeyspaceSys, req)
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		rec := &metapb.NodeRecord{}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return &base.Corruption{Where: string(kv.Key), Cause: err}
		}
		r.cfg.Learn(rec)
	}
	return nil
}

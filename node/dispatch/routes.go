package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// routes is the node's descriptor cache: it is fed by local replicas, by refusals and by lookups.
type routes struct {
	mu    sync.Mutex
	cache *route.Cache
	taken map[base.RangeID]taken // ranges that others have taken over
}

// taken is where the keys of a range begin that is another's now.
type taken struct {
	ks    base.KeyspaceID
	start []byte
}

func newRoutes() *routes {
	return &routes{cache: route.NewCache(base.DescriptorCache), taken: make(map[base.RangeID]taken)}
}

func (r *routes) find(ks base.KeyspaceID, key []byte) *metapb.RangeDescriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache.Find(ks, key)
}

// instead says what is known of a range that has no replica here: itself, or what holds its keys since it was taken over.
func (r *routes) instead(id base.RangeID) []*metapb.RangeDescriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.cache.Known(id)
	if t, ok := r.taken[id]; ok {
		d = r.cache.Find(t.ks, t.start)
	}
	if d == nil {
		return nil
	}
	return []*metapb.RangeDescriptor{d}
}

// ended takes note of a range that was taken over by another, whose descriptor is known or will be in a moment.
func (r *routes) ended(d *metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.taken) >= base.TakenOver {
		clear(r.taken) // the index knows them too
	}
	r.taken[base.RangeID(d.RangeId)] = taken{base.KeyspaceID(d.KeyspaceId), d.Start}
	r.cache.Drop(d)
}

func (r *routes) beside(refusal []*metapb.RangeDescriptor) []*metapb.RangeDescriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache.Beside(refusal)
}

func (r *routes) learn(ds ...*metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range ds {
		r.cache.Put(d)
	}
}

func (r *routes) moved(asked *metapb.RangeDescriptor, known []*metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.Moved(asked, known)
}

func (r *routes) doubt(d *metapb.RangeDescriptor, now base.Instant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache.Doubt(d, now)
}

func (r *routes) trust(d *metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.Trust(d)
}

// Learn takes descriptors that another node told.
func (d *Dispatcher) Learn(ds ...*metapb.RangeDescriptor) { d.routes.learn(ds...) }

// Forget drops a descriptor: nobody has used it for long, and the index has it.
func (d *Dispatcher) Forget(desc *metapb.RangeDescriptor) {
	d.routes.mu.Lock()
	defer d.routes.mu.Unlock()
	d.routes.cache.Drop(desc)
}

// Root is the root range's descriptor as far as this node knows.
func (d *Dispatcher) Root(ctx context.Context) (*metapb.RangeDescriptor, error) {
	return d.descriptor(ctx, base.KeyspaceRoot, nil)
}

// Where is what this node knows at once: the range that holds a key, nil if it does not know, and the node that leads it, 0 if
// no replica here knows of one.
func (d *Dispatcher) Where(ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, base.NodeID) {
	found := d.routes.find(ks, key)
	if found == nil {
		return nil, 0
	}
	id := base.RangeID(found.RangeId)
	if st, ok := d.cfg.Store.State(id); ok && d.cfg.Store.Has(id) {
		return found, st.LeaderNode
	}
	return found, 0
}

// Term is the Raft term of the keyspace's (first) range, as far as this node knows.
func (d *Dispatcher) Term(ks base.KeyspaceID) uint64 {
	desc := d.routes.find(ks, nil)
	if desc == nil {
		return 0
	}
	st, _ := d.cfg.Store.State(base.RangeID(desc.RangeId))
	return st.Term
}

// descriptor finds the range that holds a key: in the cache, or by asking the index, in at most three hops.
func (d *Dispatcher) descriptor(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error) {
	if desc := d.routes.find(ks, key); desc != nil {
		return desc, nil
	}
	return d.lookUp(ctx, route.NewLookup(d.routes.cache, ks, key))
}

// lookAgain finds out, beside the requests that wait, whether a range is where it is looked for: nobody there leads it. What is
// newer wakes them.
func (d *Dispatcher) lookAgain(r *metapb.RangeDescriptor, key []byte) {
	if !d.begin() {
		return
	}
	go func() {
		defer d.wg.Done()
		ctx, cancel := context.WithTimeout(d.ctx, base.DoubtAfter)
		defer cancel()
		if _, err := d.lookUp(ctx, route.Again(d.routes.cache, r, key)); err == nil {
			d.wake()
		}
	}()
}

// lookUp asks what a lookup wants to know.
func (d *Dispatcher) lookUp(ctx context.Context, lookup *route.Lookup) (*metapb.RangeDescriptor, error) {
	for {
		d.routes.mu.Lock()
		q := lookup.Next()
		d.routes.mu.Unlock()
		var found []*metapb.RangeDescriptor
		var err error
		switch {
		case q.Found != nil:
			return q.Found, nil
		case q.Failed != nil:
			return nil, q.Failed
		case q.Root:
			found, err = d.askRoot(ctx)
		default:
			found, err = d.readIndex(ctx, q.Index)
		}
		var (
			moved     *base.RangeMoved
			notLeader *base.NotLeader
			doubt     bool
		)
		d.routes.mu.Lock()
		switch {
		case err == nil:
			lookup.Learn(found...)
		case errors.As(err, &moved):
			lookup.Refused(moved.Descriptors...)
			err = nil
		case errors.As(err, &notLeader):
			doubt = lookup.Unled(d.cfg.Store.Now())
		}
		d.routes.mu.Unlock()
		if doubt {
			d.lookAgain(q.Index.Range, q.Index.Start)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (d *Dispatcher) askRoot(ctx context.Context) ([]*metapb.RangeDescriptor, error) {
	desc, err := d.cfg.Root(ctx)
	if err != nil {
		if d.cfg.Logger != nil {
			d.cfg.Logger.Debug("the root range was not found; it is asked for again", "error", err)
		}
		return nil, &route.NoRange{Keyspace: base.KeyspaceRoot, Asked: 1} // nobody was there to ask: worth another try
	}
	return []*metapb.RangeDescriptor{desc}, nil
}

// readIndex reads the index's entry from the range that holds it. The range is tried once at each of its nodes; what
// is wrong with it is for the lookup to mend.
func (d *Dispatcher) readIndex(ctx context.Context, q *route.IndexRead) ([]*metapb.RangeDescriptor, error) {
	req := &pb.RangeRequest{Key: q.Start, RangeEnd: q.End, Limit: 1}
	var last error
	own := d.own(base.RangeID(q.Range.RangeId))
	for _, node := range route.Order(q.Range, own) {
		if node == own.Node && !own.Has {
			return nil, d.absent(base.RangeID(q.Range.RangeId))
		}
		resp := &pb.RangeResponse{}
		err := d.readAt(ctx, q.Range, node, req, resp)
		var moved *base.RangeMoved
		if errors.As(err, &moved) || err == nil && len(resp.Kvs) == 0 {
			return nil, err
		}
		if err != nil {
			last = err
			continue
		}
		found := &metapb.RangeDescriptor{}
		if err := proto.Unmarshal(resp.Kvs[0].Value, found); err != nil {
			return nil, &base.Corruption{Where: fmt.Sprintf("index entry %q", resp.Kvs[0].Key), Cause: err}
		}
		return []*metapb.RangeDescriptor{found}, nil
	}
	return nil, last
}

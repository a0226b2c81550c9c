package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// Merges are what a Reconciler needs to merge ranges: node/keyspace has them.
type Merges interface {
	MergeNow(ctx context.Context, left, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error)
	ResumeMerge(ctx context.Context, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error)
	FinishMerge(ctx context.Context, left *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error)
}

// unmerged goes on with a merge that another began and did not end, of a range that this node leads; true if there is none. A range
// is frozen for a few round trips where nothing is wrong: whoever froze it is left that long.
func (r *Reconciler) unmerged(d *metapb.RangeDescriptor) (none bool) {
	id := base.RangeID(d.RangeId)
	if !desc.IsFrozen(d) {
		delete(r.frozen, id)
		if d.Absorbing == 0 {
			return true
		}
	} else if since, ok := r.frozen[id]; !ok || since.generation != d.Generation {
		r.frozen[id] = frozenSince{d.Generation, time.Now()}
		return false
	} else if time.Since(since.at) < base.MergePatience {
		return false
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	end := r.cfg.Merges.FinishMerge
	if desc.IsFrozen(d) {
		end = r.cfg.Merges.ResumeMerge
	}
	_, err := end(ctx, d)
	if desc.IsFrozen(d) {
		r.cfg.Logger.Info("a merge that was broken off is ended", "range", id, "outcome", err)
	} else if err != nil && r.ctx.Err() == nil {
		r.cfg.Logger.Debug("a merge is not finished yet", "range", id, "error", err)
	}
	return false
}

// frozenSince is when a leader first saw its range frozen at a generation.
type frozenSince struct {
	generation uint64
	at         time.Time
}

// clear deletes the index's entries of ranges that are part of d by now. Its own entry is there.
func (r *Reconciler) clear(ctx context.Context, index base.KeyspaceID, d *metapb.RangeDescriptor) error {
	start, _ := route.IndexSpan(base.KeyspaceID(d.KeyspaceId), d.Start)
	resp, err := r.cfg.Dispatch.Range(ctx, index, &pb.RangeRequest{Key: start, RangeEnd: route.DescriptorKey(d)})
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		_, err := r.cfg.Dispatch.Propose(ctx, index, kv.Key, &kvpb.Command{Body: &kvpb.Command_UnpublishDescriptor{
			UnpublishDescriptor: &kvpb.UnpublishDescriptor{Key: kv.Key, Generation: d.Generation},
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// Align has a range's replicas brought to where another's are, if this node leads it, for base.AlignTime. It may be asked
// again, which counts from then on.
func (r *Reconciler) Align(id base.RangeID, with *metapb.RangeDescriptor) {
	var nodes []base.NodeID
	for _, rep := range with.Replicas {
		nodes = append(nodes, base.NodeID(rep.NodeId))
	}
	r.mu.Lock()
	r.wanted[id] = wanted{change.On(nodes...), r.cfg.Store.Now().Add(base.AlignTime)}
	r.due[id] = struct{}{}
	r.mu.Unlock()
	r.Wake()
}

// wanted is where somebody wants a range's voters, and until when.
type wanted struct {
	goal  change.Goal
	until base.Instant
}

// calm takes note of which ranges were written to since the last look, and returns those to which it was long enough ago that
// they may be merged. A range is returned once, and again after it was written to.
func (r *Reconciler) calm(written map[base.RangeID]struct{}) (due []base.RangeID) {
	for id := range written {
		r.looks[id] = 0
	}
	for _, id := range slices.Sorted(maps.Keys(r.looks)) {
		if _, now := written[id]; now {
			continue
		}
		if r.looks[id]++; r.looks[id] < base.MergeCalm {
			continue
		}
		if r.cfg.Store.Rate(id) >= base.MergeQuiet {
			continue // it is read: looked at again until it is not
		}
		delete(r.looks, id)
		due = append(due, id)
	}
	return due
}

// merge merges a range that this node leads with its neighbours, as long as they are small and nobody writes to them.
func (r *Reconciler) merge(id base.RangeID) {
	for r.ctx.Err() == nil {
		view := r.cfg.Store.View(id)
		if st, ok := r.cfg.Store.State(id); view == nil || !ok || st.Role != raftgroup.Leader || !base.KeyspaceID(view.Descriptor.KeyspaceId).Splits() {
			return
		}
		own := view.Descriptor
		left, right := r.neighbours(own)
		switch {
		case r.mayMerge(own, right):
			left = own
		case r.mayMerge(left, own):
			right = own
		default:
			return
		}
		ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
		whole, err := r.cfg.Merges.MergeNow(ctx, left, right)
		cancel()
		if err != nil {
			r.cfg.Logger.Info("two small ranges were not merged", "left", desc.Format(left), "right", desc.Format(right), "error", err)
			r.looks[id] = 0 // it is tried again
			return
		}
		r.cfg.Logger.Info("ranges merged: they were small and at rest", "left", left.RangeId, "right", right.RangeId, "merged", desc.Format(whole))
		id = base.RangeID(whole.RangeId)
	}
}

// neighbours are the ranges beside one that have a replica here: those that do not are on other nodes. The index says which they are,
// so that ten thousand ranges are not looked through for each; where it is behind, the range is looked at again.
func (r *Reconciler) neighbours(d *metapb.RangeDescriptor) (left, right *metapb.RangeDescriptor) {
	ks := base.KeyspaceID(d.KeyspaceId)
	if len(d.Start) > 0 {
		key := route.IndexKey(ks, d.Start) // of the range that ends there
		left = r.beside(d, &pb.RangeRequest{Key: key}, func(n *metapb.RangeDescriptor) bool { return desc.Neighbours(n, d) })
	}
	if len(d.End) > 0 {
		start, end := route.IndexSpan(ks, d.End)
		right = r.beside(d, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: 1}, func(n *metapb.RangeDescriptor) bool { return desc.Neighbours(d, n) })
	}
	return left, right
}

// beside is the neighbour that an index entry leads to, as it is here; nil if it is on other nodes, or not known.
func (r *Reconciler) beside(d *metapb.RangeDescriptor, entry *pb.RangeRequest, neighbour func(*metapb.RangeDescriptor) bool) *metapb.RangeDescriptor {
	index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	entry.Serializable = true
	resp, err := r.cfg.Dispatch.Range(ctx, index, entry)
	if err == nil && len(resp.Kvs) == 1 {
		indexed, err := desc.Decode(resp.Kvs[0].Value)
		switch {
		case err != nil:
		case !neighbour(indexed): // the index has not been told of a split or a merge yet
		case desc.ReplicaOn(indexed, r.cfg.Node) == nil:
			return nil
		default:
			if v := r.cfg.Store.View(base.RangeID(indexed.RangeId)); v != nil && neighbour(v.Descriptor) {
				return v.Descriptor
			}
		}
	}
	r.looks[base.RangeID(d.RangeId)] = 0
	return nil
}

// mayMerge says whether two neighbours are to be merged by themselves: what was cut by hand was cut for a reason, and what was
// written to a moment ago will be again.
func (r *Reconciler) mayMerge(left, right *metapb.RangeDescriptor) bool {
	if left == nil || right == nil || right.Sticky || desc.Mergeable(left, right) != nil {
		return false
	}
	for _, d := range []*metapb.RangeDescriptor{left, right} {
		id := base.RangeID(d.RangeId)
		if _, busy := r.looks[id]; busy || r.cfg.Store.Rate(id) >= base.MergeQuiet {
			return false
		}
	}
	whole := proto.CloneOf(left)
	whole.End = right.End
	small, err := r.cfg.Store.Smaller(r.ctx, whole, r.cfg.SplitBytes/base.MergeFraction)
	if err != nil && r.ctx.Err() == nil {
		r.cfg.Logger.Error("a range's size is not known", "range", left.RangeId, "error", err)
	}
	return small && err == nil
}

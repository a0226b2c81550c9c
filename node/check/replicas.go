package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// compareAll compares the replicas of all ranges, a few ranges at once.
func (c *checker) compareAll(ctx context.Context, l *look) {
	var g errgroup.Group
	g.SetLimit(base.CheckRanges)
	var mu sync.Mutex
	done := 0
	for _, d := range slices.SortedFunc(mapValues(l.own), func(a, b *metapb.RangeDescriptor) int { return int(a.RangeId) - int(b.RangeId) }) {
		g.Go(func() error {
			c.compare(ctx, l.name(base.KeyspaceID(d.KeyspaceId)), d)
			mu.Lock()
			defer mu.Unlock()
			done++
			c.progress("comparing replicas", done, len(l.own))
			return nil
		})
	}
	_ = g.Wait() // what could not be compared is said where it is met
}

// errRedo: the range was compacted, split or moved while it was compared. What was seen of it so far is not wrong.
var errRedo = errors.New("the range changed at every try: it is compacted, split or moved without a pause")

// errFound: what was found is such that there is nothing left to compare.
var errFound = errors.New("found")

var errNoReplica = errors.New("it has no replica that is ready: one that waits for its first snapshot, or none at all")

// compare compares the replicas of one range, from the beginning again if it changes meanwhile.
func (c *checker) compare(ctx context.Context, keyspace string, d *metapb.RangeDescriptor) {
	var err error
	missed := map[base.NodeID]string{}
	for range base.CheckTries {
		r := &comparison{c: c, keyspace: keyspace, missed: missed, sums: map[base.NodeID]*rangepb.ChecksumResponse{}}
		if err = r.begin(ctx, d); err == nil {
			err = r.pages(ctx)
		}
		if err == nil || errors.Is(err, errFound) {
			r.finish()
			return
		}
		if !errors.Is(err, errRedo) {
			break
		}
		c.mu.Lock()
		c.sum.Redone++
		c.mu.Unlock()
		if r.d != nil {
			d = r.d
		}
	}
	c.unseen(&clusterpb.CheckUnseen{Keyspace: keyspace, RangeId: d.RangeId, Reason: err.Error()})
}

// comparison is of one range's replicas at one revision.
type comparison struct {
	c        *checker
	keyspace string
	d        *metapb.RangeDescriptor
	revision int64
	mark     int64                                     // the compaction's
	nodes    []base.NodeID                             // whose replicas are compared; the first says where a page ends
	missed   map[base.NodeID]string                    // why the others are not; empty: it was said already, or there is nothing to miss
	sums     map[base.NodeID]*rangepb.ChecksumResponse // of the present page
	versions uint64
	bytes    uint64
}

// begin fixes the revision and who takes part.
func (r *comparison) begin(ctx context.Context, d *metapb.RangeDescriptor) error {
	r.d = d
	for _, rep := range d.Replicas {
		node := base.NodeID(rep.NodeId)
		if why := r.c.isDown(node); why != "" {
			r.missed[node] = why
		}
		if _, missed := r.missed[node]; !missed {
			r.nodes = append(r.nodes, node)
		}
	}
	for len(r.nodes) > 0 {
		node := r.nodes[0]
		resp, err := r.ask(ctx, node, &rangepb.ChecksumRequest{})
		if err != nil {
			r.miss(node, err)
			continue
		}
		r.revision, r.mark = resp.Revision, resp.Compacted
		return r.same(node, resp.Descriptor_)
	}
	if !slices.ContainsFunc(d.Replicas, func(rep *metapb.Replica) bool { return r.missed[base.NodeID(rep.NodeId)] != "" }) {
		return errFound // what is wrong with each of them was said
	}
	why := "none of its nodes can be asked"
	for _, rep := range d.Replicas {
		node := base.NodeID(rep.NodeId)
		why += fmt.Sprintf("; %s: %s", node, r.missed[node])
	}
	return errors.New(why)
}

// same looks whether a replica that has applied all that is committed is the range that the comparison is of.
func (r *comparison) same(node base.NodeID, own *metapb.RangeDescriptor) error {
	switch {
	case own.Generation > r.d.Generation:
		r.d = own // its replicas may be others
		return errRedo
	case own.Generation < r.d.Generation:
		r.found(node, "a replica that has applied all that is committed is at an older generation than the range was before",
			desc.Format(own), desc.Format(r.d), nextAhead)
		return errFound
	case !desc.Equal(own, r.d):
		r.found(node, "replicas differ in what the range is, at the same generation", desc.Format(own), desc.Format(r.d), nextAhead)
		return errFound
	}
	return nil
}

// miss leaves a node out, from now on. A learner that has nothing yet is not missed.
func (r *comparison) miss(node base.NodeID, err error) {
	r.nodes = slices.DeleteFunc(r.nodes, func(n base.NodeID) bool { return n == node })
	learns := desc.ReplicaOn(r.d, node).GetRole() == metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	switch {
	case isCorrupt(err):
		r.missed[node] = ""
		r.found(node, fmt.Sprintf("the replica on %s holds bytes that cannot be read", node), err.Error(), "-", nextAnew(node))
	case learns && errors.Is(err, errNoReplica):
		r.missed[node] = ""
	default:
		r.missed[node] = err.Error()
	}
}

// pages compares page after page, and stops at the first that differs.
func (r *comparison) pages(ctx context.Context) error {
	var after *rangepb.VersionPosition
	limit := uint64(base.ChecksumPageBytes)
	for {
		first, err := r.page(ctx, after, limit)
		if err != nil {
			return err
		}
		switch {
		case r.agree():
			r.versions, r.bytes = r.versions+first.Versions, r.bytes+first.Bytes
			if first.End {
				return nil
			}
			after = first.Reached
		case limit > 1:
			limit /= narrow
			limit = max(limit, 1)
		default:
			r.differ(after, first)
			return nil
		}
	}
}

// narrow is how much smaller the next page is in one that differs, until it holds a single version.
const narrow = 16

func isCorrupt(err error) bool {
	var corrupt *base.Corruption
	return errors.As(err, &corrupt) || status.Code(err) == codes.DataLoss
}

// page has all replicas hash the same versions, and returns what the first said.
func (r *comparison) page(ctx context.Context, after *rangepb.VersionPosition, limit uint64) (*rangepb.ChecksumResponse, error) {
	clear(r.sums)
	req := &rangepb.ChecksumRequest{Revision: r.revision, Compacted: r.mark, Generation: r.d.Generation, After: after, Limit: limit}
	first, err := r.hash(ctx, r.nodes[0], req)
	if err != nil {
		if !errors.Is(err, errRedo) && !errors.Is(err, errFound) {
			r.miss(r.nodes[0], err) // another is the first
			err = errRedo
		}
		return nil, err
	}
	r.sums[r.nodes[0]] = first
	others := slices.Clone(r.nodes[1:])
	sums, errs := make([]*rangepb.ChecksumResponse, len(others)), make([]error, len(others))
	var wg sync.WaitGroup
	for i, node := range others {
		wg.Go(func() { sums[i], errs[i] = r.whole(ctx, node, req, first.Reached) })
	}
	wg.Wait()
	for i, node := range others {
		var own *metapb.RangeDescriptor
		switch err := errs[i]; {
		case errors.Is(err, errRedo), errors.Is(err, errFound):
			return nil, err
		case err != nil:
			r.miss(node, err)
			continue
		default:
			r.sums[node], own = sums[i], sums[i].Descriptor_
		}
		if err := r.same(node, own); err != nil {
			return nil, err
		}
	}
	return first, nil
}

// whole has a replica hash up to where the first one came, in as many requests as that takes: it may still hold what others have
// removed behind a compaction.
func (r *comparison) whole(ctx context.Context, node base.NodeID, page *rangepb.ChecksumRequest, until *rangepb.VersionPosition) (*rangepb.ChecksumResponse, error) {
	req := &rangepb.ChecksumRequest{Revision: page.Revision, Compacted: page.Compacted, Generation: page.Generation, After: page.After, Until: until}
	for {
		resp, err := r.hash(ctx, node, req)
		if err != nil || resp.End {
			return resp, err
		}
		req.After, req.State = resp.Reached, resp.State
	}
}

func (r *comparison) hash(ctx context.Context, node base.NodeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	resp, err := r.ask(ctx, node, req)
	switch {
	case err != nil:
		return nil, err
	case resp.Hashed:
		return resp, nil
	case resp.Descriptor_.Generation < r.d.Generation:
		return nil, cmp.Or(r.same(node, resp.Descriptor_), errRedo)
	}
	return nil, errRedo // it is cut, moved or compacted further
}

// ask asks again what was refused for a moment.
func (r *comparison) ask(ctx context.Context, node base.NodeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	var err error
	pause := base.RetryMin
	for try := range base.CheckTries {
		var resp *rangepb.ChecksumResponse
		callCtx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
		resp, err = r.c.cfg.Cluster.Checksum(callCtx, node, base.RangeID(r.d.RangeId), req)
		late := callCtx.Err() != nil
		cancel()
		if err == nil {
			return resp, nil
		}
		var moved *base.RangeMoved
		if errors.As(err, &moved) {
			return nil, errNoReplica
		}
		if isCorrupt(err) || status.Code(err) == codes.Unimplemented || status.Code(err) == codes.InvalidArgument {
			return nil, err
		}
		if late || try == base.CheckTries-1 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause = min(2*pause, base.RetryMax)
	}
	return nil, err
}

// agree says whether all that answered say the same.
func (r *comparison) agree() bool {
	first := r.sums[r.nodes[0]]
	for _, n := range r.nodes {
		if r.sums[n].Sum != first.Sum {
			return false
		}
	}
	return true
}

// differ names the replicas that differ from the most; if there is no most, all.
func (r *comparison) differ(after *rangepb.VersionPosition, first *rangepb.ChecksumResponse) {
	where := "behind its last version"
	if after != nil {
		where = fmt.Sprintf("behind key %q at revision %d", after.Key, after.Revision)
	}
	if first.Reached != nil {
		where = fmt.Sprintf("at key %q, revision %d", first.Reached.Key, first.Reached.Revision)
	}
	say := func(n base.NodeID) string {
		s := r.sums[n]
		return fmt.Sprintf("%s: sum %016x of %d versions, generation %d", n, s.Sum, s.Versions, s.Descriptor_.GetGeneration())
	}
	groups := map[uint64][]base.NodeID{}
	for _, n := range r.nodes {
		groups[r.sums[n].Sum] = append(groups[r.sums[n].Sum], n)
	}
	for _, g := range groups {
		if 2*len(g) > len(r.nodes) {
			continue
		}
		for _, n := range g {
			var others []string
			for _, o := range r.nodes {
				if r.sums[o].Sum != r.sums[n].Sum {
					others = append(others, say(o))
				}
			}
			r.found(n, fmt.Sprintf("the replica on %s holds other data than the others, read at revision %d, first %s", n, r.revision, where),
				say(n), strings.Join(others, "; "),
				nextAnew(n))
		}
	}
}

func nextAnew(n base.NodeID) string {
	return fmt.Sprintf("stop %s, keep its store for a report, and start it with an empty one and --replace-lost: its replicas are made anew from the others", n)
}

func (r *comparison) found(node base.NodeID, what, here, there, next string) {
	r.c.found(&clusterpb.CheckFinding{Part: replicas, Keyspace: r.keyspace, RangeId: r.d.RangeId, NodeId: uint64(node), What: what, Here: here, There: there, Next: next})
}

// finish counts what was compared, and what was not.
func (r *comparison) finish() {
	for node, why := range r.missed {
		if why != "" {
			r.c.missed(node, why)
		}
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.sum.Replicas += uint64(len(r.nodes))
	r.c.sum.Versions += r.versions
	r.c.sum.Bytes += r.bytes
}

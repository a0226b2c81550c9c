package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"

	"golang.org/x/sync/errgroup"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// look is what the index and the ranges say at about one time. The index is read first: it may be behind what a range says, and
// never ahead.
type look struct {
	spaces  []space
	known   map[base.KeyspaceID]bool // those that are being made or dropped too
	entries map[base.KeyspaceID][]entry
	broken  []problem
	own     map[base.RangeID]*metapb.RangeDescriptor // as the range itself says
	gone    map[base.RangeID]*metapb.RangeDescriptor // ranges that there are not; and who holds their first key
	unseen  map[base.RangeID]lost
}

// space is a keyspace.
type space struct {
	id   base.KeyspaceID
	name string
}

// entry is one of the index.
type entry struct{ *metapb.RangeDescriptor }

// lost is a range that does not say how it is.
type lost struct {
	last *metapb.RangeDescriptor
	err  error
}

func (c *checker) look(ctx context.Context) (*look, error) {
	l := &look{
		known: map[base.KeyspaceID]bool{}, entries: map[base.KeyspaceID][]entry{}, own: map[base.RangeID]*metapb.RangeDescriptor{},
		gone: map[base.RangeID]*metapb.RangeDescriptor{}, unseen: map[base.RangeID]lost{},
	}
	// The index comes before the records: a keyspace that was made since has entries of none.
	for _, index := range []base.KeyspaceID{base.KeyspaceRoot, base.KeyspaceMeta} {
		if err := c.readIndex(ctx, l, index); err != nil {
			return nil, fmt.Errorf("the index in %s cannot be read: %w", index, err)
		}
	}
	if err := c.readSpaces(ctx, l); err != nil {
		return nil, fmt.Errorf("the keyspaces' records cannot be read: %w", err)
	}
	c.askAll(ctx, l, c.candidates(ctx, l))
	return l, ctx.Err()
}

func (c *checker) readSpaces(ctx context.Context, l *look) error {
	add := func(id base.KeyspaceID, name string) {
		if c.only == "" || c.only == name {
			l.spaces = append(l.spaces, space{id, name})
		}
	}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		l.known[ks] = true
		add(ks, ks.String())
	}
	records, err := c.cfg.Keyspaces(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		l.known[base.KeyspaceID(r.KeyspaceId)] = true
		if r.State == metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE {
			add(base.KeyspaceID(r.KeyspaceId), r.Name)
		}
	}
	return nil
}

// readIndex reads the entries that a keyspace holds.
func (c *checker) readIndex(ctx context.Context, l *look, index base.KeyspaceID) error {
	req := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: base.CheckIndexPage}
	for {
		resp, err := c.cfg.Cluster.Range(ctx, index, req)
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			ks, end, ok := route.DecodeIndexKey(kv.Key)
			d, err := desc.Decode(kv.Value)
			switch {
			case !ok || err != nil:
				l.broken = append(l.broken, brokenEntry(index, kv.Key, err))
				continue
			case string(route.DescriptorKey(d)) != string(kv.Key):
				l.broken = append(l.broken, misplacedEntry(ks, end, d))
			}
			l.entries[ks] = append(l.entries[ks], entry{d})
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// candidates are the ranges that the index or any node knows of: each as who knows it says.
func (c *checker) candidates(ctx context.Context, l *look) map[base.RangeID]*metapb.RangeDescriptor {
	out := map[base.RangeID]*metapb.RangeDescriptor{}
	wanted := map[uint64]bool{}
	for _, s := range l.spaces {
		wanted[uint64(s.id)] = true
		for _, e := range l.entries[s.id] {
			out[base.RangeID(e.RangeId)] = e.RangeDescriptor
		}
	}
	st := c.cfg.Status(ctx)
	for _, r := range st.GetRanges() {
		d := r.Descriptor_
		if id := base.RangeID(d.GetRangeId()); wanted[d.GetKeyspaceId()] && d.GetGeneration() > out[id].GetGeneration() {
			out[id] = d
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.down)
	c.absent = nil
	for _, n := range st.GetNodes() {
		if n.Reachable {
			continue
		}
		c.down[base.NodeID(n.Node.NodeId)] = n.Error
		if s := n.Node.State; s != metapb.NodeState_NODE_STATE_LEFT && s != metapb.NodeState_NODE_STATE_REPLACED {
			c.absent = append(c.absent, n)
		}
	}
	return out
}

// askAll asks the ranges how they are.
func (c *checker) askAll(ctx context.Context, l *look, all map[base.RangeID]*metapb.RangeDescriptor) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(base.CheckAsks)
	done := 0
	for id, d := range all {
		g.Go(func() error {
			own, err := c.askRange(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				l.unseen[id] = lost{d, err}
			case base.RangeID(own.RangeId) != id:
				l.gone[id] = own
			default:
				l.own[id] = own
			}
			done++
			c.progress("asking the ranges", done, len(all))
			return nil
		})
	}
	_ = g.Wait() // each range carries its own error
}

// askRange returns what a range says of itself; or, if no node has it, the range that holds its first key.
func (c *checker) askRange(ctx context.Context, d *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	var errs []error
	for tried := map[base.NodeID]bool{}; ; {
		node := nextNode(d, tried)
		if node == 0 {
			break
		}
		tried[node] = true
		if why := c.isDown(node); why != "" {
			errs = append(errs, fmt.Errorf("%s: %s", node, why))
			continue
		}
		resp, err := c.probe(ctx, node, base.RangeID(d.RangeId))
		if err == nil {
			return resp.Descriptor_, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", node, err))
		var moved *base.RangeMoved
		if errors.As(err, &moved) {
			for _, known := range moved.Descriptors {
				if known.GetRangeId() == d.RangeId && known.Generation > d.Generation {
					d = known
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, base.CheckProbeTimeout)
	defer cancel()
	holder, err := c.cfg.Cluster.Descriptor(ctx, base.KeyspaceID(d.KeyspaceId), d.Start)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	return holder, nil
}

func (c *checker) probe(ctx context.Context, node base.NodeID, id base.RangeID) (*rangepb.ChecksumResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, base.CheckProbeTimeout)
	defer cancel()
	return c.cfg.Cluster.Checksum(ctx, node, id, &rangepb.ChecksumRequest{})
}

// nextNode is one that has a replica and was not asked yet; 0 if there is none.
func nextNode(d *metapb.RangeDescriptor, tried map[base.NodeID]bool) base.NodeID {
	for _, r := range d.Replicas {
		if n := base.NodeID(r.NodeId); !tried[n] {
			return n
		}
	}
	return 0
}

func mapValues[K comparable, V any](m map[K]V) iter.Seq[V] { return maps.Values(m) }

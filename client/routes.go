package client

import (
	"strconv"
	"sync"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// routes is what the client has heard of where keys are: which keyspace a name leads to, the ranges of the keyspaces, who leads
// each, and where the nodes are. All of it may be out of date, and all of it is bounded; what was dropped is told again by the
// next answer.
type routes struct {
	mu      sync.Mutex
	limit   int
	began   instant
	ranges  *route.Cache
	leaders map[base.RangeID]base.NodeID
	names   map[string]base.KeyspaceID
	nodes   map[base.NodeID]string
}

func newRoutes(limit int) *routes {
	return &routes{
		limit: limit, began: now(), ranges: route.NewCache(limit), leaders: make(map[base.RangeID]base.NodeID),
		names: make(map[string]base.KeyspaceID), nodes: make(map[base.NodeID]string),
	}
}

// place is where a key is, as far as is known.
type place struct {
	Range  *metapb.RangeDescriptor // nil: not known
	Leader base.NodeID             // 0: not known
	Addr   string                  // of the leader; empty: not known
}

// hint is what the node that is asked is told of it (base.RouteHeader). Who does not know the leader claims to know no generation
// either: a leader that was asked by chance says nothing to those who know all that it could say.
func (p place) hint() string {
	generation := p.Range.GetGeneration()
	if p.Addr == "" {
		generation = 0
	}
	b := strconv.AppendUint(make([]byte, 0, 24), p.Range.GetRangeId(), 10)
	return string(strconv.AppendUint(append(b, '.'), generation, 10))
}

func (r *routes) find(keyspace string, key []byte) (p place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ks, ok := r.names[keyspace]
	if !ok {
		return p
	}
	if p.Range = r.ranges.Find(ks, key); p.Range != nil {
		p.Leader = r.leaders[base.RangeID(p.Range.RangeId)]
		p.Addr = r.nodes[p.Leader]
	}
	return p
}

// replicas are the addresses of a range's nodes, those that may lead it in front.
func (r *routes) replicas(d *metapb.RangeDescriptor) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range route.Order(d, route.Own{}) {
		if a := r.nodes[n]; a != "" {
			out = append(out, a)
		}
	}
	return out
}

// some are the addresses of at most n nodes that were heard of, whichever.
func (r *routes) some(n int) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.nodes {
		if len(out) == n {
			break
		}
		out = append(out, a)
	}
	return out
}

// learn takes what a node told beside its answer to a request that went to asked.
func (r *routes) learn(keyspace string, asked place, told *clusterpb.Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bound(r.names, base.KeyspaceNames)
	r.names[keyspace] = base.KeyspaceID(told.KeyspaceId)
	for _, n := range told.Nodes {
		bound(r.nodes, base.ClientNodes)
		r.nodes[base.NodeID(n.NodeId)] = n.Address
	}
	if told.Range == nil {
		return
	}
	if told.Leads && asked.Range != nil && told.Range.RangeId != asked.Range.RangeId {
		r.ranges.Moved(asked.Range, []*metapb.RangeDescriptor{told.Range}) // what was asked for holds the key no more
	} else {
		r.ranges.Put(told.Range)
	}
	bound(r.leaders, r.limit)
	if id := base.RangeID(told.Range.RangeId); told.LeaderNode != 0 {
		r.leaders[id] = base.NodeID(told.LeaderNode)
	} else {
		delete(r.leaders, id)
	}
}

// put takes descriptors that came with a refusal.
func (r *routes) put(ds []*metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range ds {
		r.ranges.Put(d)
	}
}

// unled forgets who leads a range: that node did not answer.
func (r *routes) unled(p place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id := base.RangeID(p.Range.GetRangeId()); p.Leader != 0 && r.leaders[id] == p.Leader {
		delete(r.leaders, id)
	}
}

// doubt takes note that a range was not served where it is said to be. If that has been so for longer than an election takes, it
// is forgotten: its nodes may be cut off from the others, or no longer its nodes, and any other knows better.
func (r *routes) doubt(d *metapb.RangeDescriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ranges.Doubt(d, base.Instant(since(r.began))) {
		r.ranges.Drop(d)
	}
}

// unnamed forgets what a name leads to: nothing any more.
func (r *routes) unnamed(keyspace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, keyspace)
}

// bound makes room for one more: what is dropped is told again.
func bound[K comparable, V any](m map[K]V, limit int) {
	if len(m) >= limit {
		clear(m)
	}
}

package serve

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// A node serves every request, whoever leads the range. Cairn's own client goes straight to the leader all the same, and says
// with each request which range it took that to be. If it was wrong, or could know more, it is told in the answer's trailer: so
// its cache is filled and healed by the requests that it makes anyway. etcd's clients say nothing, and are told nothing.

// Where is what a node knows of a range without asking anybody.
type Where struct {
	Range  *metapb.RangeDescriptor // nil: it does not know which range holds the key
	Leader base.NodeID             // 0: it knows of none
}

// routeHint is what the client took the range of its request's first key to be; ok if it is one that says so.
func routeHint(ctx context.Context) (id base.RangeID, gen base.Generation, ok bool) {
	hints := metadata.ValueFromIncomingContext(ctx, base.RouteHeader)
	if len(hints) == 0 {
		return 0, 0, false
	}
	r, g, _ := strings.Cut(hints[len(hints)-1], ".")
	rn, err1 := strconv.ParseUint(r, 10, 64)
	gn, err2 := strconv.ParseUint(g, 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, true // it says that it wants to be told
	}
	return base.RangeID(rn), base.Generation(gn), true
}

// tellRoute puts what the client did not know into the trailer.
func (c *Config) tellRoute(ctx context.Context, req any) {
	id, gen, asks := routeHint(ctx)
	key, keyed := firstKey(req)
	if !asks || !keyed || ctx.Err() != nil {
		return
	}
	ks, err := c.keyspace(ctx) // as the handler found it a moment ago
	if err != nil {
		return
	}
	if r := c.route(ks, key, id, gen); r != nil {
		if raw, err := proto.Marshal(r); err == nil {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(base.RouteTrailer, string(raw))) // it fails when nobody waits any more
		}
	}
}

// route is what a client that knows this generation of this range does not know; nil if there is nothing.
func (c *Config) route(ks base.KeyspaceID, key []byte, id base.RangeID, gen base.Generation) *clusterpb.Route {
	self := c.Backend.Identity().NodeID
	w := c.Backend.Where(ks, key)
	leads := w.Range != nil && w.Leader == self
	if leads && base.RangeID(w.Range.RangeId) == id && base.Generation(w.Range.Generation) <= gen {
		return nil
	}
	r := &clusterpb.Route{KeyspaceId: uint64(ks), Range: w.Range, LeaderNode: uint64(w.Leader), Leads: leads}
	for _, n := range c.Backend.Members() {
		if slices.ContainsFunc(w.Range.GetReplicas(), func(x *metapb.Replica) bool { return x.NodeId == n.NodeId }) {
			r.Nodes = append(r.Nodes, &clusterpb.NodeAddress{NodeId: n.NodeId, Address: n.Address})
		}
	}
	return r
}

// firstKey is what a request is routed by; false for one that is not.
func firstKey(req any) ([]byte, bool) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return r.Key, true
	case *pb.PutRequest:
		return r.Key, true
	case *pb.DeleteRangeRequest:
		return r.Key, true
	case *pb.TxnRequest:
		return eval.FirstKey(r), true
	}
	return nil, false
}

package check

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Cluster is what a check needs of the cluster. The errors are those of internal/base.
type Cluster interface {
	Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error)
	// Descriptor is the range that holds a key, as a replica that has applied all that is committed knows it.
	Descriptor(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error)
	// Checksum hashes a page of one node's replica, or says only how the range is.
	Checksum(ctx context.Context, node base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error)
}

// Config says what a check works with.
type Config struct {
	Cluster Cluster
	// Keyspaces are the records of those that somebody made.
	Keyspaces func(context.Context) ([]*metapb.KeyspaceRecord, error)
	// Status is what all nodes say of themselves and their replicas.
	Status    func(context.Context) *clusterpb.StatusResponse
	LookPause time.Duration // between two looks at a difference
	Logger    *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	c.LookPause = cmp.Or(c.LookPause, base.CheckLookPause)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Run checks, and calls send with what it does and finds, one call at a time; the last is the summary. The error is one for which
// the check could not be made at all.
func Run(ctx context.Context, cfg Config, req *clusterpb.CheckRequest, send func(*clusterpb.CheckResponse) error) error {
	cfg.EnsureDefaults()
	c := &checker{cfg: cfg, only: req.Keyspace, send: send, away: map[base.NodeID]*clusterpb.CheckUnseen{}, down: map[base.NodeID]string{}}
	begun := time.Now()
	first, err := c.look(ctx)
	if err != nil {
		return err
	}
	if len(first.spaces) == 0 {
		return status.Errorf(codes.NotFound, "there is no keyspace %s: see cairn keyspace ls", req.Keyspace)
	}
	last, err := c.confirm(ctx, first)
	if err != nil {
		return err
	}
	c.count(last)
	if !req.NoChecksums {
		c.compareAll(ctx, last)
	}
	if err := c.onlyGrown(ctx, first); err != nil {
		return err
	}
	for _, n := range c.absent { // what it alone knows of was not looked at
		if id := base.NodeID(n.Node.NodeId); c.away[id] == nil {
			c.away[id] = &clusterpb.CheckUnseen{NodeId: n.Node.NodeId, Reason: n.Error}
		}
	}
	for _, n := range slices.SortedFunc(mapValues(c.away), func(a, b *clusterpb.CheckUnseen) int { return cmp.Compare(a.NodeId, b.NodeId) }) {
		c.unseen(n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Micros = uint64(time.Since(begun).Microseconds())
	if err := cmp.Or(c.sendErr, ctx.Err()); err != nil {
		return err
	}
	return send(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Summary{Summary: &c.sum}})
}

// checker is one check.
type checker struct {
	cfg  Config
	only string // the keyspace that is asked about; empty: all

	mu      sync.Mutex
	send    func(*clusterpb.CheckResponse) error
	sendErr error
	sum     clusterpb.CheckSummary
	absent  []*clusterpb.NodeEntry                 // members that do not answer
	down    map[base.NodeID]string                 // why nodes do not answer
	away    map[base.NodeID]*clusterpb.CheckUnseen // what could not be looked at of each node
}

func (c *checker) emit(r *clusterpb.CheckResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sendErr == nil {
		c.sendErr = c.send(r)
	}
}

func (c *checker) found(f *clusterpb.CheckFinding) {
	c.mu.Lock()
	c.sum.Findings++
	c.mu.Unlock()
	c.cfg.Logger.Error("a check found that something is wrong", "part", f.Part, "keyspace", f.Keyspace, "range", base.RangeID(f.RangeId),
		"node", base.NodeID(f.NodeId), "what", f.What, "here", f.Here, "there", f.There)
	c.emit(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Finding{Finding: f}})
}

func (c *checker) unseen(u *clusterpb.CheckUnseen) {
	c.mu.Lock()
	c.sum.Unseen++
	c.mu.Unlock()
	c.emit(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Unseen{Unseen: u}})
}

func (c *checker) progress(doing string, done, of int) {
	c.emit(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Progress{
		Progress: &clusterpb.CheckProgress{Doing: doing, Done: uint64(done), Of: uint64(of)}}})
}

// missed notes a replica that could not be looked at, because of its node.
func (c *checker) missed(node base.NodeID, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away[node] == nil {
		c.away[node] = &clusterpb.CheckUnseen{NodeId: uint64(node), Reason: reason}
	}
	c.away[node].Replicas++
}

// isDown says why a node does not answer; empty: it does.
func (c *checker) isDown(node base.NodeID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down[node]
}

func (c *checker) count(l *look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Keyspaces, c.sum.Ranges = uint64(len(l.spaces)), uint64(len(l.own))
	for _, s := range l.spaces {
		c.sum.IndexEntries += uint64(len(l.entries[s.id]))
	}
}

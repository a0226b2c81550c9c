package serve

import (
	"context"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Backend is what the handlers need of a node. Every method may be called from any goroutine, honours ctx, and
// returns the typed errors of internal/base, or the command's own refusal (see kv/eval) as it is.
type Backend interface {
	// Propose carries a command to the range of the keyspace that holds key, wherever its leader is, and returns
	// the command's response after it was applied there.
	Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error)
	// Range reads: linearizably, or from the local replica (if there is one) when the request says serializable.
	Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error)
	// Page reads the beginning of a span, in the order of its keys, and says where the next page begins: nil after the last. The
	// first page, which names no revision, fixes that of all: it is in its header. Count is of the keys that the page passed.
	Page(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (resp *pb.RangeResponse, next []byte, err error)
	// ReadTxn evaluates a transaction that cannot write, as one read.
	ReadTxn(ctx context.Context, ks base.KeyspaceID, req *pb.TxnRequest) (*pb.TxnResponse, error)

	// Leases are the leases of clients.
	Leases() (Leases, error)

	// HashKV hashes the versions of a keyspace that a read at a revision (0: the newest) may need; the header has the newest revision.
	HashKV(ctx context.Context, ks base.KeyspaceID, revision int64) (*pb.HashKVResponse, error)

	// Alarm carries out what a client asks of alarms, and returns those that it was about. Alarms are those that this node knows of.
	Alarm(ctx context.Context, req *pb.AlarmRequest) ([]*pb.AlarmMember, error)
	Alarms() []*pb.AlarmMember
	// Admit says why a client's write, which makes the data larger or does not, is refused because of an alarm; nil: it is not.
	Admit(grows bool) error
	// Quota is how large this node's store may be; 0: any size.
	Quota() int64
	// Snapshot writes one of the clients' data of the whole cluster.
	Snapshot(ctx context.Context, w io.Writer) error
	// OpenWatches begins a stream of watches; what they get goes to the sink until the stream is closed.
	OpenWatches(WatchSink) (WatchStream, error)
	// HasLeader says whether the range that holds a key has a leader, as far as this node knows; a nil key is the first.
	HasLeader(ks base.KeyspaceID, key []byte) bool

	// Where is what this node knows of the range that holds a key, without asking anybody.
	Where(ks base.KeyspaceID, key []byte) Where

	// Keyspace is the id of a client's keyspace.
	Keyspace(ctx context.Context, name string) (base.KeyspaceID, error)
	CreateKeyspace(ctx context.Context, name string, single bool) (*metapb.KeyspaceRecord, error)
	DropKeyspace(ctx context.Context, name string) (ranges int, err error)
	Keyspaces(ctx context.Context) ([]*metapb.KeyspaceRecord, error)
	// Ranges are those of a keyspace, or of all, as the index knows them.
	Ranges(ctx context.Context, keyspace string) ([]*clusterpb.IndexedRange, error)
	// SplitRange cuts the range that holds key in two; dryRun only says what would become of it.
	SplitRange(ctx context.Context, keyspace string, key []byte, dryRun bool) (left, right *metapb.RangeDescriptor, err error)
	// Check looks whether the cluster is what it must be; status is what all nodes say, and send is called with what is found.
	Check(ctx context.Context, req *clusterpb.CheckRequest, status func(context.Context) *clusterpb.StatusResponse, send func(*clusterpb.CheckResponse) error) error
	// MergeRange has the range that holds a key take over its right neighbour; dryRun only says what would become of them.
	MergeRange(ctx context.Context, keyspace string, key []byte, dryRun bool) (*metapb.RangeDescriptor, error)

	// Identity is this node. ClusterID is 0 before the node is part of a cluster.
	Identity() Identity
	// RaftTerm is the present term of the keyspace's range on this node, or the last that it heard of.
	RaftTerm(base.KeyspaceID) uint64
	// Members are the node records as this node knows them now, ordered by id.
	Members() []*metapb.NodeRecord
	// LocalReplicas is this node's replicas as they are now.
	LocalReplicas(ctx context.Context) ([]*clusterpb.ReplicaStatus, error)
	// StoreStats says how large the store is: bytes on disk, and those of them that the present data takes as far as is known.
	StoreStats() (total, inUse int64)
	// Defragment gives back the disk space that overwritten and deleted data of a keyspace takes in this node's store.
	Defragment(ctx context.Context, ks base.KeyspaceID) error
	// StoreMetrics are the store's counters; nil before the node is part of a cluster.
	StoreMetrics() *clusterpb.StoreMetrics
	// Health is what the leader of `sys` told last of all nodes, who that was, and how long ago; by is 0 if none has answered yet.
	Health() (nodes []*metapb.NodeHealth, by base.NodeID, age time.Duration)
	// Supports is what this node and those with which it shares ranges promise each other.
	Supports() []*clusterpb.SupportEntry
}

// Identity is who a node is.
type Identity struct {
	ClusterID     uint64
	NodeID        base.NodeID
	StoreUUID     []byte
	Address       string // advertised
	Version       string
	Incarnation   base.Incarnation
	CreatedMicros int64 // when the cluster was made, Unix microseconds
}

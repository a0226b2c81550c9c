package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/serve"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

var _ serve.Backend = (*Node)(nil)

// notYet answers what needs a cluster before there is one.
func (n *Node) notYet() (*member, error) {
	if m := n.current(); m != nil {
		return m, nil
	}
	return nil, join.ErrNotInitialised
}

// Propose implements serve.Backend.
func (n *Node) Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.dispatch.Propose(ctx, ks, key, cmd)
}

// Range implements serve.Backend.
func (n *Node) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.dispatch.Range(ctx, ks, req)
}

// Page implements serve.Backend.
func (n *Node) Page(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, []byte, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, nil, err
	}
	return m.dispatch.Page(ctx, ks, req)
}

// ReadTxn implements serve.Backend.
func (n *Node) ReadTxn(ctx context.Context, ks base.KeyspaceID, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.dispatch.ReadTxn(ctx, ks, req)
}

// Leases implements serve.Backend.
func (n *Node) Leases() (serve.Leases, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.dispatch, nil
}

// HashKV implements serve.Backend.
func (n *Node) HashKV(ctx context.Context, ks base.KeyspaceID, revision int64) (*pb.HashKVResponse, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.dispatch.HashKV(ctx, ks, revision)
}

// Where implements serve.Backend.
func (n *Node) Where(ks base.KeyspaceID, key []byte) (w serve.Where) {
	if m := n.current(); m != nil {
		w.Range, w.Leader = m.dispatch.Where(ks, key)
	}
	return w
}

// Identity implements serve.Backend.
func (n *Node) Identity() serve.Identity {
	id := n.storeIdentity()
	return serve.Identity{
		ClusterID: id.ClusterId, NodeID: base.NodeID(id.NodeId), StoreUUID: id.StoreUuid, Address: n.cfg.Advertise,
		Version: n.cfg.Version, Incarnation: n.incarnation, CreatedMicros: id.ClusterCreatedUnixMicros,
	}
}

func (n *Node) storeIdentity() *metapb.StoreIdentity {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.identity
}

// record is this node's own, as its configuration says.
func (n *Node) record() *metapb.NodeRecord {
	return &metapb.NodeRecord{
		NodeId: n.identity.NodeId, StoreUuid: n.identity.StoreUuid, Address: n.cfg.Advertise, Locality: n.cfg.Locality,
		Version: n.cfg.Version, Incarnation: uint64(n.incarnation), Attributes: n.cfg.Attributes,
		DiskBytes: n.diskBytes, Cpus: uint32(runtime.NumCPU()),
	}
}

// RaftTerm implements serve.Backend.
func (n *Node) RaftTerm(ks base.KeyspaceID) uint64 {
	if m := n.current(); m != nil {
		return m.dispatch.Term(ks)
	}
	return 0
}

// Members implements serve.Backend.
func (n *Node) Members() []*metapb.NodeRecord { return n.book.all() }

// StoreStats implements serve.Backend.
func (n *Node) StoreStats() (total, inUse int64) {
	m := n.eng.Metrics()
	return int64(m.DiskBytes), int64(m.LiveBytes)
}

// Defragment implements serve.Backend.
func (n *Node) Defragment(ctx context.Context, ks base.KeyspaceID) error {
	if _, err := n.notYet(); err != nil {
		return err
	}
	return n.eng.Compact(ctx, keys.KeyspaceSpan(ks))
}

// StoreMetrics implements serve.Backend.
func (n *Node) StoreMetrics() *clusterpb.StoreMetrics {
	m := n.current()
	if m == nil {
		return nil
	}
	e, sn := n.eng.Metrics(), m.store.SnapshotStats()
	leaders, resting := m.store.Leaders()
	var frames uint64
	for _, p := range m.transport.Peers() {
		frames += p.Sent
	}
	bySize, byLoad := m.reconciler.Splits()
	return &clusterpb.StoreMetrics{
		Syncs: e.Syncs, BytesWritten: e.BytesWritten, DiskBytes: e.DiskBytes, MemtableBytes: e.MemtableBytes,
		BlockCacheBytes: e.BlockCacheBytes, Compactions: e.Compactions, Passes: m.store.Passes(),
		Leaders: uint64(leaders), LeadersResting: uint64(resting), FramesSent: frames, LeasesLost: m.store.SupportsLost(),
		SnapshotsSent: sn.Sent, SnapshotsFailed: sn.SendFailed, SnapshotsInstalled: sn.Installed, SnapshotsResumed: sn.Resumed,
		SplitsSize: bySize, SplitsLoad: byLoad, SplitsHand: m.keyspaces.Splits(),
	}
}

// LocalReplicas implements serve.Backend.
func (n *Node) LocalReplicas(ctx context.Context) ([]*clusterpb.ReplicaStatus, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	var out []*clusterpb.ReplicaStatus
	for _, id := range m.store.Ranges() {
		st, ok, err := m.store.Status(ctx, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		r := &clusterpb.ReplicaStatus{
			Descriptor_: st.Descriptor, ReplicaId: uint64(st.Replica), Term: st.Term, Leader: st.Role == raftgroup.Leader,
			LeaderReplica: uint64(st.Leader), Applied: st.Applied, Commit: st.Commit, FirstIndex: st.First, LastIndex: st.Last,
			Rate: m.store.Rate(id),
		}
		if v := m.store.View(id); v != nil {
			r.Revision = int64(v.Counters.Revision)
		}
		for _, p := range st.Progress {
			r.Progress = append(r.Progress, &clusterpb.Progress{ReplicaId: uint64(p.Replica), Match: p.Match, State: p.State, Recent: p.Recent})
		}
		if st.Role == raftgroup.Leader {
			r.Lease = lease(&st)
		}
		out = append(out, r)
	}
	return out, nil
}

// lease is a leader's, for people.
func lease(st *raftgroup.Status) *clusterpb.Lease {
	l := &clusterpb.Lease{LeftMicros: st.LeaseLeft.Microseconds(), Resting: st.Resting}
	if st.LeaseForEver {
		l.LeftMicros = -1
	}
	for _, n := range st.Supporters {
		l.Supporters = append(l.Supporters, uint64(n))
	}
	return l
}

// Supports implements serve.Backend.
func (n *Node) Supports() (out []*clusterpb.SupportEntry) {
	m := n.current()
	if m == nil {
		return nil
	}
	for _, s := range m.store.Supports() {
		out = append(out, &clusterpb.SupportEntry{
			Node: uint64(s.Node), LeftMicros: s.Left.Microseconds(), Promised: s.Promised,
			TokenIncarnation: uint64(s.Token.Incarnation), TokenEpoch: s.Token.Epoch,
		})
	}
	return out
}

// Init, Consent, Join and Announce are what node/serve needs of node/join.

// Init makes a new cluster with this node as its first member, and returns when it serves.
func (n *Node) Init(ctx context.Context) (*clusterpb.InitResponse, error) {
	resp, err := n.entry.Init(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-n.ready:
		return resp, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Consent answers another node that wants to found the cluster.
func (n *Node) Consent(ctx context.Context, req *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error) {
	return n.entry.Consent(ctx, req)
}

// Join lets another node in.
func (n *Node) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	resp, err := m.registrar.Join(ctx, req)
	if err == nil {
		n.book.learn(resp.Nodes...)
	}
	return resp, err
}

// Announce records that another node started again.
func (n *Node) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	resp, err := m.registrar.Announce(ctx, req)
	if err == nil {
		n.book.learn(resp.Nodes...)
	}
	return resp, err
}

// askRoot asks the other nodes for the root range's descriptor.
func (n *Node) askRoot(ctx context.Context) (*metapb.RangeDescriptor, error) {
	last := errors.New("no other node is known")
	for _, r := range n.book.all() {
		if r.NodeId == n.storeIdentity().NodeId {
			continue
		}
		resp, err := n.callAnnounce(ctx, r.Address)
		if err != nil {
			last = err
			continue
		}
		n.book.learn(resp.Nodes...)
		if resp.Root != nil {
			return resp.Root, nil
		}
	}
	return nil, fmt.Errorf("no node tells where the root range is: %w", last)
}

// callAnnounce tells one member that this node is here; the answer says what the member knows.
func (n *Node) callAnnounce(ctx context.Context, address string) (*clusterpb.AnnounceResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, base.JoinCallTimeout)
	defer cancel()
	conn, err := join.Dial(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	id := n.storeIdentity()
	rec := n.record()
	return clusterpb.NewClusterClient(conn).Announce(ctx, &clusterpb.AnnounceRequest{ClusterId: id.ClusterId, Node: rec})
}

// registrarCluster is the dispatcher as node/join needs it.
type registrarCluster struct{ *dispatch.Dispatcher }

// entryStore is the engine as node/join needs it.
type entryStore struct{ n *Node }

func (s entryStore) Identity() *metapb.StoreIdentity { return s.n.storeIdentity() }

func (s entryStore) Consent() (*clusterpb.ConsentRequest, error) { return store.ReadConsent(s.n.eng) }

func (s entryStore) SetConsent(c *clusterpb.ConsentRequest) error {
	return store.WriteConsent(s.n.eng, c)
}

func (s entryStore) Found(id *metapb.StoreIdentity, self *metapb.NodeRecord) error {
	if err := store.Bootstrap(s.n.eng, id, self); err != nil {
		return err
	}
	s.n.book.learn(self)
	return s.adopted(id)
}

func (s entryStore) Adopt(id *metapb.StoreIdentity, book *metapb.AddressBook) error {
	if err := store.Adopt(s.n.eng, id, book); err != nil {
		return err
	}
	return s.adopted(id)
}

func (s entryStore) adopted(id *metapb.StoreIdentity) error {
	s.n.mu.Lock()
	s.n.identity = id
	s.n.mu.Unlock()
	return nil
}

var (
	_ join.Store   = entryStore{}
	_ join.Cluster = registrarCluster{}
)

package join

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// fakeSys is the keyspace `sys` of one cluster: enough of etcd's transactions for the ledger.
type fakeSys struct {
	mu        sync.Mutex
	rev       int64
	kvs       map[string]*mvccpb.KeyValue
	ambiguous int // so many proposals are carried out and answered as not known
}

func (f *fakeSys) Propose(_ context.Context, ks base.KeyspaceID, _ []byte, cmd *kvpb.Command) (proto.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	req := &pb.TxnRequest{}
	if err := proto.Unmarshal(cmd.GetTxn(), req); err != nil || ks != base.KeyspaceSys {
		return nil, fmt.Errorf("not a transaction on sys: %v in %v", err, ks)
	}
	for _, c := range req.Compare {
		if c.Target != pb.Compare_MOD || c.Result != pb.Compare_EQUAL {
			return nil, fmt.Errorf("a comparison that the fake does not know: %v", c)
		}
		if f.kvs[string(c.Key)].GetModRevision() != c.GetModRevision() {
			return &pb.TxnResponse{Succeeded: false}, nil
		}
	}
	f.rev++
	for _, op := range req.Success {
		put := op.GetRequestPut()
		f.kvs[string(put.Key)] = &mvccpb.KeyValue{Key: put.Key, Value: put.Value, ModRevision: f.rev}
	}
	if f.ambiguous > 0 {
		f.ambiguous--
		return nil, &base.Ambiguous{Cause: errors.New("the leader went away")}
	}
	return &pb.TxnResponse{Succeeded: true}, nil
}

func (f *fakeSys) Range(_ context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ks != base.KeyspaceSys {
		return nil, fmt.Errorf("a read of %v", ks)
	}
	resp := &pb.RangeResponse{}
	for _, kv := range f.kvs {
		if bytes.Equal(kv.Key, req.Key) ||
			len(req.RangeEnd) > 0 && bytes.Compare(kv.Key, req.Key) >= 0 && bytes.Compare(kv.Key, req.RangeEnd) < 0 {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return resp, nil
}

func (f *fakeSys) Root(context.Context) (*metapb.RangeDescriptor, error) {
	return &metapb.RangeDescriptor{RangeId: uint64(base.RangeRoot)}, nil
}

// memStore is a store that survives the restarts of its node, and can crash at a chosen write: `failAt` counts the
// writes until one fails, before or after it is durable.
type memStore struct {
	mu       sync.Mutex
	id       *metapb.StoreIdentity
	consent  *clusterpb.ConsentRequest
	book     *metapb.AddressBook
	founded  int
	failAt   int
	failLate bool
	crashed  chan struct{} // closed at the failed write
}

var errCrash = errors.New("the process died")

func newMemStore() *memStore {
	uuid := make([]byte, uuidLen)
	rand.Read(uuid)
	return &memStore{id: &metapb.StoreIdentity{StoreUuid: uuid, Format: 1}, crashed: make(chan struct{})}
}

func (s *memStore) Identity() *metapb.StoreIdentity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *memStore) Consent() (*clusterpb.ConsentRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consent, nil
}

func (s *memStore) write(do func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAt--
	crash := s.failAt == 0
	if !crash || s.failLate {
		do()
	}
	if crash {
		close(s.crashed)
		return errCrash
	}
	return nil
}

func (s *memStore) SetConsent(c *clusterpb.ConsentRequest) error {
	return s.write(func() { s.consent = c })
}

func (s *memStore) Found(id *metapb.StoreIdentity, _ *metapb.NodeRecord) error {
	return s.write(func() { s.id = id; s.founded++ })
}

func (s *memStore) Adopt(id *metapb.StoreIdentity, book *metapb.AddressBook) error {
	return s.write(func() { s.id, s.book = id, book })
}

// world is the clusters that exist, by id, and the machines that can be started.
type world struct {
	t    *testing.T
	mu   sync.Mutex
	syss map[uint64]*fakeSys
}

func newWorld(t *testing.T) *world { return &world{t: t, syss: make(map[uint64]*fakeSys)} }

func (w *world) sys(cluster uint64) *fakeSys {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.syss[cluster]
	if s == nil {
		s = &fakeSys{kvs: make(map[string]*mvccpb.KeyValue)}
		w.syss[cluster] = s
	}
	return s
}

// machine is a place with an address where a node can run on a store.
type machine struct {
	*world
	address string
	store   *memStore
	cfg     Config // what a start adds to the address and the store
	starts  uint64

	entry     *Entry
	registrar *Registrar
	server    *grpc.Server
	listener  net.Listener
	outcome   chan result
	cancel    context.CancelFunc
}

type result struct {
	*Outcome
	err error
}

// machines reserves n addresses, in ascending order.
func (w *world) machines(n int) []*machine {
	var ms []*machine
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		ms = append(ms, &machine{world: w, address: l.Addr().String(), store: newMemStore(), listener: l})
	}
	slices.SortFunc(ms, func(a, b *machine) int { return bytes.Compare([]byte(a.address), []byte(b.address)) })
	return ms
}

func addresses(ms []*machine) []string {
	var as []string
	for _, m := range ms {
		as = append(as, m.address)
	}
	return as
}

// start runs a node. advertise is its own address unless cfg.Self says otherwise.
func (m *machine) start() {
	m.t.Helper()
	m.starts++
	cfg := m.cfg
	cfg.Store = m.store
	cfg.RetryMin, cfg.RetryMax = 2*time.Millisecond, 20*time.Millisecond
	cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, 3*time.Second)
	if cfg.Self == nil {
		cfg.Self = &metapb.NodeRecord{Address: m.address, Version: "0.1.0"}
	}
	cfg.Self = proto.CloneOf(cfg.Self)
	cfg.Self.Incarnation = m.starts
	var err error
	if m.entry, err = New(cfg); err != nil {
		m.t.Fatal(err)
	}
	m.registrar, err = NewRegistrar(RegistrarConfig{Cluster: m, Identity: m.store.Identity,
		Version: cfg.Self.Version, ProbeTimeout: 3 * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	if m.listener == nil {
		if m.listener, err = net.Listen("tcp", m.address); err != nil {
			m.t.Fatal(err)
		}
	}
	m.server = grpc.NewServer(grpc.UnaryInterceptor(testErrors))
	clusterpb.RegisterClusterServer(m.server, &service{m: m, self: cfg.Self})
	go func(s *grpc.Server, l net.Listener) { _ = s.Serve(l) }(m.server, m.listener)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.outcome = make(chan result, 1)
	go func(e *Entry, out chan<- result) {
		o, err := e.Run(ctx)
		out <- result{o, err}
	}(m.entry, m.outcome)
	m.t.Cleanup(m.stop)
}

// stop is a kill: nothing is said to anybody.
func (m *machine) stop() {
	if m.server == nil {
		return
	}
	m.cancel()
	m.server.Stop()
	m.server, m.listener = nil, nil
}

// wait returns how the node's way into a cluster ended.
func (m *machine) wait() result {
	m.t.Helper()
	select {
	case r := <-m.outcome:
		m.outcome <- r
		return r
	case <-time.After(20 * time.Second):
		m.t.Fatalf("%s is on its way for 20 s", m.address)
		return result{}
	}
}

func (m *machine) mustEnter() *metapb.StoreIdentity {
	m.t.Helper()
	r := m.wait()
	if r.err != nil {
		m.t.Fatalf("%s: %v", m.address, r.err)
	}
	return r.Identity
}

func (m *machine) announce() (*clusterpb.AnnounceResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.entry.AnnounceSelf(ctx, func() []*metapb.NodeRecord { return nil }, m.registrar.Announce)
}

func (m *machine) init() (*clusterpb.InitResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.entry.Init(ctx)
}

// A machine's node is a member of the cluster that its store says, and reaches that one's `sys`.
func (m *machine) Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	return m.sys(m.store.Identity().ClusterId).Propose(ctx, ks, key, cmd)
}

func (m *machine) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	return m.sys(m.store.Identity().ClusterId).Range(ctx, ks, req)
}

func (m *machine) Root(ctx context.Context) (*metapb.RangeDescriptor, error) {
	return m.sys(m.store.Identity().ClusterId).Root(ctx)
}

// service is the Cluster service as node/serve does it.
type service struct {
	clusterpb.UnimplementedClusterServer
	m    *machine
	self *metapb.NodeRecord
}

func (s *service) Identity(context.Context, *clusterpb.IdentityRequest) (*clusterpb.IdentityResponse, error) {
	id := s.m.store.Identity()
	return &clusterpb.IdentityResponse{ClusterId: id.ClusterId, NodeId: id.NodeId, StoreUuid: id.StoreUuid,
		Address: s.self.Address, Version: s.self.Version}, nil
}

func (s *service) Consent(ctx context.Context, req *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error) {
	return s.m.entry.Consent(ctx, req)
}

func (s *service) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error) {
	return s.m.registrar.Join(ctx, req)
}

func (s *service) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
	return s.m.registrar.Announce(ctx, req)
}

// testErrors stands for node/serve's table, which has a test that it agrees.
func testErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	var refused *Refused
	switch {
	case err == nil:
		return resp, nil
	case errors.As(err, &refused):
		return nil, status.Error(codes.FailedPrecondition, refused.Reason)
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// oneCluster fails unless all machines are in one cluster, founded once, each under an id of its own.
func oneCluster(t *testing.T, ms []*machine) {
	t.Helper()
	founded := 0
	ids := make(map[uint64]string)
	for _, m := range ms {
		id := m.mustEnter()
		founded += m.store.founded
		if id.ClusterId != ms[0].store.id.ClusterId {
			t.Errorf("%s is in cluster %x and %s in cluster %x", m.address, id.ClusterId, ms[0].address, ms[0].store.id.ClusterId)
		}
		if other, taken := ids[id.NodeId]; taken || id.NodeId == 0 {
			t.Errorf("%s and %s are both node %d", m.address, other, id.NodeId)
		}
		ids[id.NodeId] = m.address
	}
	if founded != 1 {
		t.Errorf("%d clusters were founded, want 1", founded)
	}
}

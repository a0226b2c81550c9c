package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/faultpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/api/transportpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/node/alarm"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/gossip"
	"github.com/cairndb/cairn/node/health"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/keyspace"
	"github.com/cairndb/cairn/node/lessor"
	"github.com/cairndb/cairn/node/operate"
	"github.com/cairndb/cairn/node/placement"
	"github.com/cairndb/cairn/node/reconcile"
	"github.com/cairndb/cairn/node/retention"
	"github.com/cairndb/cairn/node/serve"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/node/watch"
	"github.com/cairndb/cairn/node/web"
	"github.com/cairndb/cairn/transport"
)

// Node is one node of a cluster. Its life: New checks the configuration; Start opens the store and serves; the node
// joins, and Ready is closed; Stop hands over and ends. Fatal tells of an error after which it serves nothing more.
type Node struct {
	cfg      Config
	eng      engine.Engine
	listener net.Listener
	bound    []net.Listener // each for the clients of one keyspace
	names    map[int]string // and which, by its port
	server   *serve.Server
	web      *web.Handler  // what it answers over HTTP
	leaders  leaders       // of the default keyspace
	late     lateTransport // the transport's service, which exists only once the node is a member
	entry    *join.Entry
	book     *book
	faults   *faults // what tests may do to the disk and the clock

	mu          sync.RWMutex
	identity    *metapb.StoreIdentity
	incarnation base.Incarnation
	diskBytes   uint64  // that the store's file system held at the start; 0: not known
	member      *member // nil until the node is part of a cluster

	ready     chan struct{}
	readyOnce sync.Once
	stopping  atomic.Bool
	fatal     chan error
	once      sync.Once

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// member is what a node runs from the day that it is part of a cluster.
type member struct {
	store      *store.Store
	transport  *transport.GRPC
	dispatch   *dispatch.Dispatcher
	registrar  *join.Registrar
	reconciler *reconcile.Reconciler
	keyspaces  *keyspace.Manager
	placement  *placement.Placement
	operate    *operate.Manager
	monitor    *health.Monitor
	fence      *health.Fence
	gossip     *gossip.Gossip
	watches    *watch.Watches
	lessor     *lessor.Lessor
	alarms     *alarm.Alarms
	retention  *retention.Retention
}

// New checks the configuration. Nothing is opened yet.
func New(cfg Config) (*Node, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{cfg: cfg, faults: newFaults(&cfg), ready: make(chan struct{}), fatal: make(chan error, 1), ctx: ctx, cancel: cancel}
	n.faults.member = n.current
	return n, nil
}

// Start opens the store and serves; it returns once the listener accepts. The node may not be part of a cluster yet:
// it then answers health, Identity, Init and Consent only, and Ready stays open.
func (n *Node) Start(ctx context.Context) error {
	// The listener comes first: a second process with the same address must not touch the store.
	l, err := n.listen(ctx)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w: give another --listen, or stop what uses it", n.cfg.Listen, err)
	}
	n.listener = l
	if err := n.listenBound(ctx); err != nil {
		n.closeListeners()
		return err
	}
	if err := n.open(); err != nil {
		n.closeListeners()
		return err
	}
	if err := n.prepare(); err != nil {
		n.closeListeners()
		n.eng.Close()
		return err
	}
	for _, l := range append([]net.Listener{l}, n.bound...) {
		n.wg.Go(func() {
			if err := n.server.Serve(l); err != nil && n.ctx.Err() == nil {
				n.fail(fmt.Errorf("the server on %s ended: %w", l.Addr(), err))
			}
		})
	}
	n.wg.Go(n.enter)
	return nil
}

func (n *Node) listen(ctx context.Context) (net.Listener, error) {
	if n.cfg.Listener != nil {
		return n.cfg.Listener, nil
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", n.cfg.Listen)
}

func (n *Node) open() error {
	if err := os.MkdirAll(n.cfg.StoreDir, 0o755); err != nil {
		return fmt.Errorf("the store directory cannot be made: %w", err)
	}
	eng, err := engine.OpenPebble(engine.PebbleConfig{
		Dir: n.cfg.StoreDir, CacheBytes: base.BlockCacheBytes, Logger: n.cfg.Logger, OnFatal: n.fail, Faults: n.faults.disk,
	})
	if err != nil {
		return fmt.Errorf("the store in %s cannot be opened: %w", n.cfg.StoreDir, err)
	}
	n.eng, n.diskBytes = eng, health.DiskBytes(n.cfg.StoreDir)
	if n.identity, n.incarnation, err = store.OpenIdentity(eng); err == nil {
		n.book, err = openBook(eng, n.cfg.Logger)
	}
	if err != nil {
		eng.Close()
		return fmt.Errorf("the store in %s: %w", n.cfg.StoreDir, err)
	}
	return nil
}

// prepare makes what serves before there is a cluster.
func (n *Node) prepare() error {
	var err error
	n.entry, err = join.New(join.Config{
		Store: entryStore{n}, Self: n.record(), Addresses: n.cfg.Join, Expect: n.cfg.BootstrapExpect,
		ReplaceLost: n.cfg.ReplaceLost, Found: n.found, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.server, err = serve.NewServer(serve.Config{
		Backend: n, Membership: n, Operator: n, Logger: n.cfg.Logger, MayServe: n.mayServe, AwaitService: n.awaitService,
		MaxRequestBytes: n.cfg.MaxRequestBytes, MaxTxnOps: n.cfg.MaxTxnOps, Bound: n.names,
	})
	if err != nil {
		return err
	}
	transportpb.RegisterTransportServer(n.server, &n.late)
	faultpb.RegisterFaultsServer(n.server, n.faults)
	return n.serveHTTP()
}

// enter waits until the node is part of a cluster, and runs it as a member. It serves as soon as the cluster has taken note of it;
// until then it works, unseen, on what others know of it.
func (n *Node) enter() {
	out, err := n.entry.Run(n.ctx)
	if err != nil {
		if n.ctx.Err() == nil {
			n.fail(err)
		}
		return
	}
	n.book.learn(out.Nodes...)
	if err := n.run(out); err != nil {
		n.fail(err)
		return
	}
	n.current().fence.Run(n.ctx)
}

// run starts the member's parts, each after what it rests on.
func (n *Node) run(out *join.Outcome) (err error) {
	id := out.Identity
	m := &member{}
	self := base.NodeID(id.NodeId)
	m.transport, err = transport.NewGRPC(transport.GRPCConfig{
		ClusterID: id.ClusterId, Node: self, Incarnation: n.incarnation, Address: n.cfg.Advertise,
		Resolver: n.book, Handler: handler{n, m}, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	if err := n.assemble(m, out); err != nil {
		m.transport.Close()
		return err
	}
	return n.begin(m, id)
}

// assemble makes the parts that stand on the transport.
func (n *Node) assemble(m *member, out *join.Outcome) (err error) {
	id, self := out.Identity, base.NodeID(out.Identity.NodeId)
	m.store, err = store.New(n.storeConfig(handler{n, m}, self))
	if err != nil {
		return err
	}
	m.dispatch = dispatch.New(dispatch.Config{
		Node: self, Store: m.store, Transport: m.transport, Logger: n.cfg.Logger,
		CreatedMicros: id.ClusterCreatedUnixMicros, UnixMicros: n.faults.unixMicros, Root: n.askRoot,
		Placement: places{m}, Leases: leases{m},
		Align:     func(id base.RangeID, with *metapb.RangeDescriptor) { m.reconciler.Align(id, with) },
		MayPlace:  func(ctx context.Context, d *metapb.RangeDescriptor) error { return m.keyspaces.MayPlace(ctx, d) },
		Gone:      func(ctx context.Context, ks base.KeyspaceID) (bool, error) { return m.keyspaces.Gone(ctx, ks) },
		Heartbeat: func(h *metapb.Heartbeat) (*metapb.HeartbeatAnswer, error) { return m.monitor.Heartbeat(h) },
	})
	if m.watches, err = n.newWatches(m); err != nil {
		return err
	}
	m.keyspaces = keyspace.New(keyspace.Config{
		Cluster: m.dispatch, Nodes: func() []base.NodeID { return m.candidates(n.book.all(), self) }, UnixMicros: n.faults.unixMicros, Logger: n.cfg.Logger,
	})
	if out.Root != nil {
		m.dispatch.Learn(out.Root)
	}
	m.registrar, err = join.NewRegistrar(join.RegistrarConfig{
		Cluster: registrarCluster{m.dispatch}, Identity: n.storeIdentity, Version: n.cfg.Version,
		UnixMicros: n.faults.unixMicros, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	m.lessor = lessor.New(lessor.Config{Store: m.store, Dispatch: m.dispatch, Logger: n.cfg.Logger})
	m.placement = n.newPlacement(m, self)
	m.reconciler = reconcile.New(reconcile.Config{
		Node: self, Store: m.store, Dispatch: m.dispatch, Peers: m.transport, Logger: n.cfg.Logger,
		Learn: func(rs ...*metapb.NodeRecord) { n.learn(m, rs...) },
		Gone:  m.keyspaces.Gone, Split: m.keyspaces.SplitNow, SplitBytes: n.cfg.SplitBytes, SplitQPS: n.cfg.SplitQPS, Merges: m.keyspaces,
		Reports: m.placement.Reports(),
	})
	if err := n.keep(m, self); err != nil {
		return err
	}
	if err := n.watch(m, id); err != nil {
		return err
	}
	if m.gossip, err = n.newGossip(self, m.transport); err != nil {
		return err
	}
	if m.operate, err = n.newOperate(m, self); err != nil {
		return err
	}
	n.book.tell(func() {
		m.placement.NodesChanged()
		m.gossip.Wake()
	})
	return nil
}

// storeConfig is the member's store's: what it reports goes to the member's other parts.
func (n *Node) storeConfig(h handler, self base.NodeID) store.Config {
	return store.Config{
		Engine: n.eng, Node: self, Incarnation: n.incarnation, Loops: n.cfg.Loops, Logger: n.cfg.Logger,
		Seed: uint64(n.incarnation)<<32 ^ uint64(self), Clock: n.faults.clock,
		SupportInterval: n.cfg.SupportInterval, SupportDuration: n.cfg.SupportDuration,
		OnFatal: n.fail, OnChange: h.changed, OnApplied: h.applied, OnCold: h.cold, OnIndexed: h.indexed,
		OnEvents: h.events, OnGone: h.gone, OnLeases: h.leases,
		OnGossip: func(from base.NodeID, g *rangepb.Gossip) error { return h.m.gossip.Handle(from, g) },
	}
}

// begin lets the member's parts run, once all are there.
func (n *Node) begin(m *member, id *metapb.StoreIdentity) error {
	n.mu.Lock()
	n.identity, n.member = id, m
	n.mu.Unlock()
	m.transport.Register(&n.late)
	if err := m.store.Start(m.transport); err != nil {
		return err
	}
	for _, r := range m.store.Ranges() {
		m.dispatch.Learn(m.store.View(r).Descriptor)
	}
	m.watches.Start()
	m.lessor.Start()
	m.reconciler.Start()
	m.gossip.Start()
	m.monitor.Start()
	m.alarms.Start()
	m.retention.Start()
	m.placement.Start()
	m.operate.Start()
	return nil
}

// Ready is closed when the node is part of a cluster and serves its APIs.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Fatal tells, once, of an error after which the node serves nothing more and should be stopped.
func (n *Node) Fatal() <-chan error { return n.fatal }

// Addr is the address that the node listens on.
func (n *Node) Addr() string { return n.listener.Addr().String() }

func (n *Node) fail(err error) {
	n.once.Do(func() { n.fatal <- err })
}

// Stop hands leadership over, lets requests end, and closes the store. That takes at most Config.StopTimeout, or until
// ctx ends; what is still under way then is cut off, safely. Ending the node's parts is given that long once more.
func (n *Node) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.StopTimeout)
	defer cancel()
	n.mu.RLock()
	m := n.member
	n.mu.RUnlock()
	n.stopping.Store(true)
	n.server.SetServing(false)
	if m != nil {
		m.placement.Stop()
		m.reconciler.Stop()
		m.handOver(ctx)
	}
	n.cancel()
	stopServer(ctx, n.server)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.wg.Wait()
		if m := n.current(); m != nil { // it may have become one a moment ago
			m.placement.Stop()
			m.reconciler.Stop()
			m.retention.Stop()
			m.alarms.Stop()
			m.monitor.Stop()
			m.gossip.Stop()
			m.operate.Stop()
			m.watches.Stop()
			m.lessor.Stop()
			m.store.Stop() // ends the requests that wait in it, so that the dispatcher's are ended too
			m.dispatch.Stop()
			m.transport.Close()
		}
	}()
	limit := time.NewTimer(n.cfg.StopTimeout)
	defer limit.Stop()
	select {
	case <-ended:
		return n.eng.Close()
	case <-limit.C:
		// After an error of the disk a write may never return. What is synced is safe; the process is to end.
		return fmt.Errorf("the node's parts did not end within %s", n.cfg.StopTimeout)
	}
}

// stopServer lets requests end while ctx lasts.
func stopServer(ctx context.Context, s *serve.Server) {
	done := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Stop()
		<-done
	}
}

// handOver gives the leadership of each range that this node leads to another voter, and waits until all are gone.
func (m *member) handOver(ctx context.Context) {
	tick := time.NewTicker(base.HandOverPoll)
	defer tick.Stop()
	for {
		if m.store.HandOver(ctx) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// current is what the node runs as a member; nil before it is one.
func (n *Node) current() *member {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.member
}

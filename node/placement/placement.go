package placement

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/placement"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// Config is what a Placement works with.
type Config struct {
	Node     base.NodeID
	Store    *store.Store
	Dispatch *dispatch.Dispatcher
	// Nodes are the records that this node knows, Health what is known of the nodes beside. Whoever keeps them calls NodesChanged.
	Nodes  func() []*metapb.NodeRecord
	Health func() []*metapb.NodeHealth // nil: nothing is
	// Unfit says why this node takes no replica now, such as that it is fenced; empty, or nil: it does.
	Unfit func() string
	// Load is how busy this node is; nil, or its answer: not known.
	Load func() *metapb.NodeLoad
	// Ranges lists what all indexes list.
	Ranges     func(context.Context) ([]*clusterpb.IndexedRange, error)
	UnixMicros func() int64
	Logger     *slog.Logger
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	if c.Health == nil {
		c.Health = func() []*metapb.NodeHealth { return nil }
	}
	if c.Unfit == nil {
		c.Unfit = func() string { return "" }
	}
	if c.Load == nil {
		c.Load = func() *metapb.NodeLoad { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.UnixMicros == nil {
		c.UnixMicros = func() int64 { return time.Now().UnixMicro() }
	}
}

// Placement is the node's part. Its methods may be called from any goroutine; those that are told of changes do not block.
type Placement struct {
	cfg     Config
	reports *Reports
	admit   *admission
	events  [placement.Freed + 1]atomic.Uint64 // by kind

	wake   chan struct{} // capacity 1: leaders of index ranges have changed
	sys    chan struct{} // capacity 1: what is stored in sys has changed
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	lives   uint64
	stored  *stored
	changed map[base.RangeID]struct{} // index ranges to be looked at
	runners map[base.RangeID]*runner
	had     map[base.RangeID]struct{} // index ranges that there was a decider for
}

// New makes a node's part; Start runs it.
func New(cfg Config) *Placement {
	cfg.EnsureDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	p := &Placement{
		cfg: cfg, wake: make(chan struct{}, 1), sys: make(chan struct{}, 1), ctx: ctx, cancel: cancel, stored: &stored{},
		changed: make(map[base.RangeID]struct{}), runners: make(map[base.RangeID]*runner), had: make(map[base.RangeID]struct{}),
	}
	p.reports = NewReports(cfg.Store.Incarnation(), p.lookAt)
	p.admit = newAdmission(p.room, cfg.Store.Now)
	return p
}

// Start begins to decide where this node leads an index range.
func (p *Placement) Start() {
	p.wg.Go(p.run)
	p.wg.Go(p.watchSys)
}

// Stop ends all of it. What is under way elsewhere ends by itself.
func (p *Placement) Stop() {
	p.cancel()
	p.wg.Wait()
}

// Reports is the journal of the ranges that this node leads.
func (p *Placement) Reports() *Reports { return p.reports }

// Reserve answers whether this node takes a replica.
func (p *Placement) Reserve(req *rangepb.Reserve) *rangepb.Reservation { return p.admit.reserve(req) }

// Report says what has changed of the ranges that this node leads.
func (p *Placement) Report(req *rangepb.ReportRequest) *rangepb.Report { return p.reports.Report(req) }

// Changed is told of a replica whose role, leader or descriptor is another.
func (p *Placement) Changed(c raftgroup.StateChange) {
	p.reports.Changed(c)
	ks := base.KeyspaceID(c.Descriptor.GetKeyspaceId())
	p.mu.Lock()
	r := p.runners[c.Range]
	known := r != nil || ks == base.KeyspaceRoot || ks == base.KeyspaceMeta
	if known {
		p.changed[c.Range] = struct{}{}
	}
	p.mu.Unlock()
	if known {
		signal(p.wake)
	}
}

// Indexed is told of an index range here in which something has changed.
func (p *Placement) Indexed(id base.RangeID, news []apply.Indexed) {
	if r := p.runner(id); r != nil {
		r.index.tell(news)
	}
}

// NodesChanged is told that a node's record, or what is known of it, is another.
func (p *Placement) NodesChanged() {
	for _, r := range p.all() {
		r.tell(func(r *runner) { r.nodes = true })
	}
}

// SysChanged is told that something stored in sys may be another.
func (p *Placement) SysChanged() { signal(p.sys) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run starts and ends deciders as index ranges come and go.
func (p *Placement) run() {
	for {
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			for _, r := range p.all() {
				r.stop()
			}
			return
		}
		p.mu.Lock()
		ids := slices.Sorted(maps.Keys(p.changed))
		clear(p.changed)
		p.mu.Unlock()
		for _, id := range ids {
			p.look(id)
		}
	}
}

// look sees to it that there is a decider for an index range if, and only if, this node leads it.
func (p *Placement) look(id base.RangeID) {
	st, ok := p.cfg.Store.State(id)
	view := p.cfg.Store.View(id)
	r := p.runner(id)
	switch leads := ok && view != nil && st.Role == raftgroup.Leader; {
	case leads && r == nil:
		p.mu.Lock()
		p.lives++
		_, had := p.had[id]
		p.had[id] = struct{}{}
		r = newRunner(p, view.Descriptor, placement.Config{
			Node: p.cfg.Node, Life: uint64(p.cfg.Store.Incarnation())<<16 | p.lives&0xffff, Index: base.KeyspaceID(view.Descriptor.KeyspaceId),
			Seed: uint64(p.cfg.Store.Incarnation())<<32 ^ uint64(p.cfg.Node)<<16 ^ p.lives,
			// It was made here, by this process, and was nowhere else yet.
			First: !had && p.cfg.Store.Incarnation() == 1 && view.Descriptor.Generation == 1,
		})
		p.runners[id] = r
		p.mu.Unlock()
		p.SysChanged() // it may have been read long ago
		p.wg.Go(r.run)
	case leads:
		r.moved(view.Descriptor)
	case r != nil:
		p.mu.Lock()
		delete(p.runners, id)
		p.mu.Unlock()
		r.stop()
	}
}

func (p *Placement) runner(id base.RangeID) *runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runners[id]
}

func (p *Placement) all() []*runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.runners), func(a, b *runner) int { return cmp.Compare(a.index.id, b.index.id) })
}

// lookAt is how a range is here, and how large.
func (p *Placement) lookAt(id base.RangeID) (*metapb.RangeDescriptor, int64, bool) {
	view := p.cfg.Store.View(id)
	if view == nil {
		return nil, 0, false
	}
	bytes, err := p.cfg.Store.Size(view.Descriptor)
	if err != nil {
		p.cfg.Logger.Warn("a range's size is not known", "range", id, "error", err)
	}
	return view.Descriptor, bytes, err == nil
}

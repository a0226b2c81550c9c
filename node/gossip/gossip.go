package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// Config is what a Gossip works with.
type Config struct {
	Node             base.NodeID
	Incarnation      base.Incarnation
	Address, Version string // that this node says of itself
	Transport        interface {
		Send(to base.NodeID, class transport.Class, frame []byte) error
	}
	// Nodes are the records that this node knows, ascending by id, its own among them; Record is its own as `sys` has it, as far as
	// it has heard; nil: not at all. Whoever keeps them calls Wake when they change.
	Nodes  func() []*metapb.NodeRecord
	Record func() *metapb.NodeRecord
	// Learn takes what another node said of itself; record may be nil.
	Learn func(id base.NodeID, inc base.Incarnation, address string, record *metapb.NodeRecord)
	// Seek looks elsewhere for addresses of nodes, since none is heard. It may take its time.
	Seek   func(context.Context)
	Seed   uint64
	Logger *slog.Logger

	Interval, Hurry, Silence, LoadInterval time.Duration
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	c.Interval = cmp.Or(c.Interval, base.GossipInterval)
	c.Hurry = cmp.Or(c.Hurry, base.GossipHurry)
	c.Silence = cmp.Or(c.Silence, base.GossipSilence)
	c.LoadInterval = cmp.Or(c.LoadInterval, base.GossipLoadInterval)
	if c.Seek == nil {
		c.Seek = func(context.Context) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Node == 0 || c.Incarnation == 0 {
		errs = append(errs, errors.New("no node id or incarnation"))
	}
	if c.Transport == nil || c.Nodes == nil || c.Record == nil || c.Learn == nil {
		errs = append(errs, errors.New("no transport, or nothing that knows the nodes"))
	}
	return errors.Join(errs...)
}

// Gossip is the shell around the state: one goroutine that says and takes, in time. All methods may be called from any goroutine,
// and none of them blocks but Stop.
type Gossip struct {
	cfg   Config
	inbox chan received
	meet  chan base.NodeID
	wake  chan struct{} // capacity 1

	mu    sync.Mutex
	state *state
	load  *metapb.NodeLoad // as it was set last

	// The goroutine's own.
	rand   *base.Rand
	heard  time.Time // when the last frame came, or the last seeking began
	loaded time.Time // when the load was said last
	seeks  chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type received struct {
	from base.NodeID
	g    *rangepb.Gossip
}

// New returns the gossip of a node; Start begins it.
func New(cfg Config) (*Gossip, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Gossip{
		cfg: cfg, inbox: make(chan received, base.GossipInbox), meet: make(chan base.NodeID, base.GossipInbox), wake: make(chan struct{}, 1),
		state: newState(cfg.Node, cfg.Incarnation), rand: base.NewRand(cfg.Seed), seeks: make(chan struct{}, 1), ctx: ctx, cancel: cancel,
	}, nil
}

// Start begins to speak.
func (g *Gossip) Start() { g.wg.Go(g.run) }

// Stop ends it.
func (g *Gossip) Stop() {
	g.cancel()
	g.wg.Wait()
}

// Wake has it look at this node's own record and at the others' again.
func (g *Gossip) Wake() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Meet has it speak with a node at once: it was found somewhere.
func (g *Gossip) Meet(id base.NodeID) {
	select {
	case g.meet <- id:
	default: // so many were found that one will tell of the others
	}
}

// Handle takes a frame from another node. The error says what is wrong with it.
func (g *Gossip) Handle(from base.NodeID, frame *rangepb.Gossip) error {
	if err := check(frame); err != nil {
		return fmt.Errorf("gossip from %s: %w", from, err)
	}
	select {
	case g.inbox <- received{from, frame}:
	default:
	}
	return nil
}

// SetLoad is told how busy this node is, as often as one likes. It must not be changed afterwards.
func (g *Gossip) SetLoad(l *metapb.NodeLoad) {
	g.mu.Lock()
	g.load = l
	g.mu.Unlock()
}

// Loads is how busy each node was when it last said so, this one included. They must not be changed.
func (g *Gossip) Loads() map[base.NodeID]*metapb.NodeLoad {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state.loads()
}

func (g *Gossip) run() {
	g.heard = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(g.round())
		case <-g.wake:
			if g.refresh() {
				timer.Reset(g.cfg.Hurry)
			}
		case r := <-g.inbox:
			if g.receive(r) {
				timer.Reset(g.cfg.Hurry)
			}
		case id := <-g.meet:
			g.open(id, false)
		case <-g.ctx.Done():
			return
		}
	}
}

// refresh brings what is said of this node up to date. urgent: others should hear something now.
func (g *Gossip) refresh() (urgent bool) {
	nodes, record := g.cfg.Nodes(), g.cfg.Record()
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.state.urgent
	for _, r := range nodes {
		if r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED {
			g.state.forget(base.NodeID(r.NodeId))
		}
	}
	load := g.state.own.Load
	if now := time.Now(); now.Sub(g.loaded) >= g.cfg.LoadInterval && far(load, g.load) {
		load, g.loaded = g.load, now
	}
	g.state.say(func(e *rangepb.GossipEntry) {
		e.Address, e.Binary, e.Record, e.Load = g.cfg.Address, g.cfg.Version, record, load
		if proto.Size(e) > base.GossipEntryBytes-versionBytes {
			e.Record = nil // its address is worth more; `sys` has the record
		}
	})
	return g.state.urgent > before
}

// versionBytes is more than a version needs in an entry.
const versionBytes = 64

// round speaks with a few nodes, and returns when the next one is due.
func (g *Gossip) round() time.Duration {
	g.refresh()
	g.mu.Lock()
	hurry := g.state.urgent > 0
	g.mu.Unlock()
	well, all := g.others()
	for _, id := range draw(g.rand, partners(g.cfg.Node, well), base.GossipFanout) {
		if !g.open(id, hurry) && len(all) > 0 {
			g.open(draw(g.rand, all, 1)[0], hurry)
		}
	}
	if len(well) == 0 && len(all) > 0 {
		g.open(draw(g.rand, all, 1)[0], hurry)
	}
	if len(all) > 0 && time.Since(g.heard) > g.cfg.Silence {
		g.seek()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.urgent > 0 {
		return g.cfg.Hurry
	}
	return g.cfg.Interval*3/4 + time.Duration(g.rand.Int63n(int64(g.cfg.Interval/2)+1))
}

// others are the nodes that may be spoken with, ascending: those that should be there, and all that may ever be.
func (g *Gossip) others() (well, all []base.NodeID) {
	for _, r := range g.cfg.Nodes() {
		id := base.NodeID(r.NodeId)
		if id == g.cfg.Node || r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED {
			continue
		}
		all = append(all, id)
		if r.State != metapb.NodeState_NODE_STATE_FAILED {
			well = append(well, id)
		}
	}
	slices.Sort(well)
	return well, all
}

// open begins an exchange with a node. reached: nothing is known that speaks against it.
func (g *Gossip) open(id base.NodeID, hurry bool) (reached bool) {
	g.mu.Lock()
	frame := g.state.open(hurry)
	g.mu.Unlock()
	if !g.send(id, frame) {
		return false
	}
	g.mu.Lock()
	g.state.told(frame)
	g.mu.Unlock()
	return true
}

func (g *Gossip) send(to base.NodeID, frame *rangepb.Gossip) (sent bool) {
	b, err := proto.Marshal(&rangepb.SupportFrame{Gossip: frame})
	if err != nil {
		g.cfg.Logger.Error("gossip cannot be encoded", "error", err)
		return false
	}
	return g.cfg.Transport.Send(to, transport.Support, b) == nil
}

// receive takes a frame and answers it. urgent: others should hear of something in it now.
func (g *Gossip) receive(r received) (urgent bool) {
	g.heard = time.Now()
	g.mu.Lock()
	before := g.state.urgent
	answer, news := g.state.receive(r.g)
	urgent = g.state.urgent > before
	g.mu.Unlock()
	if answer != nil {
		g.send(r.from, answer)
	}
	for _, e := range news {
		g.cfg.Learn(base.NodeID(e.Version.NodeId), base.Incarnation(e.Version.Incarnation), e.Address, e.Record)
	}
	return urgent
}

// seek looks for addresses elsewhere, once at a time.
func (g *Gossip) seek() {
	select {
	case g.seeks <- struct{}{}:
	default:
		return
	}
	g.heard = time.Now() // the next one is a silence later
	g.cfg.Logger.Debug("no other node was heard for a while: looking at the addresses of --join again")
	g.wg.Go(func() {
		defer func() { <-g.seeks }()
		g.cfg.Seek(g.ctx)
	})
}

package store

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/raftgroup/support"
	"github.com/cairndb/cairn/transport"
)

// supports is this node's part in what nodes promise each other: it asks the nodes with which it shares ranges, answers
// them, withdraws, and tells the loops of what began and ended. Readers and loops look at the cells without a lock.
type supports struct {
	s     *Store
	cells sync.Map // base.NodeID → *cell
	disk  atomic.Int64
	mute  atomic.Bool   // the disk is stuck: nobody is asked
	wake  chan struct{} // capacity 1: the next pass may be due earlier
	start func(func())  // runs a probe: a commit may wait for others, and asking must not

	mu      sync.Mutex // held while loops are told, so that each learns things in order
	req     *support.Requester
	sup     *support.Supporter
	lost    atomic.Uint64       // how often a node's support ran out
	sharers map[base.NodeID]int // how many replicas here have one there
	probing bool
}

// cell is what another node promised to this one.
type cell struct{ p atomic.Pointer[supported] }

type supported struct {
	token support.Token
	until base.Instant
}

func newSupports(s *Store) (*supports, error) {
	cfg := support.Config{
		Self: s.node, Incarnation: s.cfg.Incarnation, Seed: s.cfg.Seed, Interval: s.cfg.SupportInterval, Duration: s.cfg.SupportDuration,
	}
	p := &supports{s: s, start: func(probe func()) { s.wg.Go(probe) }, wake: make(chan struct{}, 1), sharers: make(map[base.NodeID]int)}
	now := s.Now()
	var err error
	if p.req, err = support.NewRequester(cfg, now); err != nil {
		return nil, err
	}
	if p.sup, err = support.NewSupporter(cfg, now); err != nil {
		return nil, err
	}
	p.disk.Store(int64(now))
	return p, nil
}

// Support implements raftgroup.Supports.
func (p *supports) Support(node base.NodeID) (support.Token, base.Instant) {
	if c, ok := p.cells.Load(node); ok {
		if v := c.(*cell).p.Load(); v != nil {
			return v.token, v.until
		}
	}
	return support.Token{}, 0
}

// Asks implements raftgroup.Supports.
func (p *supports) Asks() bool { return !p.mute.Load() }

// run is the goroutine that asks in time, and withdraws in time.
func (p *supports) run(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.wake:
		case <-stop:
			return
		}
		if next := p.pass(); next == base.Never {
			timer.Stop()
		} else {
			timer.Reset(max(0, next.Sub(p.s.Now())))
		}
	}
}

// busy says whether a loop has a leader that does not rest.
func (s *Store) busy() bool {
	return slices.ContainsFunc(s.workers, func(w *worker) bool { return w.busy.Load() })
}

func (p *supports) hurry() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pass does what is due, and returns when the next pass is.
func (p *supports) pass() (next base.Instant) {
	p.mu.Lock()
	now := p.s.Now()
	p.req.Synced(base.Instant(p.disk.Load()))
	p.req.Busy(now, p.s.busy())
	ended := p.sup.Withdraw(now)
	lost, lossAt := p.req.Lost(now)
	asks, next := p.req.Due(now)
	p.mute.Store(len(p.sharers) > 0 && p.req.DiskStale(now))
	next = min(next, lossAt, p.sup.NextEnd())
	p.tell(promisedEnds(ended), nil, lost)
	probe := false
	if len(p.sharers) > 0 {
		if at := p.req.ProbeAt(); at > now {
			next = min(next, at)
		} else if !p.probing {
			probe, p.probing = true, true
		}
	}
	p.mu.Unlock()
	p.lost.Add(uint64(len(lost)))
	for _, n := range lost {
		p.s.cfg.Logger.Info("a node no longer supports this one", "node", n)
	}
	for _, e := range ended {
		p.s.cfg.Logger.Info("support withdrawn from a node that is not heard of", "node", e.Node)
	}
	for _, a := range asks {
		p.send(a.To, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{
			Incarnation: uint64(a.Request.Incarnation), Seq: a.Request.Seq, DurationNanos: uint64(a.Request.Duration),
		}})
	}
	if probe {
		p.start(p.probe)
	}
	return next
}

// tell tells every loop. p.mu is held.
func (p *supports) tell(promised []raftgroup.Promised, supported, lost []base.NodeID) {
	if len(promised)+len(supported)+len(lost) == 0 {
		return
	}
	for _, w := range p.s.workers {
		w.box.put(func(ev *raftgroup.Events) {
			ev.Promised = append(ev.Promised, promised...)
			ev.Supported = append(ev.Supported, supported...)
			ev.Lost = append(ev.Lost, lost...)
		})
	}
}

func promisedEnds(ended []support.Ended) (out []raftgroup.Promised) {
	for _, e := range ended {
		out = append(out, raftgroup.Promised{Node: e.Node, Token: e.Token})
	}
	return out
}

func (p *supports) send(to base.NodeID, f *rangepb.SupportFrame) {
	frame, err := proto.Marshal(f)
	if err != nil {
		p.s.fatal(err)
		return
	}
	_ = p.s.transport.Send(to, transport.Support, frame) // what is lost is asked again
}

// HandleSupport takes a frame of the support class from another node.
func (s *Store) HandleSupport(from base.NodeID, frame []byte) error {
	var f rangepb.SupportFrame
	if err := proto.Unmarshal(frame, &f); err != nil {
		return fmt.Errorf("support frame from %s: %w", from, err)
	}
	if a := f.GetAnswer(); a != nil {
		s.supports.answered(from, support.Answer{
			Incarnation: base.Incarnation(a.Incarnation), Seq: a.Seq,
			Token: support.Token{Incarnation: base.Incarnation(a.TokenIncarnation), Epoch: a.TokenEpoch},
		})
	}
	if g := f.GetGossip(); g != nil {
		return s.cfg.OnGossip(from, g)
	}
	if q := f.GetRequest(); q != nil {
		return s.supports.requested(from, support.Request{
			Incarnation: base.Incarnation(q.Incarnation), Seq: q.Seq, Duration: time.Duration(q.DurationNanos),
		})
	}
	return nil
}

// requested promises, and answers. The loops know of the promise before the answer leaves.
func (p *supports) requested(from base.NodeID, q support.Request) error {
	p.mu.Lock()
	before, _, _ := p.sup.Supports(from)
	a, ended, err := p.sup.Requested(p.s.Now(), from, q)
	promised := promisedEnds(ended)
	fresh := err == nil && a.Token != before
	if fresh {
		promised = append(promised, raftgroup.Promised{Node: from, Incarnation: q.Incarnation, Token: a.Token, Live: true})
	}
	p.tell(promised, nil, nil)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if fresh {
		p.hurry()
	}
	p.send(from, &rangepb.SupportFrame{Answer: &rangepb.SupportAnswer{
		Incarnation: uint64(a.Incarnation), Seq: a.Seq, TokenIncarnation: uint64(a.Token.Incarnation), TokenEpoch: a.Token.Epoch,
	}})
	return nil
}

// answered shows readers how long another node's support lasts, and tells the loops if it is new.
func (p *supports) answered(from base.NodeID, a support.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := p.req.Answered(p.s.Now(), from, a)
	token, until := p.req.Support(from)
	c, _ := p.cells.LoadOrStore(from, &cell{})
	if old := c.(*cell).p.Load(); old == nil || old.token != token || old.until != until {
		c.(*cell).p.Store(&supported{token, until})
	}
	if fresh {
		p.tell(nil, []base.NodeID{from}, nil)
		p.hurry()
	}
}

// shares takes note of a replica's new descriptor in place of its old one: nodes that share a range ask each other.
func (p *supports) shares(before, after *metapb.RangeDescriptor) {
	if before == after {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := len(p.sharers)
	added := false
	for _, r := range after.GetReplicas() {
		if n := base.NodeID(r.NodeId); n != p.s.node {
			added = added || p.sharers[n] == 0
			p.sharers[n]++
		}
	}
	for _, r := range before.GetReplicas() {
		n := base.NodeID(r.NodeId)
		if n == p.s.node {
			continue
		}
		if p.sharers[n]--; p.sharers[n] == 0 {
			delete(p.sharers, n)
		}
	}
	if added || len(p.sharers) != known {
		p.req.SetPeers(p.s.Now(), p.nodes())
		p.hurry()
	}
}

// Replicas counts, for this node and for each with which it shares a range, the replicas of this node's ranges there.
func (s *Store) Replicas() map[base.NodeID]int {
	s.mu.RLock()
	own := len(s.replicas)
	s.mu.RUnlock()
	s.supports.mu.Lock()
	defer s.supports.mu.Unlock()
	counts := maps.Clone(s.supports.sharers)
	counts[s.node] = own
	return counts
}

func (p *supports) nodes() []base.NodeID {
	nodes := make([]base.NodeID, 0, len(p.sharers))
	for n := range p.sharers {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	return nodes
}

// synced is told that a batch which was committed at began is on disk.
func (p *supports) synced(began base.Instant, probe bool) {
	for {
		old := p.disk.Load()
		if int64(began) <= old || p.disk.CompareAndSwap(old, int64(began)) {
			break
		}
	}
	if probe {
		p.mu.Lock()
		p.probing = false
		p.mu.Unlock()
		p.hurry()
	}
}

// probe makes a small synced write, which an idle disk is known to be well by.
func (p *supports) probe() { p.s.syncWrite(pendingSync{probe: true}) }

// SupportStatus is what this node and another promise each other, for people.
type SupportStatus struct {
	Node     base.NodeID
	Token    support.Token // of the other's support for this one
	Left     time.Duration // how long that lasts; not positive: it does not
	Promised bool          // this node supports the other
	Trip     time.Duration // from this node's asking to the other's answer, lately; 0: not known
}

// SupportsLost is how often another node's support for this one ran out since the start.
func (s *Store) SupportsLost() uint64 { return s.supports.lost.Load() }

// Supports lists the nodes with which this one shares ranges.
func (s *Store) Supports() (out []SupportStatus) {
	p := s.supports
	p.mu.Lock()
	defer p.mu.Unlock()
	now := s.Now()
	for _, n := range p.nodes() {
		token, until := p.req.Support(n)
		_, _, promised := p.sup.Supports(n)
		out = append(out, SupportStatus{n, token, until.Sub(now), promised, p.req.RoundTrip(n)})
	}
	return out
}

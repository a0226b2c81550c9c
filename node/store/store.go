package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/node/latency"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

var (
	errDeadline  = fmt.Errorf("the request's time is over: %w", context.DeadlineExceeded)
	errNoReplica = errors.New("entries to apply for a replica that is not here")
)

// Config is what a Store is made of.
type Config struct {
	Engine      engine.Engine
	Node        base.NodeID
	Incarnation base.Incarnation
	Seed        uint64 // of the loops' election timers
	Loops       int    // 0: one for each core
	Logger      *slog.Logger
	// Clock is the node's monotonic clock, Now if nil. Deadlines are on it, and the loops' timers.
	Clock func() base.Instant
	// ColdAfter is how long nothing may happen to a replica before it goes cold; 0: base's.
	ColdAfter time.Duration
	// SupportInterval is how often this node asks others for support, SupportDuration how long for; 0: base's.
	SupportInterval, SupportDuration time.Duration
	// LogKeepEntries and LogKeepBytes are how much of a log is kept for replicas that are behind; 0: base's limits.
	LogKeepEntries, LogKeepBytes uint64

	// OnFatal is told, once, of an error after which the store serves nothing more.
	OnFatal func(error)
	// OnChange is told of every change of role, term, leader or descriptor of a local replica. It is called by a
	// worker and must not block.
	OnChange func(raftgroup.StateChange)
	// OnCold is told of a replica that went cold: nobody wanted anything of it for long. It must not block.
	OnCold func(*metapb.RangeDescriptor)
	// OnGossip is given what another node says of all nodes, which travels with support. It must not block.
	OnGossip func(from base.NodeID, g *rangepb.Gossip) error
	// OnApplied is told, after it is visible, of each range in which something was applied. It must not block.
	OnApplied func(base.RangeID)
	// OnLeases is told, after it is visible and before whoever asked for it, what has become of leases of clients that live in a range;
	// moved: some have come or gone otherwise. It must not block.
	OnLeases func(id base.RangeID, changes []apply.LeaseChange, moved bool)
	// OnIndexed is told, after it is visible, of each range in whose index something changed. It must not block.
	OnIndexed func(base.RangeID, []apply.Indexed)
	// OnEvents is told what was applied in a range that is watched (Watch), after it is visible and before whoever wrote it is answered,
	// and OnGone that its replica here has ended; for one range in order. They must not block.
	OnEvents func(watch.Applied)
	OnGone   func(base.RangeID)
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	if c.Loops == 0 {
		c.Loops = runtime.GOMAXPROCS(0)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ColdAfter == 0 {
		c.ColdAfter = base.ColdAfter
	}
	if c.OnGossip == nil {
		c.OnGossip = func(base.NodeID, *rangepb.Gossip) error { return nil }
	}
	if c.OnCold == nil {
		c.OnCold = func(*metapb.RangeDescriptor) {}
	}
	if c.SupportInterval == 0 {
		c.SupportInterval = base.SupportInterval
	}
	if c.SupportDuration == 0 {
		c.SupportDuration = base.SupportDuration
	}
	if c.Clock == nil {
		c.Clock = Now
	}
	if c.OnFatal == nil {
		c.OnFatal = func(error) {}
	}
	if c.OnChange == nil {
		c.OnChange = func(raftgroup.StateChange) {}
	}
	if c.OnApplied == nil {
		c.OnApplied = func(base.RangeID) {}
	}
	if c.OnLeases == nil {
		c.OnLeases = func(base.RangeID, []apply.LeaseChange, bool) {}
	}
	if c.OnIndexed == nil {
		c.OnIndexed = func(base.RangeID, []apply.Indexed) {}
	}
	if c.OnEvents == nil {
		c.OnEvents = func(watch.Applied) {}
	}
	if c.OnGone == nil {
		c.OnGone = func(base.RangeID) {}
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Engine == nil {
		errs = append(errs, errors.New("no engine"))
	}
	if c.Node == 0 {
		errs = append(errs, errors.New("no node id"))
	}
	if c.Incarnation == 0 {
		errs = append(errs, errors.New("no incarnation"))
	}
	if c.Loops < 0 || c.Loops > 1024 {
		errs = append(errs, fmt.Errorf("%d loops; between 1 and 1024 are possible", c.Loops))
	}
	return errors.Join(errs...)
}

// Store runs the replicas of one node. Its methods may be called from any goroutine.
type Store struct {
	cfg   Config
	eng   engine.Engine
	node  base.NodeID
	clock *steady

	cache     *entryCache
	waiters   *waiters
	workers   []*worker
	snapshots *snapshots
	compactor *compactor
	supports  *supports
	loads     tallies
	polls     polls
	runs      runs
	syncs     latency.Histogram // from the commit of a batch until it was on disk
	transport transport.Transport

	cooled atomic.Int64  // replicas that went cold since memory was last given back
	nextID atomic.Uint64 // incarnation in the upper 24 bits: ids are never used twice

	// births is held by whoever decides by a range's replica id and tombstone, or writes them, until that is visible: an applier
	// that cuts a range in two, and a worker that makes or ends a replica. Taken before mu.
	births sync.Mutex

	mu       sync.RWMutex
	replicas map[base.RangeID]*replica
	absorbed map[base.RangeID]struct{}              // taken over by their neighbours, and not ended by their loops yet
	statuses map[base.RangeID]raftgroup.StateChange // the newest of each local replica

	fatalOnce sync.Once
	wg        sync.WaitGroup
	expiry    chan struct{} // closed at Stop
	stopOnce  sync.Once
}

// New makes a store over an engine that holds an initialised node. Start runs it.
func New(cfg Config) (*Store, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	cache, err := newEntryCache(base.EntryCacheBytes)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, eng: cfg.Engine, node: cfg.Node, clock: &steady{read: cfg.Clock}, cache: cache, waiters: newWaiters(),
		replicas: make(map[base.RangeID]*replica), absorbed: make(map[base.RangeID]struct{}), statuses: make(map[base.RangeID]raftgroup.StateChange),
		expiry: make(chan struct{}), loads: tallies{of: make(map[base.RangeID]*tally)},
	}
	s.nextID.Store(uint64(cfg.Incarnation) << 40)
	s.snapshots, s.compactor = newSnapshots(s), newCompactor(s)
	if s.supports, err = newSupports(s); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	for i := range cfg.Loops {
		w, err := s.newWorker(i)
		if err != nil {
			return nil, err
		}
		s.workers = append(s.workers, w)
	}
	return s, nil
}

// Syncs is how long batches take from their commit until they are on disk.
func (s *Store) Syncs() *latency.Histogram { return &s.syncs }

// Incarnation counts this start of the node.
func (s *Store) Incarnation() base.Incarnation { return s.cfg.Incarnation }

func (s *Store) newWorker(i int) (*worker, error) {
	var silent time.Duration
	if s.cfg.Incarnation > 1 { // the first process of a node follows none that could have promised anything
		silent = base.SupportMaxDuration
	}
	loop, err := raftgroup.NewLoop(raftgroup.Config{
		Node: s.node, Incarnation: s.cfg.Incarnation, Seed: s.cfg.Seed + uint64(i),
		Store:          &logStore{eng: s.eng, cache: s.cache},
		LogKeepEntries: s.cfg.LogKeepEntries, LogKeepBytes: s.cfg.LogKeepBytes,
		Supports: s.supports, SupportDuration: s.cfg.SupportDuration, SilentFor: silent, ColdAfter: s.cfg.ColdAfter,
	}, s.Now())
	if err != nil {
		return nil, err
	}
	w := &worker{s: s, loop: loop, box: newMailbox()}
	w.appender = appender{eng: s.eng, hard: make(map[base.RangeID]termVote)}
	w.syncer, w.applier = newSyncer(s, w.box), newApplier(s, w.box)
	return w, nil
}

// Start loads the replicas that the engine holds and runs the loops. Frames leave through t from then on.
func (s *Store) Start(t transport.Transport) error {
	ids, err := s.open(t)
	if err != nil {
		return err
	}
	for _, w := range s.workers {
		s.wg.Go(w.run)
		s.wg.Go(w.syncer.run)
		s.wg.Go(w.applier.run)
	}
	s.wg.Go(s.expire)
	s.wg.Go(func() { s.supports.run(s.expiry) })
	s.wg.Go(s.compactor.run)
	s.begin(ids)
	return nil
}

// open loads the replicas that the engine holds.
func (s *Store) open(t transport.Transport) ([]base.RangeID, error) {
	s.transport = t
	ids, err := localRanges(s.eng)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := s.load(id); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// begin hands the replicas to their loops.
func (s *Store) begin(ids []base.RangeID) {
	for _, id := range ids {
		alone := s.onlyVoter(id)
		s.admin(id, raftgroup.Admin{Range: id, Start: true})
		if alone {
			s.admin(id, raftgroup.Admin{Range: id, Campaign: true})
		}
	}
}

// expire ends what waits past its deadline.
func (s *Store) expire() {
	tick := time.NewTicker(base.ExpireInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.waiters.expire(s.Now())
			s.runs.expire(s.Now())
			s.giveBack()
		case <-s.expiry:
			return
		}
	}
}

// Stop ends the loops and waits for them. Requests that wait are ended: writes as ambiguous. The engine stays open.
func (s *Store) Stop() {
	s.stopOnce.Do(func() {
		close(s.expiry)
		s.snapshots.stop()
		s.compactor.cancel()
		for _, w := range s.workers {
			w.box.close()
			w.syncer.stop()
			w.applier.stop()
		}
		s.wg.Wait()
		s.waiters.stop()
		s.cache.close()
	})
}

// fatal stops serving after an error of the engine or of an invariant of stored data.
func (s *Store) fatal(err error) {
	s.fatalOnce.Do(func() {
		s.cfg.Logger.Error("the store stops", "error", err)
		for _, w := range s.workers {
			w.box.close()
			w.syncer.stop()
			w.applier.stop()
		}
		s.cfg.OnFatal(err)
	})
}

func (s *Store) worker(id base.RangeID) *worker { return s.workers[uint64(id)%uint64(len(s.workers))] }

func (s *Store) admin(id base.RangeID, a raftgroup.Admin) {
	s.worker(id).box.put(func(ev *raftgroup.Events) { ev.Admin = append(ev.Admin, a) })
}

// Propose puts an encoded command into a range's log; done is told its outcome. change, if set, makes it the
// membership change that the command describes. The data belongs to the store from now on.
func (s *Store) Propose(p raftgroup.Proposal, deadline base.Instant, done Done) {
	seq := s.nextID.Add(1)
	if !s.waiters.add(seq, waiter{done: done, deadline: deadline, write: true}) {
		done(nil, base.ErrStopped)
		return
	}
	p.ID = raftgroup.ProposalID{Node: s.node, Seq: seq}
	if mutant.Is(mutant.CompareAtPropose) {
		s.decideEarly(&p)
	}
	if err := s.worker(p.Range).box.propose(p); err != nil {
		s.waiters.resolve(seq, nil, err)
	}
}

// ReadIndex tells done when the local replica has applied all that a linearizable read begun now must see.
func (s *Store) ReadIndex(id base.RangeID, deadline base.Instant, done Done) {
	seq := s.nextID.Add(1)
	if !s.waiters.add(seq, waiter{done: done, deadline: deadline}) {
		done(nil, base.ErrStopped)
		return
	}
	full := false
	ok := s.worker(id).box.put(func(ev *raftgroup.Events) {
		if full = len(ev.Reads) >= base.MailboxReads; !full {
			ev.Reads = append(ev.Reads, raftgroup.Read{Range: id, ID: raftgroup.ReadID(seq)})
		}
	})
	switch {
	case !ok:
		s.waiters.resolve(seq, nil, base.ErrStopped)
	case full:
		s.waiters.resolve(seq, nil, &base.Throttled{What: "reads", RetryAfter: base.ThrottleRetry})
	}
}

// Leaders is how many ranges this node leads, and how many of these rest.
func (s *Store) Leaders() (leaders, resting int) {
	for _, w := range s.workers {
		n := int(w.leaders.Load())
		leaders, resting = leaders+n, resting+n-int(w.awake.Load())
	}
	return leaders, resting
}

// Passes is how often the loops were stepped since the start.
func (s *Store) Passes() (n uint64) {
	for _, w := range s.workers {
		n += w.passes.Load()
	}
	return n
}

// Transfer asks the range's leader, if it is here, to hand leadership to another replica.
func (s *Store) Transfer(id base.RangeID, to base.ReplicaID) {
	s.admin(id, raftgroup.Admin{Range: id, Transfer: to})
}

// Warm has a local replica not go cold for a while, though nothing happens to it; a cold one is built again.
func (s *Store) Warm(id base.RangeID) { s.admin(id, raftgroup.Admin{Range: id, Warm: true}) }

// Removed tells a local replica that the index no longer lists it: it ends, and ids below the given one stay dead here.
// One with another id is not concerned.
func (s *Store) Removed(id base.RangeID, replica, below base.ReplicaID) {
	m := raftgroup.Message{Range: id, FromNode: s.node, ToNode: s.node, ToReplica: replica, TooOld: below}
	s.worker(id).box.put(func(ev *raftgroup.Events) { ev.Messages = append(ev.Messages, m) })
}

// Unreachable tells the ranges that share it that a node cannot be reached.
func (s *Store) Unreachable(node base.NodeID) {
	for _, w := range s.workers {
		w.box.put(func(ev *raftgroup.Events) { ev.Unreachable = append(ev.Unreachable, node) })
	}
}

// HandleRaft takes a frame of raft messages from another node.
func (s *Store) HandleRaft(from base.NodeID, frame []byte) error {
	ms, err := decodeRaftFrame(frame, from, s.node)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return nil
	}
	// One frame comes from one pass of one loop there; here its ranges may lie on several loops.
	for i, w := range s.workers {
		var mine []raftgroup.Message
		for j := range ms {
			if int(uint64(ms[j].Range)%uint64(len(s.workers))) == i {
				mine = append(mine, ms[j])
			}
		}
		if len(mine) > 0 {
			w.box.receive(mine, len(frame))
		}
	}
	return nil
}

func (s *Store) sendFrame(to base.NodeID, frame []byte) {
	// What cannot be sent is lost, which Raft expects; the transport counts it and reports the peer as down.
	_ = s.transport.Send(to, transport.Raft, frame)
}

// Status returns the replica of a range as its loop sees it now; false if there is none.
func (s *Store) Status(ctx context.Context, id base.RangeID) (raftgroup.Status, bool, error) {
	type answer struct {
		st raftgroup.Status
		ok bool
	}
	ch := make(chan answer, 1)
	if !s.worker(id).box.ask(func(l *raftgroup.Loop) {
		st, ok := l.Status(id)
		ch <- answer{st, ok}
	}) {
		return raftgroup.Status{}, false, base.ErrStopped
	}
	select {
	case a := <-ch:
		return a.st, a.ok, nil
	case <-ctx.Done():
		return raftgroup.Status{}, false, ctx.Err()
	}
}

package sim

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// node is one machine: a disk and a clock that stay, and a process that runs, is paused, dies and is started again. All
// that the process does is done by the product's store, turned by hand.
type node struct {
	w     *world
	i     int // place in world.nodes, and endpoint of the network
	id    base.NodeID
	disk  disk
	clock clock // that the store runs on
	wall  clock
	rand  *base.Rand // of its disk and its process

	incarnation base.Incarnation
	process     *process // nil: down
	pauses      int      // how many faults pause it
	frozen      []func() // what happened to it while it was paused, in order
	slow        slowness
	died        time.Duration // when its last process did
}

// slowness is what faults do to a node's disk and appliers.
type slowness struct {
	stalls, applyStalls int           // how many faults hold its syncs, its applies
	strained            int           // how many faults have its writes take long, as it says itself
	factors             []int64       // by how many times faults have its syncs take longer: the largest counts
	since               time.Duration // when the first of stalls began
}

func (s *slowness) factor() time.Duration {
	factor := int64(1)
	for _, f := range s.factors {
		factor = max(factor, f)
	}
	return time.Duration(factor)
}

func (s *slowness) stall(now time.Duration) {
	if s.stalls == 0 {
		s.since = now
	}
	s.stalls++
}

// process is one life of a node.
type process struct {
	n       *node
	eng     *faulty
	store   *store.Store
	hand    *store.Hand
	gateway *gateway
	mover   *mover

	watching *watching
	leasing  *leasing

	member   *member // in runs with deciders; so is the next
	governor *governor

	begun             bool // its first pass is over: its replicas are loaded
	passing, applying bool // an event for it is on its way
	timer             uint64
	supportTimer      uint64
	supporting        bool          // a pass of its support is on its way
	syncing           []*store.Sync // under way, in order
	syncBusy          bool
	ready             []func() // what callbacks of the store wanted done once it has returned
	peers             peers
	crashAt           string // the point at which it is to crash, and how often it is passed before
	crashPasses       int64
	crashLose         int64
	stopping          bool // its store has stopped, and it is about to end
	doomed            bool // it crashed at a point: what it does from there on has no effect
	expected          bool // a fault made its disk fail: it is right to stop
}

// passDelay is how long the process takes from an event to the step that deals with it: what comes meanwhile is dealt
// with in the same step.
const passDelay = 30 * time.Microsecond

// packDelay is the mean time from a loop's order to send a snapshot to its beginning.
const packDelay = 20 * time.Millisecond

// start runs a process on what the disk holds.
func (n *node) start() {
	w := n.w
	eng, err := n.disk.open()
	if err != nil {
		w.violate("crash image opens", "%s: the store does not open after a crash: %v", n.id, err)
		return
	}
	n.incarnation++
	if w.sys != nil {
		delete(w.sys.fenced, n.id) // what its last process heard is forgotten
	}
	p := &process{n: n, peers: newPeers(n)}
	_, lazy := n.disk.(*pebbleDisk)
	p.eng = &faulty{Engine: eng, lazy: lazy, point: p.point, born: func(id base.RangeID, replica uint64) { w.rules.born(p, id, replica) },
		sworn: func(id base.RangeID, hard []byte) { w.rules.sworn(p, id, hard) }}
	p.store, err = store.New(store.Config{
		Engine: p.eng, Node: n.id, Incarnation: n.incarnation, Loops: 1, Seed: n.rand.Uint64(),
		Clock: func() base.Instant { return n.clock.read(w.now) }, LogKeepEntries: uint64(w.plan.LogKeep), ColdAfter: w.plan.ColdAfter,
		OnFatal: p.fatal, OnChange: p.changed,
		OnEvents: func(a watch.Applied) { p.watching.applied(a) }, OnGone: func(id base.RangeID) { p.watching.gone(id) },
		OnApplied: func(id base.RangeID) { p.leasing.lessor.Applied(id) },
		OnLeases: func(id base.RangeID, changes []apply.LeaseChange, moved bool) {
			p.leasing.lessor.Leases(id, changes, moved)
		},
	})
	if err == nil {
		p.watching, p.leasing = newWatching(p), newLeasing(p)
		p.gateway, p.mover, p.member, p.governor = newGateway(p), newMover(p), newMember(p), newGovernor(p)
		p.hand, err = p.store.StartByHand(wire{p})
	}
	if err != nil {
		w.violate("crash image opens", "%s: the store does not start after a crash: %v", n.id, err)
		return
	}
	n.process = p
	w.count("process starts")
	w.note(noteStart, uint64(n.id), uint64(n.incarnation))
	w.tracef("%s starts, incarnation %d", n.id, n.incarnation)
	p.beat()
	p.support()
	p.mover.tick()
	if w.sys != nil {
		p.member.live()
		p.governor.tick()
	}
	p.expire()
	p.probe()
	p.settle()
}

// do runs f as something that happens to the process: not if it is gone meanwhile, later if it is paused.
func (p *process) do(f func()) {
	if p.n.process != p {
		return
	}
	if p.n.pauses > 0 {
		p.n.frozen = append(p.n.frozen, func() { p.do(f) })
		return
	}
	f()
	p.settle()
}

// later is do after a time on true clocks, which is what a process's timers run on.
func (p *process) later(d time.Duration, f func()) {
	p.n.w.queue.put(p.n.w.now+d, func() { p.do(f) })
}

// settle sees to what the last thing that happened has left to do.
func (p *process) settle() {
	n := p.n
	if n.process != p {
		return
	}
	for len(p.ready) > 0 && !p.doomed {
		f := p.ready[0]
		p.ready = p.ready[1:]
		f()
	}
	if p.doomed {
		n.die("at point " + p.crashAt)
		return
	}
	if !p.passing && p.hand.Due(p.store.Now()) {
		p.passing = true
		p.later(passDelay, p.pass)
	}
	if !p.supporting && p.hand.SupportDue() {
		p.supporting = true
		p.later(passDelay, p.support)
	}
	p.syncing = append(p.syncing, p.hand.Syncs()...)
	p.sync()
	if !p.applying && n.slow.applyStalls == 0 && p.hand.Applies() {
		p.applying = true
		p.later(exponential(n.rand, n.w.plan.Disk.Apply)+time.Microsecond, func() {
			p.applying = false
			if n.slow.applyStalls == 0 {
				p.hand.Apply()
				n.w.rules.applied(p)
			}
		})
	}
	p.leasing.settle()
	n.w.rules.leases(p)
	for _, m := range p.hand.Sends() {
		// The state that goes is that of the moment when somebody comes round to it.
		p.later(exponential(n.rand, packDelay), func() { p.carry(m) })
	}
}

// pass is a step of the loop.
func (p *process) pass() {
	p.passing = false
	n := p.n
	wake, err := p.hand.Pass(p.watch)
	if err != nil {
		return // the store told fatal
	}
	n.w.note(notePass, uint64(n.id), uint64(wake))
	n.w.rules.passed(p)
	if !p.begun {
		p.begun = true
		n.w.rules.started(p)
	}
	p.timer++
	if wake == base.Never {
		return
	}
	timer := p.timer
	// As a timer of the runtime: it runs on true time from what the clock shows now. A frozen clock has it tried again.
	wait := max(wake.Sub(p.store.Now()), 500*time.Microsecond)
	p.arm(timer, wait, wake)
}

func (p *process) arm(timer uint64, wait time.Duration, wake base.Instant) {
	p.later(min(wait, time.Hour), func() {
		if p.timer != timer || p.passing {
			return
		}
		if left := wake.Sub(p.store.Now()); left > 0 {
			p.arm(timer, max(left, 500*time.Microsecond), wake)
		}
	})
}

// support does what is due between this node and the others.
func (p *process) support() {
	p.supporting = false
	next := p.hand.Support()
	p.supportTimer++
	if next == base.Never {
		return
	}
	p.supportAt(p.supportTimer, next)
}

func (p *process) supportAt(timer uint64, at base.Instant) {
	// The clock may run slower than the timer.
	p.later(max(at.Sub(p.store.Now()), 500*time.Microsecond), func() {
		switch {
		case p.supportTimer != timer || p.supporting:
		case p.store.Now() < at:
			p.supportAt(timer, at)
		default:
			p.support()
		}
	})
}

// watch sees a step's effects before they are carried out.
func (p *process) watch(eff *raftgroup.Effects) {
	n, w := p.n, p.n.w
	if p.doomed {
		return
	}
	for i := range eff.Appends {
		a := &eff.Appends[i]
		w.note(noteAppend, uint64(n.id), uint64(a.Range), uint64(len(a.Entries)), a.OldLast, a.HardState.GetTerm(), a.HardState.GetVote(), a.HardState.GetCommit())
		if w.tracing() {
			w.tracef("%s %s", n.id, describeAppend(a))
		}
		if a.Snapshot != nil {
			w.count("snapshots installed")
		}
		if a.Truncate != nil {
			w.count("truncations")
		}
		if a.Destroy != 0 {
			w.count("replicas destroyed")
		}
	}
	w.result.Seen["replicas gone cold"] += len(eff.Cold)
	w.rules.effects(p, eff)
}

func describeAppend(a *raftgroup.Append) string {
	s := fmt.Sprintf("%s appends", a.Range)
	if a.ReplicaID != 0 {
		s += fmt.Sprintf(" replica=%d", a.ReplicaID)
	}
	if h := a.HardState; h != nil {
		s += fmt.Sprintf(" term=%d vote=%d commit=%d", h.GetTerm(), h.GetVote(), h.GetCommit())
	}
	if n := len(a.Entries); n > 0 {
		s += fmt.Sprintf(" entries=%d/%d..%d/%d old=%d", a.Entries[0].GetTerm(), a.Entries[0].GetIndex(), a.Entries[n-1].GetTerm(), a.Entries[n-1].GetIndex(), a.OldLast)
	}
	if a.Truncate != nil {
		s += fmt.Sprintf(" truncate=%d/%d", a.Truncate.Term, a.Truncate.Index)
	}
	if a.Snapshot != nil {
		s += fmt.Sprintf(" install=%d/%d", a.Snapshot.GetTerm(), a.Snapshot.GetIndex())
	}
	if a.Destroy != 0 {
		s += fmt.Sprintf(" destroy=%d", a.Destroy)
	}
	return s
}

// sync lets the disk work on the first batch that waits.
func (p *process) sync() {
	n := p.n
	for len(p.syncing) > 0 && !p.syncBusy && p.syncing[0].Quick() {
		p.synced()
	}
	if p.syncBusy || len(p.syncing) == 0 || n.slow.stalls > 0 {
		return
	}
	p.syncBusy = true
	d := (n.w.plan.Disk.Sync + exponential(n.rand, n.w.plan.Disk.Jitter)) * n.slow.factor()
	n.w.queue.put(n.w.now+d, func() { // the disk works on while the process is paused
		p.do(func() {
			p.syncBusy = false
			if n.slow.stalls == 0 {
				p.synced()
			}
		})
	})
}

// synced ends the first sync, and those that waited for nothing else.
func (p *process) synced() {
	n := p.n
	p.point("before sync")
	for first := true; len(p.syncing) > 0 && (first || p.syncing[0].Quick()); first = false {
		y := p.syncing[0]
		p.syncing = p.syncing[1:]
		if p.eng.fail != nil && !y.Quick() {
			p.store.Fatal(p.eng.fail)
			return
		}
		if err := p.hand.Synced(y); err != nil {
			return
		}
	}
	n.w.note(noteSync, uint64(n.id))
	p.point("after sync")
}

// point is passed by the process at each place where a crash is of interest.
func (p *process) point(name string) {
	if p.doomed || p.crashAt != name {
		return
	}
	if p.crashPasses--; p.crashPasses > 0 {
		return
	}
	n := p.n
	image := n.disk.image(n.rand, p.crashLose)
	if image == nil {
		p.crashAt = ""
		return
	}
	n.disk = &mapDisk{image}
	p.doomed = true
	n.w.count("crashes at points")
	n.w.tracef("%s crashes %s", n.id, name)
}

// die ends the process on a disk that is already as the crash left it.
func (n *node) die(why string) {
	w, p := n.w, n.process
	n.process, n.frozen, n.died = nil, nil, w.now
	w.note(noteEnd, uint64(n.id))
	w.tracef("%s dies %s", n.id, why)
	p.hand.Stop()
	w.rules.died(n)
	p.leasing.lessor.Stop()
	p.gateway.die()
	p.watching.die()
	w.peerGone(n.i)
}

// crash kills the process; lose percent of what its disk has not synced may be gone.
func (n *node) crash(lose int64) {
	p := n.process
	if p == nil {
		return
	}
	if p.doomed {
		n.die("twice")
		return
	}
	if err := n.disk.crash(n.rand, lose); err != nil {
		n.w.violate("crash image opens", "%s: the disk: %v", n.id, err)
	}
	n.die(fmt.Sprintf("(%d%% of what is not synced may be lost)", lose))
}

// fatal is told that the store serves nothing more. The binary ends then.
func (p *process) fatal(err error) {
	if p.doomed {
		return
	}
	w := p.n.w
	w.tracef("%s stops: %v", p.n.id, err)
	if !p.expected {
		w.violate("no fatal error", "%s stopped, and its disk was well: %v", p.n.id, err)
	}
	w.count("stopped by a disk's error")
	p.stopping = true
	w.queue.put(w.now, func() {
		if p.n.process == p {
			p.n.crash(0)
		}
	})
}

// changed is told of roles and leaders.
func (p *process) changed(c raftgroup.StateChange) {
	if p.doomed {
		return
	}
	w := p.n.w
	if c.Thawed {
		w.count("cold replicas built again")
	}
	w.note(noteRole, uint64(p.n.id), uint64(c.Range), uint64(c.Role), c.Term, uint64(c.Leader))
	w.tracef("%s %s is %s at term %d, leader %d: %s", p.n.id, c.Range, roleName(c), c.Term, c.Leader, c.Reason)
	if c.Role != raftgroup.Leader {
		p.governor.lost(c.Range)
	}
	w.rules.changed(p, &c)
	p.leasing.lessor.Changed(c)
	p.ready = append(p.ready, func() { p.gateway.changed(&c) })
}

func roleName(c raftgroup.StateChange) string {
	switch {
	case c.Destroyed:
		return "destroyed"
	case c.Role == raftgroup.Leader:
		return "leader"
	case c.Role == raftgroup.Candidate:
		return "candidate"
	default:
		return "follower"
	}
}

// expire ends the requests whose time is over, as the store's own goroutine does.
func (p *process) expire() {
	p.later(base.ExpireInterval, func() {
		p.hand.Expire()
		p.hand.Compact()
		p.expire()
	})
}

// probe reads every range that is here, linearizably, for the rule of fresh reads: clients ask too seldom.
func (p *process) probe() {
	p.later(probeInterval, func() {
		if p.n.w.clientsEnd {
			return // ranges are to come to rest
		}
		for _, id := range p.store.Ranges() {
			check := p.n.w.rules.fresh(p, id)
			p.store.ReadIndex(id, p.store.Now().Add(probeInterval), func(_ proto.Message, err error) {
				if err == nil {
					p.ready = append(p.ready, check)
				}
			})
		}
		p.probe()
	})
}

const probeInterval = 500 * time.Millisecond

// wire is the process's transport.
type wire struct{ p *process }

// Send implements transport.Transport.
func (t wire) Send(to base.NodeID, c transport.Class, frame []byte) error {
	p := t.p
	n, w := p.n, p.n.w
	p.point("before send")
	if p.doomed {
		return nil
	}
	target := w.node(to)
	if target == nil {
		return transport.ErrUnreachable
	}
	sum := xxhash.Sum64(frame)
	w.note(noteSend, uint64(n.id), uint64(to), sum)
	frame = bytes.Clone(frame)
	link, handle := classRaft, (*store.Store).HandleRaft
	if c == transport.Support {
		link, handle = classSupport, (*store.Store).HandleSupport
	}
	w.net.send(n.i, target.i, link, len(frame), func() {
		if q := target.process; q != nil {
			q.do(func() {
				w.note(noteArrive, uint64(to), sum)
				q.heard(n.i)
				if err := handle(q.store, n.id, bytes.Clone(frame)); err != nil && link == classRaft {
					w.violate("no fatal error", "%s does not understand a frame of %s: %v", to, n.id, err)
				}
			})
		}
	})
	return nil
}

// OpenBulk implements transport.Transport: snapshots are carried by the simulation, see carry.
func (t wire) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, transport.ErrUnreachable
}

// Peers implements transport.Transport.
func (t wire) Peers() []transport.PeerStatus { return nil }

// Close implements transport.Transport.
func (t wire) Close() {}

var _ engine.Engine = (*faulty)(nil)

package sim

import (
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/engine/enginetest"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/workloads"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/node/store"
)

// world is one run: everything that there is, stepped by one goroutine in the order of true time.
type world struct {
	plan   *Plan
	now    time.Duration
	queue  queue
	nodes  []*node
	net    *network
	ranges []*rangeInfo // the users', the index, then those that were cut off
	gone   []*rangeInfo // that were taken over by others
	merged map[base.RangeID]bool
	taken  []func(left *rangeInfo, at []byte) bool // what is to be done when a range is taken over next
	meta   *rangeInfo                              // the index
	byID   map[base.RangeID]*rangeInfo
	nextID base.RangeID // of the next range that is cut off
	born   func(*rangeInfo)
	rules  *rules
	result *Result
	trace  io.Writer
	hash   uint64

	commands   map[*linearizability.Op]uint64 // the sum of each write's command, as it was proposed
	clientsEnd bool                           // clients begin nothing more
	opsLeft    int
	bulkCuts   int // how many faults cut snapshot streams
	forgetful  int // how many faults have steps of moves taken twice
	late       int // how many faults have descriptors published twice
	watchers   int // how many clients faults have
	aims       []*mergeAim
	listed     map[string]uint64 // by key of the index: the generation that it acknowledged last

	sys    *sys // of a run with deciders; nil: without
	beside map[base.RangeID]beside
	seats  seats
}

// rangeInfo is a range as the world knows it from outside.
type rangeInfo struct {
	id       base.RangeID
	ks       base.KeyspaceID
	first    *metapb.RangeDescriptor
	name     string      // of the workload on its keyspace
	goal     change.Goal // where its voters are wanted; empty: where they are
	workload linearizability.Workload
	history  *linearizability.History
	clients  []*client

	follows, leases bool // what its workload does
}

// The limits of a run that goes wrong.
const (
	maxViolations = 20
	maxEvents     = 40_000_000 // a run of thirty simulated seconds has some hundred thousand
)

// Run carries a plan out. The trace, if not nil, gets a line for each thing that happened.
func Run(p *Plan, trace io.Writer) *Result {
	w := newWorld(p, trace)
	w.run()
	w.result.Hash = w.hash
	w.result.Simulated = w.now
	return w.result
}

func newWorld(p *Plan, trace io.Writer) *world {
	w := &world{
		plan: p, trace: trace, opsLeft: p.Ops, commands: make(map[*linearizability.Op]uint64), hash: mix(p.Seed),
		byID: make(map[base.RangeID]*rangeInfo), merged: make(map[base.RangeID]bool), listed: make(map[string]uint64), nextID: firstCutOff,
		result: &Result{Plan: p, Fired: make(map[FaultKind]int), Seen: make(map[string]int)},
	}
	w.rules = newRules(w)
	w.net = newNetwork(w, p.Network, p.Nodes+1)
	for i := range p.Ranges {
		w.addRange(base.RangeDefault+base.RangeID(i), base.KeyspaceDefault+base.KeyspaceID(i), p.Workload[i])
	}
	w.meta = w.addRange(base.RangeMeta, base.KeyspaceMeta, "")
	w.rules.tiling = newTiling(w)
	if p.Allocator {
		w.sys, w.beside, w.seats = newSys(w), make(map[base.RangeID]beside), newSeats()
	}
	for i := range p.Nodes {
		w.addNode(i)
	}
	return w
}

// firstCutOff is the id of the first range that a split makes.
const firstCutOff = 1000

func (w *world) addRange(id base.RangeID, ks base.KeyspaceID, workload string) *rangeInfo {
	r := &rangeInfo{id: id, ks: ks, name: workload, first: &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(ks), Generation: 1, NextReplicaId: 4}}
	holders := []uint64{1, 2, 3}
	if w.plan.Alone && ks != base.KeyspaceMeta {
		holders = []uint64{1 + uint64(id)%3}
	}
	for i, n := range holders {
		r.first.Replicas = append(r.first.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	if workload != "" {
		kind, ok := workloads.Named(workload)
		if !ok {
			w.violate("plan", "there is no workload %q", workload)
			return r
		}
		r.workload, r.history = kind.New("", 0), &linearizability.History{Clock: func() time.Duration { return w.now }}
		r.follows, r.leases = kind.Follows, kind.Leases
	}
	w.ranges, w.byID[id] = append(w.ranges, r), r
	return r
}

// heardOf takes note of a range that was cut off another, when a node first speaks of it.
func (w *world) heardOf(d *metapb.RangeDescriptor) {
	id := base.RangeID(d.GetRangeId())
	if d == nil || w.byID[id] != nil {
		return
	}
	r := &rangeInfo{id: id, ks: base.KeyspaceID(d.KeyspaceId), first: d}
	for _, o := range w.ranges {
		if o.ks == r.ks {
			r.name = o.name
			break
		}
	}
	w.ranges, w.byID[id] = append(w.ranges, r), r
	w.count("ranges cut off")
	if w.sys != nil {
		w.sys.moved = w.now
	}
	if w.born != nil {
		w.born(r)
	}
}

func (w *world) addNode(i int) {
	n := &node{w: w, i: i, id: base.NodeID(i + 1), rand: w.stream(fmt.Sprintf("node %d", i)), clock: newClock(ClockPlan{})}
	n.wall = n.clock
	if i < len(w.plan.Clock) {
		n.clock = newClock(w.plan.Clock[i])
		n.wall = n.clock
		n.wall.bound = 0
	}
	if w.plan.Pebble {
		n.disk = &pebbleDisk{disk: enginetest.NewDisk(w.stream(fmt.Sprintf("disk %d", i)).Uint64())}
	} else {
		n.disk = &mapDisk{engine.NewMem()}
	}
	w.nodes = append(w.nodes, n)
	eng, err := n.disk.open()
	if err != nil {
		w.violate("plan", "%s: %v", n.id, err)
		return
	}
	if i >= 3 {
		return
	}
	b := eng.NewBatch()
	for _, r := range w.ranges {
		rep := desc.ReplicaOn(r.first, n.id)
		if rep == nil {
			continue
		}
		if err := store.CreateReplica(b, r.first, base.ReplicaID(rep.ReplicaId)); err != nil {
			w.violate("plan", "%s: %v", n.id, err)
		}
	}
	wait, err := b.CommitSync()
	if err == nil {
		err = wait()
	}
	if err != nil {
		w.violate("plan", "%s: %v", n.id, err)
	}
}

// stream is a source of random numbers for one purpose: what one draws does not move what another does.
func (w *world) stream(purpose string) *base.Rand {
	h := w.plan.Seed
	for _, c := range []byte(purpose) {
		h = mix(h ^ uint64(c))
	}
	return base.NewRand(h)
}

func (w *world) node(id base.NodeID) *node {
	if id == 0 || int(id) > len(w.nodes) {
		return nil
	}
	return w.nodes[id-1]
}

// descriptor is the newest descriptor of the range that holds a key that any running node has applied.
func (w *world) descriptor(ks base.KeyspaceID, key []byte) (found *metapb.RangeDescriptor) {
	for _, r := range w.ranges {
		if d := w.newest(r); r.ks == ks && desc.Contains(d, ks, key) && (found == nil || d.Generation > found.Generation) {
			found = d
		}
	}
	return found
}

// newest is a range's newest descriptor that any running node has applied.
func (w *world) newest(r *rangeInfo) *metapb.RangeDescriptor {
	newest := r.first
	for _, n := range w.nodes {
		if n.process == nil {
			continue
		}
		if v := n.process.store.View(r.id); v != nil && v.Descriptor.Generation > newest.Generation {
			newest = v.Descriptor
		}
	}
	return newest
}

// count notes that something happened that a run is to reach at times.
func (w *world) count(what string) { w.result.Seen[what]++ }

// violate notes what must not be.
func (w *world) violate(checker, format string, args ...any) {
	w.tracef("VIOLATION "+checker+": "+format, args...)
	if len(w.result.Violations) < maxViolations {
		w.result.Violations = append(w.result.Violations, linearizability.Violation{Checker: checker, What: fmt.Sprintf(format, args...)})
	}
}

// run is the whole story: the first leaders, what the workloads need, the faults, the heal, the checks.
func (w *world) run() {
	if !w.result.Passed() {
		return
	}
	for _, n := range w.nodes {
		n.start()
	}
	defer w.close()
	if !w.await("the first leaders", firstLimit, w.led) || !w.setup() {
		return
	}
	for _, r := range w.ranges {
		w.addClients(r)
	}
	if w.sys != nil {
		w.sys.operate()
	}
	end := w.now + w.plan.Length
	faults := newInjector(w)
	faults.schedule()
	w.until(end, func() bool { return w.opsLeft <= 0 && w.clientsIdle() })
	faults.heal()
	w.recover()
	w.check()
}

// snapshotClients is how many clients there are at least where it needs several: reads of one moment, and watches, are nothing without
// others' writes, and a lock nothing without another who wants it.
const snapshotClients = 4

func (w *world) addClients(r *rangeInfo) {
	if r.workload == nil {
		return
	}
	clients := w.plan.Clients
	if r.name == snapshot || r.follows || r.leases {
		clients = max(clients, snapshotClients)
	}
	for i := range clients {
		c := w.newClient(r, i)
		r.clients = append(r.clients, c)
		c.next()
	}
}

func (w *world) newClient(r *rangeInfo, i int) *client {
	rand := w.stream(fmt.Sprintf("client %d of %s", i, r.id))
	return &client{w: w, r: r, i: i, rand: rand, to: w.member(int(rand.Int63n(int64(len(w.nodes)))))}
}

// member is the node at a place or, in runs with deciders, the first behind it that serves clients: they know who is in.
func (w *world) member(i int) int {
	for k := range w.nodes {
		at := (i + k) % len(w.nodes)
		if p := w.nodes[at].process; w.sys == nil || p != nil && p.member.serves() {
			return at
		}
	}
	return i
}

func (w *world) clientsIdle() bool {
	for _, r := range w.ranges {
		if slices.ContainsFunc(r.clients, func(c *client) bool { return !c.ended }) {
			return false
		}
	}
	return true
}

// until lets the world go on to a time, or until something is reached, which is looked at now and then.
func (w *world) until(end time.Duration, reached func() bool) bool {
	next := w.now
	for len(w.result.Violations) < maxViolations {
		if w.now >= next {
			if reached() {
				return true
			}
			next = w.now + 50*time.Millisecond
		}
		if len(w.queue.events) == 0 || w.queue.events[0].at > end {
			w.now = max(w.now, end)
			return reached()
		}
		e, _ := w.queue.take()
		w.now = max(w.now, e.at)
		if w.result.Events++; w.result.Events > maxEvents {
			w.violate("ends", "more than %d events: something happens without end", maxEvents)
			return false
		}
		e.run()
	}
	return false
}

// await is until with a limit that only a broken cluster reaches.
func (w *world) await(what string, limit time.Duration, reached func() bool) bool {
	began := w.now
	if w.until(w.now+limit, reached) {
		w.tracef("%s: after %s", what, w.now-began)
		return true
	}
	w.violate("liveness", "%s: not within %s of simulated time; lacking: %s; %s", what, limit, w.lacking(), w.state())
	return false
}

// state is what the nodes say of the ranges, for people.
func (w *world) state() (s string) {
	for _, r := range w.ranges {
		s += r.id.String() + ":"
		for _, n := range w.nodes {
			if n.process == nil {
				s += fmt.Sprintf(" %s down", n.id)
				continue
			}
			if st, ok := n.process.hand.Status(r.id); ok {
				s += fmt.Sprintf(" %s(replica %d role %d term %d leader %d commit %d applied %d last %d gen %d)", n.id, st.Replica, st.Role, st.Term, st.Leader, st.Commit, st.Applied, st.Last, st.Descriptor.GetGeneration())
			}
		}
		s += "; "
	}
	return s
}

func (w *world) close() {
	for _, n := range w.nodes {
		if n.process != nil {
			n.process.leasing.lessor.Stop()
			n.process.gateway.stop()
			n.process.hand.Stop()
			n.process = nil
		}
		if eng, err := n.disk.open(); err == nil {
			_ = eng.Close() // in memory
		}
	}
}

// do1 carries out one request of a client of its own and lets the world go on until it has ended.
func (w *world) do1(c *client, req proto.Message, final bool) *linearizability.Op {
	var op *linearizability.Op
	c.do(req, final, func(o *linearizability.Op) { op = o })
	limit := 2 * patience
	if f, ok := req.(*followpb.FollowRequest); ok {
		limit += time.Duration(f.ForMicros) * time.Microsecond
	}
	w.until(w.now+limit, func() bool { return op != nil })
	return op
}

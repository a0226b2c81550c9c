package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// limit is how many decisions one pass may bring. A pass looks at a part of what there is for balance: the planner is at rest when
// restPasses in a row have brought nothing.
const (
	limit      = 1000
	restPasses = 200
)

// passes measures the planner alone, without a simulator around it: what is in memory is the planner's.
func (s *Suite) passes() error {
	before := resident()
	sn := allocator.NewSnapshot()
	p := allocator.DefaultPolicy()
	p.Imbalance, p.MovesPerNode, p.Moves = s.Imbalance, 4, 4096
	sn.SetPolicy(p)
	for i := range s.Nodes {
		sn.SetNode(s.node(i))
	}
	watch := start()
	s.fill(sn)
	fmt.Fprintf(s.Out, "\nranges entered      in %s\n", watch)
	watch = start()
	decisions, _ := allocator.Decide(sn, s.Seed, limit)
	fmt.Fprintf(s.Out, "full pass           %s, %d decisions; aim: 2 s\n", watch, len(decisions))
	runtime.GC()
	fmt.Fprintf(s.Out, "resident            %d MB at most, of these %d MB before there was anything; aim: 2,048 MB\n", largestResident()>>20, before>>20)

	watch = start()
	var passes laps
	rounds, moves, transfers := 0, 0, 0
	for idle := 0; idle < restPasses; rounds++ {
		for i := range decisions {
			m, t := carryOut(sn, &decisions[i])
			moves, transfers = moves+m, transfers+t
		}
		lap := start()
		decisions, _ = allocator.Decide(sn, s.Seed+uint64(rounds), limit)
		passes.lap(lap)
		if idle++; len(decisions) > 0 {
			idle = 0
		}
	}
	fmt.Fprintf(s.Out, "to rest             %d moves and %d transfers, in %s\n", moves, transfers, watch)
	fmt.Fprintf(s.Out, "  its passes        %s\n", &passes)
	fmt.Fprintf(s.Out, "largest over mean   %s\n", s.balance(sn))
	s.again(sn)
	s.incremental(sn)
	s.zone(sn)
	return nil
}

func (s *Suite) node(i int) allocator.Node {
	return allocator.Node{ID: base.NodeID(i + 1), State: allocator.Active, Weight: 1,
		Locality: []allocator.Tier{{Key: "zone", Value: fmt.Sprintf("z%d", i%s.Zones+1)}}}
}

// fill places the ranges as they may be in a cluster that has grown: in three zones each, otherwise anywhere.
func (s *Suite) fill(sn *allocator.Snapshot) {
	rand := base.NewRand(s.Seed)
	for i := range s.Ranges {
		r := allocator.Range{ID: base.RangeID(base.FirstFreeID + i), Keyspace: base.FirstFreeID, Generation: 1,
			Bytes: int64(16e6 * math.Exp(normal(rand))), Load: 10 * math.Exp(normal(rand))}
		first := int(rand.Int63n(int64(s.Zones)))
		for k := range 3 {
			zone := (first + k*s.Zones/3) % s.Zones
			n := int(rand.Int63n(int64(s.Nodes/s.Zones)))*s.Zones + zone
			r.Replicas = append(r.Replicas, allocator.Replica{Node: base.NodeID(n + 1), Role: allocator.Voter})
		}
		r.Leader = r.Replicas[0].Node
		sn.Put(r)
	}
}

// carryOut does what was decided at once.
func carryOut(sn *allocator.Snapshot, d *allocator.Decision) (moves, transfers int) {
	r, _ := sn.Range(d.Range)
	if d.Voters != nil {
		r.Replicas = r.Replicas[:0]
		for _, n := range d.Voters {
			r.Replicas = append(r.Replicas, allocator.Replica{Node: n, Role: allocator.Voter})
		}
		r.Generation++
		moves = len(d.Adds)
		if !slices.Contains(d.Voters, r.Leader) {
			r.Leader = d.Voters[0]
		}
	}
	if d.Leader != 0 {
		r.Leader, transfers = d.Leader, 1-min(1, moves)
	}
	sn.Put(r)
	return moves, transfers
}

// again measures a pass over everything when nothing is to be done: as after a change of the policy.
func (s *Suite) again(sn *allocator.Snapshot) {
	sn.SetPolicy(sn.Policy())
	watch := start()
	decisions, _ := allocator.Decide(sn, s.Seed, limit)
	fmt.Fprintf(s.Out, "full pass, at rest  %s, %d decisions\n", watch, len(decisions))
}

// incremental measures passes after changes of a range, and after those of a node, which concern all that it holds.
func (s *Suite) incremental(sn *allocator.Snapshot) {
	rand := base.NewRand(s.Seed + 1)
	var took laps
	for range s.Changes {
		r, _ := sn.Range(base.RangeID(base.FirstFreeID + rand.Int63n(int64(s.Ranges))))
		r.Load *= 1.5
		r.Bytes += r.Bytes / 10
		watch := start()
		sn.Put(r)
		decisions, _ := allocator.Decide(sn, rand.Uint64(), limit)
		took.lap(watch)
		for i := range decisions {
			carryOut(sn, &decisions[i])
		}
	}
	fmt.Fprintf(s.Out, "after a range's     %s; aim: 50 ms\n", &took)
	took = laps{}
	for range min(s.Changes, 100) {
		n := s.node(int(rand.Int63n(int64(s.Nodes))))
		for _, state := range []allocator.NodeState{allocator.Suspect, allocator.Active} {
			n.State, n.Suspected = state, 0
			watch := start()
			sn.SetNode(n)
			decisions, _ := allocator.Decide(sn, rand.Uint64(), limit)
			took.lap(watch)
			for i := range decisions {
				carryOut(sn, &decisions[i])
			}
		}
	}
	fmt.Fprintf(s.Out, "after a node's      %s; aim: 50 ms\n", &took)
}

// zone measures passes after a zone has come to be suspect, has failed, and after nodes were added: what changes the most at once. What
// is measured with the first of each is how long it takes to tell the planner.
func (s *Suite) zone(sn *allocator.Snapshot) {
	var lost, added []allocator.Node
	for i := range s.Nodes + s.Added*s.Zones/(s.Zones-1) + s.Zones {
		n := s.node(i)
		switch isLost := i%s.Zones == 1; {
		case i < s.Nodes && isLost:
			lost = append(lost, n)
		case i >= s.Nodes && !isLost && len(added) < s.Added:
			added = append(added, n)
		}
	}
	tell := func(nodes []allocator.Node, state allocator.NodeState) func() {
		return func() {
			for _, n := range nodes {
				n.State = state
				sn.SetNode(n)
			}
		}
	}
	s.until(sn, "a zone is suspect   ", tell(lost, allocator.Suspect))
	s.until(sn, "a zone has failed   ", tell(lost, allocator.Failed))
	s.until(sn, "nodes were added    ", tell(added, allocator.Active))
	fmt.Fprintf(s.Out, "largest over mean   %s\n", s.balance(sn))
}

// until asks until all is looked at and as many passes as restPasses have brought nothing, and prints the first pass and all.
func (s *Suite) until(sn *allocator.Snapshot, what string, change func()) {
	var took laps
	moves, passes := 0, 0
	for idle := 0; idle < restPasses; passes++ {
		watch := start()
		if passes == 0 {
			change()
		}
		idle++
		if sn.Unseen() > 0 {
			idle = 0
		}
		decisions, _ := allocator.Decide(sn, s.Seed+uint64(passes), limit)
		if took.lap(watch); passes == 0 {
			fmt.Fprintf(s.Out, "%sfirst pass %s, %d ranges left for the next\n", what, &took, sn.Unseen())
		}
		for i := range decisions {
			m, _ := carryOut(sn, &decisions[i])
			moves += m
			idle = 0
		}
	}
	fmt.Fprintf(s.Out, "  to rest, %d moves %s; aim: 50 ms\n", moves, &took)
}

// balance is the largest over the mean of what the nodes hold.
func (s *Suite) balance(sn *allocator.Snapshot) string {
	var largest, sum [4]float64
	n := 0.0
	for _, x := range sn.Nodes() {
		if x.State != allocator.Active {
			continue
		}
		n++
		h := sn.Holding(x.ID)
		for d, v := range [4]float64{float64(h.Replicas), float64(h.Bytes), h.Load, float64(h.Leaders)} {
			largest[d], sum[d] = max(largest[d], v), sum[d]+v
		}
	}
	return fmt.Sprintf("count %.4f, bytes %.4f, load %.4f, leaders %.4f", largest[0]*n/sum[0], largest[1]*n/sum[1], largest[2]*n/sum[2], largest[3]*n/sum[3])
}

func spread(took []time.Duration) string {
	if len(took) == 1 {
		return round(took[0]).String()
	}
	took = slices.Sorted(slices.Values(took))
	return fmt.Sprintf("median %s, 99%% %s, largest %s", round(took[len(took)/2]), round(took[len(took)*99/100]), round(took[len(took)-1]))
}

// stopwatch measures the clock's time, and the CPU time of the goroutine's thread, which is the goroutine's alone until stop: what
// others on the machine do, and the garbage collector on other threads, is in the former and not in the latter.
type stopwatch struct {
	at  time.Time
	cpu time.Duration
}

// laps are what several passes took.
type laps struct{ clock, cpu []time.Duration }

func start() stopwatch {
	runtime.LockOSThread()
	return stopwatch{time.Now(), cpuTime()}
}

func (w stopwatch) stop() (clock, cpu time.Duration) {
	defer runtime.UnlockOSThread()
	return time.Since(w.at), cpuTime() - w.cpu
}

func (w stopwatch) String() string {
	clock, cpu := w.stop()
	return fmt.Sprintf("%s (CPU %s)", round(clock), round(cpu))
}

func (l *laps) lap(w stopwatch) {
	clock, cpu := w.stop()
	l.clock, l.cpu = append(l.clock, clock), append(l.cpu, cpu)
}

// isLongest says whether the last lap took most of the thread's time so far.
func (l *laps) isLongest() bool { return slices.Max(l.cpu) == l.cpu[len(l.cpu)-1] }

func (l *laps) String() string {
	return fmt.Sprintf("%s; CPU: %s; of %d; %d above %s, by CPU %d", spread(l.clock), spread(l.cpu), len(l.clock), above(l.clock), aim, above(l.cpu))
}

// aim is how long a pass after a change may take.
const aim = 50 * time.Millisecond

func above(took []time.Duration) (n int) {
	for _, d := range took {
		if d > aim {
			n++
		}
	}
	return n
}

// rusageThread is Linux's RUSAGE_THREAD, which package syscall does not name.
const rusageThread = 1

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(rusageThread, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func round(d time.Duration) time.Duration {
	if d > 100*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}

func normal(r *base.Rand) float64 {
	unit := func() float64 { return float64(r.Uint64()>>11) / (1 << 53) }
	return math.Sqrt(-2*math.Log(1-unit())) * math.Cos(2*math.Pi*unit())
}

// resident is what of the process is in memory now, largestResident what was at most.
func resident() int64        { return memory("VmRSS:") }
func largestResident() int64 { return memory("VmHWM:") }

func memory(line string) (bytes int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, l := range strings.Split(string(text), "\n") {
		if rest, found := strings.CutPrefix(l, line); found {
			_, _ = fmt.Sscanf(strings.TrimSpace(rest), "%d", &bytes)
		}
	}
	return bytes << 10
}

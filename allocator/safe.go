package allocator

import (
	"fmt"
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// Questions about nodes that are not gone yet: may they be stopped, may they be removed, could a placement be met. Nothing found
// means yes.

// Finding is what speaks against it.
type Finding struct {
	Range base.RangeID // the first that it is about; 0: of no one range
	Count int          // of ranges, if it is about several
	// Quorum: ranges would be left without a quorum of voters that are there and have caught up: they would stop.
	Quorum bool
	What   string
	Next   string // what would be possible instead
}

// findings gathers them, those that say the same of several ranges as one.
type findings struct {
	list []Finding
	at   map[string]int
	last int // that was added to
}

func (f *findings) add(id base.RangeID, what, next string) {
	if i, ok := f.at[what]; ok {
		f.list[i].Count++
		f.last = i
		return
	}
	f.last = len(f.list)
	f.at[what] = f.last
	f.list = append(f.list, Finding{Range: id, Count: 1, What: what, Next: next})
}

// asked is a set of nodes that somebody asks about.
type asked struct {
	s     *Snapshot
	away  map[slot]bool
	bytes int64 // that would have to be copied
	out   findings
}

func (s *Snapshot) ask(nodes []base.NodeID) *asked {
	a := &asked{s: s, away: map[slot]bool{}, out: findings{at: map[string]int{}}}
	s.places()
	for _, id := range nodes {
		at, ok := s.byID[id]
		if !ok || !s.nodes[at].known {
			a.out.add(0, fmt.Sprintf("there is no node %s", id), "name nodes that are there (cairn node ls)")
			continue
		}
		a.away[at] = true
	}
	return a
}

// ranges calls f for each range with a replica on one of the nodes, once, by id.
func (a *asked) ranges(f func(v *view)) {
	var rows []row
	for at := range a.away {
		rows = append(rows, a.s.nodes[at].held...)
	}
	slices.SortFunc(rows, func(x, y row) int { return sign(int(a.s.entries[x].id) - int(a.s.entries[y].id)) })
	for _, at := range slices.Compact(rows) {
		var v view
		a.s.look(at, &v)
		f(&v)
	}
}

// SafeToStop says what speaks against stopping these nodes, all at once, for a while: ranges that would be left with less than a
// quorum of voters that are there and have caught up, constraints that no node could meet meanwhile, and too little room on the
// others, should the nodes not come back.
func SafeToStop(s *Snapshot, nodes []base.NodeID) []Finding {
	a := s.ask(nodes)
	spare := a.spare()
	a.ranges(func(v *view) {
		well, need := a.left(v)
		if well < need {
			a.out.add(v.e.id, fmt.Sprintf("a range of keyspace %s would have %d of %d voters that are there and have caught up, and needs %d",
				v.e.keyspace, well, v.voters.n, need), a.fewer(v))
			a.out.list[a.out.last].Quorum = true
			return
		}
		a.constraints(v, spare)
		if a.elsewhere(v) {
			a.bytes += int64(v.voters.n-a.staying(v)) * v.e.bytes
		}
	})
	a.room("stop fewer of them at once, or make room first")
	return a.out.list
}

// staying is how many of the range's voters are on other nodes.
func (a *asked) staying(v *view) (n int) {
	for _, m := range v.voters.slice() {
		if !a.away[m] {
			n++
		}
	}
	return n
}

// elsewhere says whether a node that does not hold the range could take a replica. Where none could, as in a cluster of three, nothing
// would be copied, and no room is needed.
func (a *asked) elsewhere(v *view) bool {
	for i := range a.s.nodes {
		if n := &a.s.nodes[i]; n.able && !a.away[slot(i)] && !v.holds(slot(i)) {
			return true
		}
	}
	return false
}

// left is how many voters would be well without the nodes, of the configuration that has the fewest above what it needs.
func (a *asked) left(v *view) (well, need int) {
	for _, n := range v.well.slice() {
		if !a.away[n] {
			well++
		}
	}
	need = quorum(v.voters.n)
	if !v.joint {
		return well, need
	}
	before, wellBefore := 0, 0
	for i := range v.e.n {
		x := &v.e.seats[i]
		if x.role != Voter && x.role != Outgoing {
			continue
		}
		before++
		if v.e.behind&(1<<i) == 0 && a.s.nodes[x.node].alive() && !a.away[x.node] {
			wellBefore++
		}
	}
	if wellBefore-quorum(before) < well-need {
		return wellBefore, quorum(before)
	}
	return well, need
}

// fewer says which of the nodes could be stopped alone.
func (a *asked) fewer(v *view) string {
	margin := v.well.n - quorum(v.voters.n)
	if margin < 1 {
		return "wait until its other voters are back and have caught up, or move it away first"
	}
	return fmt.Sprintf("stop at most %d of the nodes that hold it at once, and wait until it has caught up", margin)
}

// spare counts, for each class, nodes that could take a replica and are not asked about.
func (a *asked) spare() []int {
	spare := make([]int, len(a.s.classes))
	for i := range a.s.nodes {
		if n := &a.s.nodes[i]; n.able && !a.away[slot(i)] {
			spare[n.class]++
		}
	}
	return spare
}

// constraints finds required and forbidden ones that could not be met any more, and are now.
func (a *asked) constraints(v *view, spare []int) {
	for _, k := range v.r.Constraints {
		if k.Kind != Required {
			continue
		}
		matching := 0
		for c, n := range spare {
			if n > 0 && a.s.classes[c].matches(k) {
				matching += n
			}
		}
		for _, n := range v.voters.slice() { // those that hold it, and could not take another
			if !a.away[n] && !a.s.nodes[n].able && a.s.classes[a.s.nodes[n].class].matches(k) {
				matching++
			}
		}
		need := k.Replicas
		if need == 0 {
			need = min(v.r.atLeast(), v.voters.n)
		}
		if matching < need {
			a.out.add(v.e.id, fmt.Sprintf("constraint %s of keyspace %s asks for %d nodes, and %d would be left", k, v.e.keyspace, need, matching),
				"add nodes that meet it, or change the placement first")
			return
		}
	}
	if len(v.r.Constraints) == 0 {
		return
	}
	// What stays is kept: a range goes one exchange at a time, and none may miss more than before.
	var stay []int32
	room := slices.Clone(spare)
	for _, n := range v.voters.slice() {
		if !a.away[n] {
			stay = append(stay, a.s.nodes[n].class)
			if a.s.nodes[n].able {
				room[a.s.nodes[n].class]--
			}
		}
	}
	if a.s.fill(v.r, room, stay, v.voters.n) > a.s.worthOf(v, v.voters).hard {
		a.out.add(v.e.id, fmt.Sprintf("the constraints of keyspace %s could not be met, all together, by the nodes that would be left", v.e.keyspace),
			"add nodes that meet them, or change the placement first")
	}
}

// room finds that what would be copied has no place on the others.
func (a *asked) room(next string) {
	var free int64
	for i := range a.s.nodes {
		n := &a.s.nodes[i]
		if !n.able || a.away[slot(i)] {
			continue
		}
		if n.DiskBytes == 0 {
			return // nothing is known of it
		}
		free += max(0, int64(diskFull*float64(n.DiskBytes))-n.DiskUsed-n.incoming)
	}
	if a.bytes > free {
		a.out.add(0, fmt.Sprintf("they hold %d bytes that the other nodes would have to take, and those have room for %d", a.bytes, free), next)
	}
}

// CanDecommission says what speaks against moving all that the nodes hold elsewhere: too few nodes for the number of voters,
// constraints that could not be met, no room, or ranges that have no quorum to change their voters with.
func CanDecommission(s *Snapshot, nodes []base.NodeID) []Finding {
	a := s.ask(nodes)
	spare := a.spare()
	free := 0
	for _, n := range spare {
		free += n
	}
	a.ranges(func(v *view) {
		if v.well.n < quorum(v.voters.n) {
			a.out.add(v.e.id, "a range has less than a quorum of voters that are there and have caught up: it cannot be moved", "bring its voters back first")
			return
		}
		stay, could := set{}, free
		for _, n := range v.voters.slice() {
			if a.away[n] || s.nodes[n].lost(v.r.FailedAfter) {
				continue
			}
			stay.add(n)
			if !s.nodes[n].able {
				could++
			}
		}
		if need := v.r.atLeast(); could < need {
			a.out.add(v.e.id, fmt.Sprintf("ranges of keyspace %s need %d nodes, and %d would be left that could hold them", v.e.keyspace, need, could),
				"add nodes, or lower the number of replicas in the policy first")
			return
		}
		a.constraints(v, spare)
		a.bytes += int64(v.voters.n-a.staying(v)) * v.e.bytes
	})
	a.room("add nodes, or disks, or remove fewer nodes at once")
	return a.out.list
}

// CheckPlacement says what of a placement no node, or too few, can meet now. Nothing: it can be met. Replicas that are
// not said are the default's.
func CheckPlacement(s *Snapshot, pl Placement) []string {
	var out []string
	orElse(&pl.Replicas, s.policy.Default.Replicas)
	if err := pl.Validate(); err != nil {
		return []string{err.Error()}
	}
	s.places()
	r := rules{Placement: pl}
	r.extend(&s.topology)
	if need := r.atLeast(); s.ableNodes < need {
		out = append(out, fmt.Sprintf("%d voters are asked for, and %d nodes could hold one", need, s.ableNodes))
	}
	for b, k := range pl.Constraints {
		matching, need := 0, max(1, k.Replicas)
		for c := range s.classes {
			if met := r.matched[c]>>b&1 != 0; met != (k.Kind == Forbidden) {
				matching += s.classes[c].able
			}
		}
		if k.Kind != Preferred && k.Replicas == 0 {
			need = r.atLeast()
		}
		if matching < need {
			out = append(out, fmt.Sprintf("constraint %s: %d of the nodes that could hold a voter are right by it, and %d are needed", k, matching, need))
		}
	}
	for b, k := range pl.Leaders {
		if !slices.ContainsFunc(r.leading, func(m uint32) bool { return m>>b&1 != 0 }) && k.Kind != Forbidden {
			out = append(out, fmt.Sprintf("preference %s for leaders: no node meets it", k))
		}
	}
	if missed := s.fill(&r, s.ask(nil).spare(), nil, r.Replicas); len(out) == 0 && missed > 0 {
		out = append(out, fmt.Sprintf("the constraints cannot be met together: at best they are missed by %d voters", missed))
	}
	return out
}

// fill chooses voters beside those that stay, one after the other and then by exchanges, and says by how many the required and
// forbidden constraints are missed at best. Room is how many nodes of each class there are for it.
func (s *Snapshot) fill(r *rules, room []int, stay []int32, seats int) int {
	chosen := slices.Clone(stay)
	total := len(stay)
	for _, n := range room {
		total += n
	}
	used := make([]int, len(s.classes))
	pick := func(beside []int32) int32 {
		best, bestWorth := int32(-1), worst()
		for c := range s.classes {
			if used[c] >= room[c] {
				continue
			}
			if w := s.worth(r, append(slices.Clone(beside), int32(c))); w.compare(bestWorth) < 0 {
				best, bestWorth = int32(c), w
			}
		}
		return best
	}
	for range min(seats, total) - len(stay) {
		c := pick(chosen)
		chosen = append(chosen, c)
		used[c]++
	}
	for range len(chosen) * len(chosen) { // each round is worth something, or the last
		for i := len(stay); i < len(chosen); i++ {
			used[chosen[i]]--
			beside := slices.Delete(slices.Clone(chosen), i, i+1)
			chosen[i] = pick(beside)
			used[chosen[i]]++
		}
	}
	return s.worth(r, chosen).hard
}

package allocator

import "slices"

// A pass sorts what is new by the first goal that wants something of it (news.go), and then serves the goals in their order.
// What it decides counts at once for what it decides after that, and no more once it returns.

// goal is one of the reasons for which something is done with a range. Wants says whether it has anything to ask for, and must be
// cheap: it is asked for every range. Plan says what is to be done, or why nothing is.
type goal struct {
	goal  Goal
	wants func(s *Snapshot, v *view) bool
	plan  func(p *pass, v *view) (*proposal, why)
}

// ladder is the goals that look at one range at a time, in their order.
func ladder() [11]goal {
	return [...]goal{
		{GoalJoint, wantsJoint, planJoint},
		{GoalQuorum, wantsQuorum, planQuorum},
		{GoalWanted, wantsWanted, planWanted},
		{GoalReplace, wantsReplace, planReplace},
		{GoalDrain, wantsDrain, planDrain},
		{GoalFactor, wantsFactor, planFactor},
		{GoalConstraint, wantsConstraint, planConstraint},
		{GoalDiversity, wantsDiversity, planDiversity},
		{GoalBalance, wantsRoom, planRoom},
		{GoalLeader, wantsLeader, planLeader},
		{GoalSplit, wantsSplit, planSplit},
	}
}

// proposal is a decision before it is written down.
type proposal struct {
	goal          Goal
	voters        set // nothing: where they are
	adds, removes set
	leader        slot // none: whoever leads now, or anyone
	reason        string
	scores        []Score
}

// What one pass may cost is counted in places that it compares for ranges of which nothing came (base.PlanVisits). visitRange is what a
// range counts that was only looked at, and visitsLeast which part of all a bucket may always use.
const (
	visitRange  = 50
	visitsLeast = 50
)

// scoresKept is how many of the places that were compared a decision lists.
const scoresKept = 4

type pass struct {
	s       *Snapshot
	seed    uint64
	limit   int
	goals   [11]goal
	guard   guard
	means   means
	out     []Decision
	held    []Withheld
	tried   []row
	visits  int
	all     bool  // list every place that was compared
	asked   query // the first that was looked for, if all
	classes []candidate
}

// Decide returns at most limit decisions, in the order of their goals, none for a range that is under way or busy, and why other
// things that should be done are not. It does not change the ledger: the caller calls Begin for those that it takes up, before the
// next Decide. It does remember what it has looked at. If it decides nothing, withholds nothing and leaves nothing Unseen, the snapshot
// is at rest; if so much waits that one pass cannot look at all of it, the next pass goes on elsewhere. The same history of a snapshot
// and seed give the same decisions; the seed breaks ties, so that several deciders do not all choose the same node.
func Decide(s *Snapshot, seed uint64, limit int) ([]Decision, []Withheld) {
	p := newPass(s, seed, limit)
	p.sweep()
	for b := range s.pending {
		if b == int(bucketOf(GoalLeader, true)) && !s.stirred() {
			p.balance()
		}
		p.serve(b)
	}
	if !s.stirred() {
		p.levelLeaders()
	}
	for _, at := range slices.Backward(p.tried) {
		s.end(at)
	}
	p.tried = nil
	slices.SortStableFunc(p.out, func(a, b Decision) int { return int(a.Goal) - int(b.Goal) })
	return p.out, p.withheld()
}

func newPass(s *Snapshot, seed uint64, limit int) *pass {
	s.places()
	p := &pass{s: s, seed: seed, limit: limit, goals: ladder()}
	p.guard = s.newGuard()
	p.means = s.newMeans()
	s.setHot(&p.means)
	return p
}

// serve goes through one bucket. If there is more of it than one pass may decide, or look at, the next pass goes on where this one
// stopped, so that all have their turn. Half of the looks that are left are for the buckets that follow, so that what waits for long, as
// what a suspect zone holds does, keeps nothing else from being done.
func (p *pass) serve(bucket int) {
	s := p.s
	list := s.pending[bucket]
	if len(list) == 0 {
		return
	}
	var stale []row
	from, seen := s.turns[bucket]%len(list), 0
	most := p.visits + max((s.effort.visits-p.visits)/2, s.effort.visits/visitsLeast)
	for ; seen < len(list) && len(p.out) < p.limit && p.visits < most; seen++ {
		at := list[(from+seen)%len(list)]
		before := p.visits
		p.visits += visitRange
		if s.entries[at].flags&isUnder != 0 {
			continue
		}
		var v view
		s.look(at, &v)
		if v.x.busy != "" {
			continue // since it was sorted
		}
		x, g, w := p.decide(&v)
		if x == nil {
			s.blame(at, g, w)
			if w == whyNot {
				stale = append(stale, at) // what it was kept for is no more
			}
			continue
		}
		p.take(&v, x)
		p.visits = before
	}
	if s.turns[bucket] = from + seen; seen == len(list) {
		s.turns[bucket] = 0
	}
	for _, at := range stale {
		p.examine(at)
	}
}

// decide asks one goal after the other. The first that finds something decides; if none does, the first that was held back says why.
// Where one only waits for its turn, those behind it do not move the range's replicas meanwhile: they know nothing of what it is about to
// move, so that another voter would go, or be where the next one has to come.
func (p *pass) decide(v *view) (x *proposal, held Goal, because why) {
	waits := false
	for i := range p.goals {
		g := &p.goals[i]
		if !g.isAsked(p.s, v, waits) {
			continue
		}
		x, w := g.plan(p, v)
		if x != nil {
			return x, g.goal, whyNot
		}
		waits = waits || w.turn()
		if because == whyNot {
			held, because = g.goal, w
		}
	}
	return nil, held, because
}

// isAsked says whether the goal is asked what is to be done, if one before it waits for its turn, or none does.
func (g *goal) isAsked(s *Snapshot, v *view, waits bool) bool {
	switch {
	case v.joint && g.goal > GoalJoint: // nothing else may be begun
		return false
	case v.calm && g.goal < GoalFactor, waits && g.goal < GoalLeader:
		return false
	}
	return g.wants(s, v)
}

// take writes the decision down, and counts it for the rest of the pass.
func (p *pass) take(v *view, x *proposal) {
	s := p.s
	d := s.decision(v, x)
	p.out = append(p.out, d)
	p.tried = append(p.tried, v.at)
	f := effect{adds: x.adds, removes: x.removes, voters: x.voters, leader: v.e.leader}
	if x.voters.n == 0 {
		f.voters = v.holders()
	}
	if x.leader != none {
		f.leader = x.leader
	} else if f.leader != none && !f.voters.has(f.leader) {
		f.leader = none
	}
	s.blame(v.at, GoalNone, whyNot)
	s.begin(v.at, underway{decision: d, effect: f})
}

func (s *Snapshot) decision(v *view, x *proposal) Decision {
	d := Decision{
		Range: v.e.id, Generation: v.e.generation, Goal: x.goal, Leader: s.idOf(x.leader), Reason: x.reason, Scores: x.scores,
	}
	if x.voters.n > 0 {
		d.Voters = s.ids(x.voters.slice())
	}
	if x.adds.n > 0 {
		d.Adds, d.Bytes = s.ids(x.adds.slice()), v.e.bytes
	}
	if x.removes.n > 0 {
		d.Removes = s.ids(x.removes.slice())
	}
	return d
}

// view is one range as the goals look at it.
type view struct {
	at       row
	e        *entry
	r        *rules
	x        rare
	voters   set // of the configuration that it is in, or comes to be in
	learners set
	outgoing set
	well     set // of the voters, those that are there and have caught up
	wellOut  int // the same of outgoing ones
	joint    bool
	calm     bool // nothing but voters on nodes of which there is nothing to say, and nobody asked for anything
}

func (s *Snapshot) look(at row, v *view) {
	e := &s.entries[at]
	*v = view{at: at, e: e, r: &s.rules[e.rules], calm: e.flags&isRare == 0}
	v.x.wantedLeader = none
	if !v.calm {
		v.x = s.rare[at]
	}
	for i := range e.n {
		x := &e.seats[i]
		n := &s.nodes[x.node]
		well := e.behind&(1<<i) == 0 && n.alive()
		v.calm = v.calm && x.role == Voter && n.calm && well
		switch x.role {
		case Learner:
			v.learners.add(x.node)
			continue
		case Outgoing:
			v.outgoing.add(x.node)
			v.joint = true
			if well {
				v.wellOut++
			}
			continue
		case Incoming:
			v.joint = true
		}
		v.voters.add(x.node)
		if well {
			v.well.add(x.node)
		}
	}
}

// holders are the nodes that hold any replica.
func (v *view) holders() (r set) {
	for i := range v.e.n {
		r.add(v.e.seats[i].node)
	}
	return r
}

func quorum(n int) int { return n/2 + 1 }

// safe says whether a majority of voters that have caught up is there at every step of the way, in whatever order the steps are
// taken. Replicas are swapped one at a time, each by a joint step from a configuration to the next: so adds and removes differ by
// no more than they do in the end, and a replica that comes has caught up before it counts.
func (v *view) safe(adds, removes set) bool {
	removed := 0
	for _, n := range removes.slice() {
		if v.well.has(n) {
			removed++
		}
	}
	voting := 0 // of removes: a learner that goes is no vote
	for _, n := range removes.slice() {
		if v.voters.has(n) {
			voting++
		}
	}
	more := adds.n - voting
	for a := range adds.n + 1 {
		for w := range removed + 1 {
			for b := range voting - removed + 1 {
				if d := a - w - b; d < min(0, more) || d > max(0, more) {
					continue
				}
				if v.well.n+a-w < quorum(v.voters.n+a-w-b) {
					return false
				}
			}
		}
	}
	return true
}

// hold says why the balance goal, which is of no one range, waits.
func (p *pass) hold(g Goal, w why) {
	if w != whyNot {
		p.held = append(p.held, Withheld{Goal: g, Reason: p.reason(g, w)})
	}
}

// withheld says why what should be done is not, each reason once.
func (p *pass) withheld() []Withheld {
	held := p.held
	for g := range p.s.why {
		for w, t := range p.s.why[g] {
			if t.count == 0 {
				continue
			}
			h := Withheld{Goal: Goal(g), Reason: p.reason(Goal(g), why(w)), Count: t.count, Guard: why(w) == whyManyFail}
			if t.count == 1 {
				h.Range = t.last
			}
			held = append(held, h)
		}
	}
	slices.SortStableFunc(held, func(a, b Withheld) int { return int(a.Goal) - int(b.Goal) })
	return held
}

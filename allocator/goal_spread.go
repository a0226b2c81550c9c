package allocator

import (
	"fmt"

	"github.com/cairndb/cairn/internal/base"
)

// The seventh and eighth goals: voters are where constraints say, and far apart. Both exchange one voter for another, and only if the
// set is then better: fewer constraints missed; or none more, and further apart, where an outer tier counts before all inner ones.
// Each exchange makes the set strictly better by that order, so they come to an end.

// spreadKey is what the answer to "could it be better" depends on: the rules, and the voters' classes, each with whether its node
// could take a replica.
type spreadKey struct {
	rules   int32
	classes [base.MaxReplicas]int32
}

// improvable says whether some exchange makes the voters better. There are few answers, for many ranges: they are remembered until
// places change.
func (s *Snapshot) improvable(v *view) bool {
	k := spreadKey{rules: v.e.rules}
	for i, n := range v.voters.slice() {
		c := s.nodes[n].class*2 + 2
		if s.nodes[n].able {
			c++
		}
		j := i
		for ; j > 0 && k.classes[j-1] > c; j-- {
			k.classes[j] = k.classes[j-1]
		}
		k.classes[j] = c
	}
	yes, ok := s.spread[k]
	if !ok {
		yes = s.couldImprove(v)
		s.spread[k] = yes
	}
	return yes
}

func (s *Snapshot) couldImprove(v *view) bool {
	now := s.worthOf(v, v.voters)
	var buf [16]int32
	for _, out := range v.voters.slice() {
		keep := v.voters.without(out)
		classes := s.classesOf(&keep, buf[:])
		for c := range s.classes {
			if s.ableBeside(v, int32(c)) && s.worth(v.r, append(classes, int32(c))).compare(now) < 0 {
				return true
			}
		}
	}
	return false
}

// ableBeside says whether a node of the class that is no voter could take a replica.
func (s *Snapshot) ableBeside(v *view, c int32) bool {
	able := s.classes[c].able
	for _, n := range v.voters.slice() {
		if s.nodes[n].class == c && s.nodes[n].able {
			able--
		}
	}
	return able > 0
}

func wantsConstraint(s *Snapshot, v *view) bool {
	if len(v.r.Constraints) == 0 || v.x.isWanted {
		return false
	}
	w := s.worthOf(v, v.voters)
	return w.hard > 0 || w.soft > 0
}

func planConstraint(p *pass, v *view) (*proposal, why) {
	now := p.s.worthOf(v, v.voters)
	under := now
	under.likeness = -1 // only a set that misses fewer constraints is below it
	if !p.s.improvable(v) && !p.all {
		return nil, whyUnmet
	}
	x, w := p.exchange(v, GoalConstraint, under, "a constraint is not met")
	if w == whyNoNode || w == whyRuledOut {
		w = whyUnmet
	}
	return x, w
}

func wantsDiversity(s *Snapshot, v *view) bool {
	if v.voters.n < 2 || v.x.isWanted {
		return false
	}
	var likeness int64
	voters := v.voters.slice()
	for i, a := range voters {
		for _, b := range voters[:i] {
			likeness += s.likeness(s.nodes[a].class, s.nodes[b].class)
		}
	}
	if v.calm && likeness <= s.best[v.voters.n] {
		return false // as good as can be, however many nodes there are
	}
	return s.improvable(v)
}

func planDiversity(p *pass, v *view) (*proposal, why) {
	for _, n := range v.voters.slice() {
		if p.s.nodes[n].known && p.s.nodes[n].State == Suspect {
			return nil, whySuspect // it comes back, or is replaced: where the others are best is not known before
		}
	}
	return p.exchange(v, GoalDiversity, p.s.worthOf(v, v.voters), "voters are nearer to each other than need be")
}

// exchange finds the voter to exchange, and the node for it, that make the set best. Of voters whose going is as good the one on the
// fullest node goes: balance would come for it later.
func (p *pass) exchange(v *view, g Goal, under worth, because string) (*proposal, why) {
	var best *proposal
	bestWorth, bestLess, held := worst(), 0.0, whyNoNode
	for _, out := range v.voters.slice() {
		if n := &p.s.nodes[out]; !n.alive() || n.State == Leaving {
			continue // it goes anyway, or comes back: not for this goal to say
		}
		q := query{v: v, goal: g, keep: v.voters.without(out), hard: under.hard, under: &under}
		x, w := p.swapFor(&q, out, because)
		if x == nil {
			if held == whyNoNode {
				held = w
			}
			continue
		}
		now, less := p.s.worthOf(v, x.voters), p.means.less(&p.s.nodes[out], v.e.bytes)
		if c := now.compare(bestWorth); best == nil || c < 0 || c == 0 && less < bestLess {
			best, bestWorth, bestLess = x, now, less
		}
	}
	if best == nil {
		return nil, held
	}
	best.reason = fmt.Sprintf("%s: %s goes for %s", because, p.s.idOf(best.removes.at[0]), p.s.idOf(best.adds.at[0]))
	return best, whyNot
}

package allocator

import (
	"fmt"

	"github.com/cairndb/cairn/internal/base"
)

// Explanation is what would be decided for a range now, and why, or why nothing.
type Explanation struct {
	Known bool // there is such a range
	Range Range
	// Underway is the decision that was taken up for it; its goal is GoalNone if there is none. While there is one nothing else is
	// decided, and the rest says what would be.
	Underway Decision
	// Decision is what would be decided; its goal is GoalNone if nothing is, and Why says why that is.
	Decision Decision
	Why      string
	Withheld []Withheld // what should be done, and is not
	// Candidates are all nodes, those that could take a replica first and the best of them first: as the first goal that wants
	// something compares them, or as balance would.
	Candidates []Score
	Advice     []string // what a person could do next
}

// Explain says what Decide would do with the range, by asking the same goals in the same order.
func Explain(s *Snapshot, id base.RangeID) Explanation {
	at, ok := s.byRange[id]
	if !ok {
		return Explanation{Why: "there is no such range here"}
	}
	x := Explanation{Known: true}
	x.Range, _ = s.Range(id)
	if u, ok := s.under[at]; ok {
		x.Underway = u.decision
		x.Why = "a decision is under way"
	}
	p := newPass(s, 0, 1)
	p.all = true
	var v view
	s.look(at, &v)
	if v.x.busy != "" {
		x.Why = "waiting because it is busy: " + v.x.busy
		return x
	}
	p.explain(&v, &x)
	if x.Candidates == nil {
		q := p.example(&v)
		if p.asked.v != nil {
			q = &p.asked
		}
		x.Candidates = p.scoreAll(q)
	}
	return x
}

func (p *pass) explain(v *view, x *Explanation) {
	waits := false
	for i := range p.goals {
		g := &p.goals[i]
		if !g.isAsked(p.s, v, waits) {
			continue
		}
		found, w := g.plan(p, v)
		if found != nil {
			x.Candidates = found.scores
			found.scores = found.scores[:min(len(found.scores), scoresKept)]
			x.Decision = p.s.decision(v, found)
			return
		}
		waits = waits || w.turn()
		x.Withheld = append(x.Withheld, Withheld{Range: v.e.id, Goal: g.goal, Reason: p.reason(g.goal, w), Count: 1})
		x.Advice = append(x.Advice, p.advice(v, w)...)
	}
	if x.Why == "" && len(x.Withheld) > 0 {
		x.Why = x.Withheld[0].Reason
	}
	if x.Why == "" {
		x.Why = p.atRest(v)
	}
}

// atRest says why a range that no goal wants anything of is not moved for balance either.
func (p *pass) atRest(v *view) string {
	switch {
	case p.s.policy.NoBalance:
		return "it is where it should be; nothing is moved for balance, as the policy says"
	case v.x.isWanted:
		return "it is where somebody asked for it to be"
	case p.guard.stop:
		return "it is where it should be; nothing is moved for balance while so many nodes fail: " + p.guard.text
	}
	t := p.newTargets(false)
	for _, n := range v.voters.slice() {
		if to, _ := p.bestTarget(t, n, v); to != none && p.s.nodes[n].pooled() {
			a, b := &p.s.nodes[n], &p.s.nodes[to]
			return fmt.Sprintf("it is where it should be; from %s (%+.1f %% from its share) to %s (%+.1f %%) the cluster would be more even, which "+
				"is done once some node is further than %.0f %% from its share", a.ID, 100*p.means.pressure(a, 0), b.ID, 100*p.means.pressure(b, 0),
				100*p.s.policy.Imbalance)
		}
	}
	return "it is where it should be, and no move of it would make the cluster more even"
}

// example is the query by which nodes are compared if nothing is looked for: that for the voter on the fullest node.
func (p *pass) example(v *view) *query {
	out, most := none, 0.0
	for _, n := range v.voters.slice() {
		x := p.means.pressure(&p.s.nodes[n], 0)
		if p.s.nodes[n].lost(v.r.FailedAfter) {
			x += 1e9
		}
		if out == none || x > most {
			out, most = n, x
		}
	}
	return &query{v: v, goal: GoalBalance, keep: v.voters.without(out), hard: p.s.worthOf(v, v.voters).hard}
}

// advice is what a person could do about a reason.
func (p *pass) advice(v *view, w why) []string {
	switch w {
	case whyNoNode, whyRuledOut, whyZoneFails:
		a := []string{"add a node that could take it"}
		for i := range p.s.nodes {
			n := &p.s.nodes[i]
			if v.holds(slot(i)) || !n.known || n.State != Active {
				continue
			}
			switch {
			case n.Cordoned:
				a = append(a, fmt.Sprintf("uncordon %s", n.ID))
			case n.Draining:
				a = append(a, fmt.Sprintf("end the drain of %s", n.ID))
			case n.full(v.e.bytes):
				a = append(a, fmt.Sprintf("make room on %s", n.ID))
			}
		}
		if w != whyNoNode {
			a = append(a, "relax the placement of the keyspace")
		}
		return a[:min(len(a), adviceKept)]
	case whyManyFail:
		return []string{"bring the nodes back, or remove those that will not come back", "raise the share of nodes that may fail together in the policy"}
	case whyQuorumLost:
		var gone []string
		for _, n := range v.voters.slice() {
			if !v.well.has(n) {
				gone = append(gone, p.s.idOf(n).String())
			}
		}
		return []string{fmt.Sprintf("bring back some of %v: the range cannot change its voters without them", gone)}
	case whyMoves, whyTargetsBusy, whySourceBusy:
		return []string{"wait, or raise the moves at once in the policy"}
	case whyStrained:
		return []string{"wait until the nodes' writes are as fast as usual"}
	case whyNoLeader:
		return []string{"bring back, uncordon, or stop draining another node that holds a voter"}
	case whyWantedAway, whyWantedRules:
		return []string{"cancel the operation, or ask for nodes that are active and meet the constraints"}
	case whyNoRoom:
		return []string{"make room on the node, or add nodes where the fullest are"}
	case whyHot:
		return []string{"wait until it is cut, cut it (cairn range split), or spread its keys"}
	case whyUnmet:
		return []string{"add nodes that meet the constraint, or change it"}
	}
	return nil
}

// adviceKept bounds a list that would else name every cordoned node.
const adviceKept = 6

package allocator

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Guards. A few nodes that fail are replaced; many that fail together are taken for a fault of the network, of the power, or of the
// detector, which replacing would make worse: every replica that is copied then is load on those that are left, and is thrown away
// when the others come back. So above half of the policy's share of nodes, replacements are slow (a quarter of the moves at once),
// and above the share there are none, until nodes come back, or somebody says that they will not (a node that was removed is not
// counted, and is always replaced). One node alone is never many.
//
// The nodes of one value of the tier FailedTier, a zone, are looked at in the same way by themselves. What was on a zone that fails
// is replaced all the same, slowly, if other zones can take it without two replicas coming to share one that did not: with five
// zones and three replicas losing a zone loses no distance. With three zones it would: two copies of each range in one of the two
// zones that are left make it no safer against the loss of another (a majority would be gone then as now), cost a third more disk
// on each node, and would be moved back when the zone is. So nothing is copied, and Withheld says so.

// guard is how much may be replaced in a pass.
type guard struct {
	failing, in int
	stop, slow  bool
	text        string
	tier        int             // of FailedTier's values
	zones       map[int32]*zone // by prefix, those that slow or stop
	slowNodes   bool            // so many nodes are slow that it is not the nodes
}

type zone struct {
	name        string
	failing, in int
	stop        bool
}

func (n *node) failing() bool {
	return !n.known && len(n.held) > 0 || n.known && (n.State == Suspect || n.State == Failed)
}

func (s *Snapshot) newGuard() (g guard) {
	g.tier, g.zones = -1, map[int32]*zone{}
	slow := 0
	for i := range s.nodes {
		n := &s.nodes[i]
		in := n.known && n.State != Left || !n.known && len(n.held) > 0
		if !in {
			continue
		}
		g.in++
		failing := n.failing()
		if failing {
			g.failing++
		}
		if n.known && n.Slow != "" {
			slow++
		}
		if tier, prefix, ok := s.zoneOf(n); ok {
			z := g.zones[prefix]
			if z == nil {
				z = &zone{name: s.names[prefix]}
				g.zones[prefix] = z
			}
			g.tier = tier
			z.in++
			if failing {
				z.failing++
			}
		}
	}
	g.judge(&s.policy)
	g.slowNodes = slow > max(1, int(math.Floor(s.policy.SlowShare*float64(g.in))))
	return g
}

func (g *guard) judge(p *Policy) {
	g.stop, g.slow = tooMany(g.failing, g.in, p.FailedShare)
	switch {
	case g.stop:
		g.text = fmt.Sprintf("%d of %d nodes, more than %.0f %%",
			g.failing, g.in, 100*p.FailedShare)
	case g.slow:
		g.text = fmt.Sprintf("%d of %d nodes fail together, more than half of %.0f %%, so that replacements are slow",
			g.failing, g.in, 100*p.FailedShare)
	}
	for prefix, z := range g.zones {
		stop, slow := tooMany(z.failing, z.in, p.FailedShare)
		if !stop && !slow {
			delete(g.zones, prefix)
			continue
		}
		z.stop = stop
	}
}

func tooMany(failing, in int, share float64) (stop, slow bool) {
	if failing < 2 {
		return false, false
	}
	f := float64(failing) / float64(in)
	return f > share, f > share/2
}

// zoneOf is the node's value of the tier by which failures are also looked at.
func (s *Snapshot) zoneOf(n *node) (tier int, prefix int32, ok bool) {
	if !n.known || s.policy.FailedTier == "" {
		return 0, 0, false
	}
	return s.zoneOfClass(n.class)
}

func (s *Snapshot) zoneOfClass(of int32) (tier int, prefix int32, ok bool) {
	c := &s.classes[of]
	for i := range c.prefixes {
		if c.locality[i].Key == s.policy.FailedTier {
			return i, c.prefixes[i], true
		}
	}
	return 0, 0, false
}

// guarded says whether failures of the node count as one that may come back: a node that has left will not.
func (n *node) guarded() bool { return !n.known || n.State != Left }

// reason is a reason as a person is told it.
func (p *pass) reason(g Goal, w why) string {
	limited := w == whyMoves || w == whyTargetsBusy || w == whySourceBusy
	switch {
	case w == whyManyFail:
		return w.String() + ": " + p.guard.text
	case w == whyZoneFails:
		return w.String() + ": " + p.guard.zonesText()
	case limited && g == GoalReplace && p.guard.slow:
		return w.String() + "; " + p.guard.text
	}
	return w.String()
}

// zonesText names the zones that fail.
func (g *guard) zonesText() string {
	var names []string
	for _, z := range g.zones {
		names = append(names, fmt.Sprintf("%s (%d of %d nodes)", z.name, z.failing, z.in))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// replacing says at what pace what the node holds may be replaced, and which zone fails with it.
func (p *pass) replacing(at slot) (z *zone, slow bool, against why) {
	n := &p.s.nodes[at]
	if !n.guarded() {
		return nil, false, whyNot
	}
	if p.guard.stop {
		return nil, false, whyManyFail
	}
	if _, prefix, ok := p.s.zoneOf(n); ok {
		z = p.guard.zones[prefix]
	}
	return z, p.guard.slow || z != nil, whyNot
}

package allocator

import (
	"math"
	"slices"
	"strings"
)

// Nodes that have the same locality and attributes are one class: what constraints and diversity say of one they say of all. So
// places are compared class by class, and only the nodes of the best classes one by one.

const (
	// maxTiers bounds the tiers of a locality that count: region, zone, room, row, rack, host, and two to spare.
	maxTiers = 8
	// maxConstraints bounds the constraints of a placement: one bit of a mask each.
	maxConstraints = 16
	// tierBits is how much more a tier counts than the next inner one: more than all pairs of nine replicas.
	tierBits = 6
)

// class is a locality and a set of attributes.
type class struct {
	locality   []Tier
	attributes []string
	prefixes   []int32 // of the locality, one for each tier: equal numbers are equal localities down to that tier
	nodes      []slot  // that belong to it, ascending
	able       int     // how many of them could take a replica, but for what passes soon
}

// topology interns classes and localities.
type topology struct {
	classes  []class
	byKey    map[string]int32
	prefixes map[string]int32
	names    []string // of the prefixes: region=eu,zone=a
}

func newTopology() topology {
	return topology{byKey: map[string]int32{}, prefixes: map[string]int32{}}
}

func localityString(l []Tier) string {
	var b strings.Builder
	for i, t := range l {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(t.Key)
		b.WriteByte('=')
		b.WriteString(t.Value)
	}
	return b.String()
}

// classOf finds, or makes, the class of such nodes.
func (t *topology) classOf(locality []Tier, attributes []string) (id int32, fresh bool) {
	attributes = slices.Clone(attributes)
	slices.Sort(attributes)
	key := localityString(locality) + "|" + strings.Join(attributes, ",")
	if id, ok := t.byKey[key]; ok {
		return id, false
	}
	c := class{locality: slices.Clone(locality), attributes: attributes}
	for i := range min(len(locality), maxTiers) {
		name := localityString(locality[:i+1])
		p, ok := t.prefixes[name]
		if !ok {
			p = int32(len(t.prefixes))
			t.prefixes[name] = p
			t.names = append(t.names, name)
		}
		c.prefixes = append(c.prefixes, p)
	}
	id = int32(len(t.classes))
	t.classes = append(t.classes, c)
	t.byKey[key] = id
	return id, true
}

// likeness is how near each other nodes of the two classes are: lower is better, and an outer tier that is shared outweighs any
// number of inner ones.
func (t *topology) likeness(a, b int32) (n int64) {
	x, y := t.classes[a].prefixes, t.classes[b].prefixes
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			break
		}
		n += 1 << (tierBits * (maxTiers - 1 - i))
	}
	return n
}

// least is a bound for the likeness of n replicas, all pairs together: there is no better way to spread them than evenly over each
// tier's values, of those that there are nodes of: voters may be where nothing new comes.
func (t *topology) least(n int) (sum int64) {
	for tier := range maxTiers {
		values := map[int32]struct{}{}
		for i := range t.classes {
			c := &t.classes[i]
			if len(c.nodes) == 0 {
				continue
			}
			if len(c.prefixes) <= tier {
				return sum // there are places that share nothing at this tier
			}
			values[c.prefixes[tier]] = struct{}{}
		}
		if len(values) == 0 {
			return sum
		}
		each, more := n/len(values), n%len(values)
		pairs := more*(each+1)*each/2 + (len(values)-more)*each*(each-1)/2
		sum += int64(pairs) << (tierBits * (maxTiers - 1 - tier))
	}
	return sum
}

// matches says whether nodes of the class are what the constraint speaks of.
func (c *class) matches(k Constraint) bool {
	if k.Key == "" {
		return slices.Contains(c.attributes, k.Value)
	}
	return slices.Contains(c.locality, Tier{Key: k.Key, Value: k.Value})
}

// rules is a placement made ready: for each class the constraints that its nodes match, as bits.
type rules struct {
	Placement
	matched []uint32
	leading []uint32
	ranges  int // that it is about
}

func (r *rules) extend(t *topology) {
	for i := len(r.matched); i < len(t.classes); i++ {
		var m, l uint32
		for b, k := range r.Constraints {
			if t.classes[i].matches(k) {
				m |= 1 << b
			}
		}
		for b, k := range r.Leaders {
			if t.classes[i].matches(k) {
				l |= 1 << b
			}
		}
		r.matched, r.leading = append(r.matched, m), append(r.leading, l)
	}
}

func (r *rules) atLeast() int {
	if r.AtLeast > 0 {
		return r.AtLeast
	}
	return r.Replicas
}

// missed is by how many replicas one constraint is missed, if matching of n nodes match it.
func missed(k Constraint, matching, n int) int {
	switch {
	case k.Kind == Forbidden && k.Replicas == 0:
		return matching
	case k.Kind == Forbidden:
		return max(0, k.Replicas-(n-matching))
	case k.Replicas == 0:
		return n - matching
	}
	return max(0, k.Replicas-matching)
}

// rank is the first of the preferences for leaders that nodes of the class meet; lower is better. A forbidden one ranks behind
// meeting none.
func (r *rules) rank(c int32) int {
	for i, k := range r.Leaders {
		if met := r.leading[c]&(1<<i) != 0; met {
			if k.Kind == Forbidden {
				return len(r.Leaders) + 1
			}
			return i
		}
	}
	return len(r.Leaders)
}

// worth is how good a set of voters is, before loads are looked at: lower is better, the first that differs decides.
type worth struct {
	hard     int   // replicas by which required and forbidden constraints are missed
	soft     int   // the same of preferred ones
	likeness int64 // of all pairs
}

func (a worth) compare(b worth) int {
	switch {
	case a.hard != b.hard:
		return sign(a.hard - b.hard)
	case a.soft != b.soft:
		return sign(a.soft - b.soft)
	case a.likeness < b.likeness:
		return -1
	case a.likeness > b.likeness:
		return 1
	}
	return 0
}

func sign(n int) int { return min(1, max(-1, n)) }

// worst is worse than everything.
func worst() worth { return worth{hard: math.MaxInt} }

// worth of voters on nodes of these classes.
func (s *Snapshot) worth(r *rules, classes []int32) (w worth) {
	for i, a := range classes {
		for _, b := range classes[:i] {
			w.likeness += s.likeness(a, b)
		}
	}
	for b, k := range r.Constraints {
		matching := 0
		for _, c := range classes {
			matching += int(r.matched[c] >> b & 1)
		}
		if k.Kind == Preferred {
			w.soft += missed(k, matching, len(classes))
		} else {
			w.hard += missed(k, matching, len(classes))
		}
	}
	return w
}

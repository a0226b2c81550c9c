package allocator

import "slices"

// How even the loads are. Each node has a share of what there is, by its weight; the unevenness of the cluster is the sum, over nodes
// and over what is counted, of the squared distance from that share. All that is done for balance lessens that one sum, each time by
// more than a fixed part of what is moved: so it comes to an end, and nothing goes to and fro.

// means is what a node of weight one is to hold, and what counts as one piece.
type means struct {
	per   [dims]float64
	near  []float64 // by prefix of a locality: what per is to be multiplied with there, of replicas and bytes; 0: 1
	tier  int       // whose prefixes those are
	piece [dims]float64
	pool  []slot  // nodes that give and take
	gap   float64 // by what share of theirs two nodes must differ for something to be moved from one to the other
}

// pooled says whether the node takes part in balance.
func (n *node) pooled() bool {
	return n.known && n.State == Active && !n.Cordoned && !n.Draining && n.Slow == ""
}

// weight is the node's share of what d counts.
func (n *node) weight(d int) float64 {
	if d >= dimLeaders {
		return n.LeadWeight
	}
	return n.Weight
}

// newMeans counts what the nodes of the pool hold, and what will come to them from those that are emptied.
func (s *Snapshot) newMeans() (m means) {
	var total, weight [dims]float64
	for i := range s.nodes {
		n := &s.nodes[i]
		comes, leads := true, true
		switch {
		case n.pooled():
			for d := range dims {
				weight[d] += n.weight(d)
			}
			m.pool = append(m.pool, slot(i))
		case n.known && n.State == Suspect, n.known && n.Cordoned && n.State == Active:
			comes, leads = false, false
		case n.known && n.State == Active && !n.slowLong: // drains, or is slow: its replicas stay
			comes = false
		}
		if comes {
			total[dimReplicas] += float64(n.sum[dimReplicas])
			total[dimBytes] += float64(n.sum[dimBytes])
		}
		if leads {
			total[dimLeaders] += float64(n.sum[dimLeaders])
			total[dimLoad] += float64(n.sum[dimLoad])
		}
	}
	if len(m.pool) == 0 {
		return m
	}
	for d := range dims {
		m.per[d] = total[d] / weight[d]
	}
	m.gap = s.policy.Imbalance * gapShare
	m.piece = [dims]float64{dimReplicas: 1, dimLeaders: 1}
	if total[dimReplicas] > 0 {
		m.piece[dimBytes] = total[dimBytes] / total[dimReplicas]
	}
	if total[dimLeaders] > 0 {
		m.piece[dimLoad] = total[dimLoad] / total[dimLeaders]
	}
	s.shareOut(&m, total[dimReplicas])
	return m
}

// shareOut corrects the mean by locality. Where voters are spread evenly over a tier's values, which goes before balance, zones of
// different sizes cannot come to the same mean: with three voters in three zones each zone holds one of each range, and its nodes
// share that. So a zone's share of what there is is bounded from below and above by the number of its range's voters that it must
// and may have, and what one cannot take is for the others.
func (s *Snapshot) shareOut(m *means, total float64) {
	weights := s.weights(m)
	g := len(weights.at)
	if g < 2 || total <= 0 {
		return
	}
	lo, hi := 0.0, 0.0
	for i := range s.rules {
		n := s.rules[i].Replicas
		lo += float64(s.rules[i].ranges * (n / g))
		hi += float64(s.rules[i].ranges * ((n + g - 1) / g))
	}
	m.near = make([]float64, len(s.names))
	rest, weight := total, 0.0
	for _, p := range weights.at {
		weight += weights.of[p]
	}
	fixed := map[int32]float64{}
	for range weights.at { // each round bounds one value more, or is the last
		low, high := int32(-1), int32(-1)
		for _, p := range weights.at {
			if _, ok := fixed[p]; ok {
				continue
			}
			switch share := rest * weights.of[p] / weight; {
			case share < lo-0.5 && low < 0:
				low = p
			case share > hi+0.5 && high < 0:
				high = p
			}
		}
		p, share := low, lo
		if high >= 0 {
			p, share = high, hi
		}
		if p < 0 {
			break
		}
		fixed[p] = share
		rest -= share
		weight -= weights.of[p]
		if weight <= 0 || rest <= 0 {
			break
		}
	}
	for _, p := range weights.at {
		share, ok := fixed[p]
		if !ok && weight > 0 {
			share = max(0, rest) * weights.of[p] / weight
		}
		m.near[p] = max(share/weights.of[p]/m.per[dimReplicas], 1e-3)
	}
}

// byValue is the weight of the nodes at each value of a tier.
type byValue struct {
	at []int32 // prefixes, ascending
	of map[int32]float64
}

// weights are those of the outermost tier that has more than one value; nothing if some node has no such tier.
func (s *Snapshot) weights(m *means) byValue {
	for m.tier = 0; m.tier < maxTiers; m.tier++ {
		w := byValue{of: map[int32]float64{}}
		for _, at := range m.pool {
			c := &s.classes[s.nodes[at].class]
			if len(c.prefixes) <= m.tier {
				return byValue{}
			}
			if w.of[c.prefixes[m.tier]] == 0 {
				w.at = append(w.at, c.prefixes[m.tier])
			}
			w.of[c.prefixes[m.tier]] += s.nodes[at].Weight
		}
		if len(w.at) != 1 {
			slices.Sort(w.at)
			return w
		}
	}
	return byValue{}
}

// mean of d for a node of weight one where n is.
func (m *means) mean(n *node, d int) float64 {
	if d < dimLeaders && m.near != nil && m.tier < len(n.prefixes) {
		if f := m.near[n.prefixes[m.tier]]; f > 0 {
			return m.per[d] * f
		}
	}
	return m.per[d]
}

// shift is by how much the sum of squares grows if the node has amount more of what d counts.
func (m *means) shift(n *node, d int, amount float64) float64 {
	per := m.mean(n, d)
	if per <= 0 {
		return 0
	}
	u, y := amount/per, float64(n.sum[d])/per
	return u*(2*y+u)/n.weight(d) - 2*u
}

// more and less are that for a replica that comes or goes; the leader's likewise.
func (m *means) more(n *node, bytes int64) float64 {
	return m.shift(n, dimReplicas, 1) + m.shift(n, dimBytes, float64(bytes))
}

func (m *means) less(n *node, bytes int64) float64 {
	return m.shift(n, dimReplicas, -1) + m.shift(n, dimBytes, -float64(bytes))
}

func (m *means) moreLeader(n *node, load int64) float64 {
	return m.shift(n, dimLeaders, 1) + m.shift(n, dimLoad, float64(load))
}

func (m *means) lessLeader(n *node, load int64) float64 {
	return m.shift(n, dimLeaders, -1) + m.shift(n, dimLoad, -float64(load))
}

// worthwhile is what a move must lessen the unevenness by: half of what it would be, were the two nodes one piece apart, and at least
// what it is if they are half of the policy's imbalance apart. Nodes that are as far from their share as each other, because those
// that could take something are busy, have nothing to give each other.
func (m *means) worthwhile(from int, count, amount float64) float64 {
	t, u := 0.0, 0.0
	for i, a := range [2]float64{count, amount} {
		if m.per[from+i] > 0 {
			x := a / m.per[from+i]
			t, u = t+x*x, u+x
		}
	}
	return max(t/2, 2*m.gap*u)
}

// excess is by what share of its own the node has more than that of d, 0 if it is less than a piece.
func (m *means) excess(n *node, d int) float64 {
	share := m.mean(n, d) * n.weight(d)
	over := float64(n.sum[d]) - share
	if share <= 0 || over < m.piece[d] && over > -m.piece[d] {
		return 0
	}
	return over / share
}

// relative is what a node has, of its share.
func (m *means) relative(n *node, d int) float64 {
	if share := m.mean(n, d) * n.weight(d); share > 0 {
		return float64(n.sum[d]) / share
	}
	return 1
}

// pressure is the larger excess of a node in one of two dimensions, pieces or not.
func (m *means) pressure(n *node, from int) float64 {
	return max(m.relative(n, from), m.relative(n, from+1)) - 1
}

// fit is how well a range of that amount (bytes, or load) suits two nodes: after the move the amounts are to be as far from a node's
// share as the numbers are, so that both come out even with the same moves.
func (m *means) fit(level int, from, to *node, amount int64) float64 {
	a := m.skew(level, from, -1, -float64(amount))
	b := m.skew(level, to, 1, float64(amount))
	return a*a + b*b
}

// skew is by how much more of its share of amounts a node would have than of its share of numbers, were there a piece more (or less)
// of it.
func (m *means) skew(level int, n *node, count, amount float64) float64 {
	number, sum := m.mean(n, countOf(level)), m.mean(n, sumOf(level))
	if sum <= 0 {
		return 0
	}
	return ((float64(n.sum[sumOf(level)])+amount)/sum - (float64(n.sum[countOf(level)])+count)/number) / n.weight(sumOf(level))
}

package allocator

// How even the loads are. Each node has a share of what there is, by its weight; the unevenness of the cluster is the sum, over nodes
// and over what is counted, of the squared distance from that share. All that is done for balance lessens that one sum, each time by
// more than a fixed part of what is moved: so it comes to an end, and nothing goes to and fro.

// means is what a node of weight one is to hold, and what counts as one piece.
type means struct {
	per   [dims]float64
	piece [dims]float64
	pool  []slot // nodes that give and take
}

// pooled says whether the node takes part in balance.
func (n *node) pooled() bool {
	return n.known && n.State == Active && !n.Cordoned && !n.Draining && n.Slow == ""
}

// newMeans counts what the nodes of the pool hold, and what will come to them from those that are emptied.
func (s *Snapshot) newMeans() (m means) {
	var total [dims]float64
	weight := 0.0
	for i := range s.nodes {
		n := &s.nodes[i]
		comes, leads := true, true
		switch {
		case n.pooled():
			weight += n.Weight
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
	if weight == 0 {
		return m
	}
	for d := range dims {
		m.per[d] = total[d] / weight
	}
	m.piece = [dims]float64{dimReplicas: 1, dimLeaders: 1}
	if total[dimReplicas] > 0 {
		m.piece[dimBytes] = total[dimBytes] / total[dimReplicas]
	}
	if total[dimLeaders] > 0 {
		m.piece[dimLoad] = total[dimLoad] / total[dimLeaders]
	}
	return m
}

// shift is by how much the sum of squares grows if the node has amount more of what d counts.
func (m *means) shift(n *node, d int, amount float64) float64 {
	if m.per[d] <= 0 {
		return 0
	}
	u, y := amount/m.per[d], float64(n.sum[d])/m.per[d]
	return u*(2*y+u)/n.Weight - 2*u
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

// worthwhile is what a move must lessen the unevenness by: half of what it would be, were the two nodes one piece apart.
func (m *means) worthwhile(from int, count, amount float64) float64 {
	t := 0.0
	for i, a := range [2]float64{count, amount} {
		if m.per[from+i] > 0 {
			u := a / m.per[from+i]
			t += u * u
		}
	}
	return t / 2
}

// excess is by what share of its own the node has more than that of d, 0 if it is less than a piece.
func (m *means) excess(n *node, d int) float64 {
	share := m.per[d] * n.Weight
	over := float64(n.sum[d]) - share
	if share <= 0 || over < m.piece[d] && over > -m.piece[d] {
		return 0
	}
	return over / share
}

// pressure is the larger excess of a node in one of two dimensions, pieces or not.
func (m *means) pressure(n *node, from int) float64 {
	p := -1.0
	for d := from; d < from+2; d++ {
		if share := m.per[d] * n.Weight; share > 0 {
			p = max(p, float64(n.sum[d])/share-1)
		}
	}
	return p
}

// Two levels are evened out: what nodes hold, and what they lead. Each begins when some node is further from its share than the
// policy's imbalance, and goes on until all are within a quarter of it, or nothing helps: so what varies a little moves nothing, and
// what is moved is moved once, and far enough.
const (
	levelReplicas = iota
	levelLeaders
	levels
)

const stopShare = 0.25

type leveling struct {
	on bool
}

// uneven says whether to go on with a level, or to begin.
func (p *pass) uneven(level int) bool {
	l := &p.s.leveling[level]
	band := p.s.policy.Imbalance
	if l.on {
		band *= stopShare
	}
	from := 2 * level
	for _, at := range p.means.pool {
		for d := from; d < from+2; d++ {
			if x := p.means.excess(&p.s.nodes[at], d); x > band || x < -band {
				l.on = true
				return true
			}
		}
	}
	l.on = false
	return false
}

package load

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// Sample holds keys at which a range might be cut, and what each cut would have done to the requests that came later.
type Sample struct {
	rnd        *base.Rand
	seen       uint64
	candidates []candidate // at most base.LoadCandidates
}

// candidate is a key with its counts.
type candidate struct {
	key                 []byte // at most base.LoadKeyBytes of it
	left, right, across uint64
	torn                bool // a request would have been refused
}

// NewSample is empty.
func NewSample(rnd *base.Rand) *Sample { return &Sample{rnd: rnd} }

// Seen is how many requests it was shown.
func (s *Sample) Seen() uint64 { return s.seen }

// Touch shows it a request: to the candidates, and then as one.
func (s *Sample) Touch(sp Span) {
	for i := range s.candidates {
		s.candidates[i].count(sp)
	}
	s.seen++
	at := len(s.candidates)
	if at == base.LoadCandidates {
		if at = int(s.rnd.Int63n(int64(s.seen))); at >= base.LoadCandidates {
			return
		}
	} else {
		s.candidates = append(s.candidates, candidate{})
	}
	key := sp.Start
	if sp.bounded() && s.rnd.Int63n(2) == 0 {
		key = sp.End // behind a span is as good a place as before it
	}
	s.candidates[at] = candidate{key: slices.Clone(key[:min(len(key), base.LoadKeyBytes)])}
}

func (c *candidate) count(sp Span) {
	switch sp.side(c.key) {
	case left:
		c.left++
	case right:
		c.right++
	case across:
		c.across++
		c.torn = c.torn || sp.Whole
	}
}

// Cut is a place to cut a range at, and the shares of the requests left of it, right of it, and on both sides.
type Cut struct {
	Key                 []byte // the first of the right part
	Left, Right, Across float64
}

// cost is the busier half's share, where all are 1. What lies across is work for both.
func (c Cut) cost() float64 { return max(c.Left, c.Right) + base.LoadAcrossWeight*c.Across }

// Best is the cut of the least cost, and whether it is worth while: the busier half keeps no more than base.LoadShare, and no
// request that was seen must lie in one range and would not. Candidates that few requests followed are not asked.
func (s *Sample) Best() (best Cut, helps bool) {
	for i := range s.candidates {
		c := &s.candidates[i]
		n := c.left + c.right + c.across
		if n < base.LoadTouches/2 {
			continue
		}
		cut := Cut{Key: c.key, Left: float64(c.left) / float64(n), Right: float64(c.right) / float64(n), Across: float64(c.across) / float64(n)}
		good := !c.torn && cut.cost() <= base.LoadShare
		if best.Key == nil || good && !helps || good == helps && cut.compare(best) < 0 {
			best, helps = cut, good
		}
	}
	return best, helps
}

// compare orders cuts, the better one first; of equals the lower key.
func (c Cut) compare(o Cut) int {
	return cmp.Or(cmp.Compare(c.cost(), o.cost()), cmp.Compare(c.Across, o.Across), bytes.Compare(c.Key, o.Key))
}

package watch

import "github.com/cairndb/cairn/internal/base"

// index finds the parts that an event of a source belongs to: those of one key in a map, the others in a tree of intervals, which is
// a treap by start and end whose nodes know the furthest end below them. Parts of the same bounds are one entry, so that a
// key that thousands watch costs one look. Looking up is O(log n + matches), and the order of what is found is that of the bounds.
type index struct {
	keys map[string]*part
	root *part
	rand *base.Rand
}

func newIndex() index { return index{keys: map[string]*part{}, rand: base.NewRand(1)} }

// oneKey says whether [start, end) is a single key.
func oneKey(start, end string) bool {
	return len(end) == len(start)+1 && end[len(start)] == 0 && end[:len(start)] == start
}

// before says whether the key lies before an end, which is open if it is empty.
func before[K string | []byte](key K, end string) bool { return end == "" || string(key) < end }

// endsBefore compares two ends.
func endsBefore(a, b string) bool { return a != "" && (b == "" || a < b) }

// add puts a part among the others. The first of its bounds stays the first: that one is live, and those that come up to it join it.
func (x *index) add(p *part) {
	p.same, p.left, p.right, p.far = nil, nil, nil, nil
	if oneKey(p.start, p.end) {
		if at := x.keys[p.start]; at != nil {
			p.same, at.same = at.same, p
		} else {
			x.keys[p.start] = p
		}
		return
	}
	if at := x.root.find(p.start, p.end); at != nil {
		p.same, at.same = at.same, p
		return
	}
	p.weight = x.rand.Uint64()
	x.root = x.root.insert(p)
}

func (x *index) remove(p *part) {
	if oneKey(p.start, p.end) {
		if first := without(x.keys[p.start], p); first != nil {
			x.keys[p.start] = first
		} else {
			delete(x.keys, p.start)
		}
		return
	}
	at := x.root.find(p.start, p.end)
	first := without(at, p)
	if first != at { // the node itself goes, and another of the same bounds takes its place, or none
		x.root = x.root.delete(p)
		if first != nil {
			first.left, first.right, first.weight = nil, nil, p.weight
			x.root = x.root.insert(first)
		}
	}
}

// without takes p out of a chain, and returns its first.
func without(first, p *part) *part {
	if first == p {
		return p.same
	}
	for q := first; q != nil; q = q.same {
		if q.same == p {
			q.same = p.same
			break
		}
	}
	return first
}

// first is the first of the parts with these bounds; the others follow by same.
func (x *index) first(start, end string) *part {
	if oneKey(start, end) {
		return x.keys[start]
	}
	return x.root.find(start, end)
}

// match calls f for each part that holds the key.
func (x *index) match(key []byte, f func(*part)) {
	for p := x.keys[string(key)]; p != nil; p = p.same {
		f(p)
	}
	x.root.match(key, f)
}

// cmpBounds orders by start, and then by end.
func cmpBounds(aStart, aEnd, bStart, bEnd string) int {
	switch {
	case aStart < bStart:
		return -1
	case aStart > bStart:
		return 1
	case aEnd == bEnd:
		return 0
	case endsBefore(aEnd, bEnd):
		return -1
	}
	return 1
}

func (n *part) find(start, end string) *part {
	for n != nil {
		switch c := cmpBounds(start, end, n.start, n.end); {
		case c == 0:
			return n
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

func (n *part) match(key []byte, f func(*part)) {
	if n == nil || !before(key, n.far.end) {
		return
	}
	n.left.match(key, f)
	if string(key) < n.start {
		return
	}
	if before(key, n.end) {
		for q := n; q != nil; q = q.same {
			f(q)
		}
	}
	n.right.match(key, f)
}

// fix has n know the furthest end below it.
func (n *part) fix() *part {
	n.far = n
	for _, m := range [2]*part{n.left, n.right} {
		if m != nil && endsBefore(n.far.end, m.far.end) {
			n.far = m.far
		}
	}
	return n
}

func (n *part) insert(p *part) *part {
	switch {
	case n == nil:
		return p.fix()
	case p.weight > n.weight:
		p.left, p.right = n.split(p.start, p.end)
		return p.fix()
	case cmpBounds(p.start, p.end, n.start, n.end) < 0:
		n.left = n.left.insert(p)
	default:
		n.right = n.right.insert(p)
	}
	return n.fix()
}

// split cuts a tree at bounds that are not in it.
func (n *part) split(start, end string) (lower, higher *part) {
	if n == nil {
		return nil, nil
	}
	if cmpBounds(start, end, n.start, n.end) < 0 {
		lower, n.left = n.left.split(start, end)
		return lower, n.fix()
	}
	n.right, higher = n.right.split(start, end)
	return n.fix(), higher
}

func (n *part) delete(p *part) *part {
	switch {
	case n == p:
		return join(n.left, n.right)
	case cmpBounds(p.start, p.end, n.start, n.end) < 0:
		n.left = n.left.delete(p)
	default:
		n.right = n.right.delete(p)
	}
	return n.fix()
}

// join makes one tree of two that lie one behind the other.
func join(lower, higher *part) *part {
	switch {
	case lower == nil:
		return higher
	case higher == nil:
		return lower
	case lower.weight > higher.weight:
		lower.right = join(lower.right, higher)
		return lower.fix()
	}
	higher.left = join(lower, higher.left)
	return higher.fix()
}

package watch

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cairndb/cairn/internal/base"
)

// audit checks that what a hub counts is what there is, and that all stand in one place.
func audit(t fataler, h *Hub) {
	t.Helper()
	seen := map[*cursor]bool{}
	prevs := map[*source]int{}
	check := func(p *part, attached bool, s *source, at int) {
		if p.attached != attached || p.source != s || int(p.at) != at || p.cursor.gone {
			t.Fatalf("a part of [%q, %q) stands where it does not belong", p.start, p.end)
		}
		seen[p.cursor] = true
		if s != nil && p.cursor.prev {
			prevs[s]++
		}
	}
	for _, s := range h.layout {
		if h.sources[s.id] != s || s.gone {
			t.Fatalf("r%d is in the layout and gone", s.id)
		}
		n := 0
		for _, p := range s.index.keys {
			for ; p != nil; p = p.same {
				n++
			}
		}
		if n += count(s.index.root); n != len(s.parts) {
			t.Fatalf("%d of %d parts are in the index", n, len(s.parts))
		}
		for i, p := range s.parts {
			check(p, true, s, i)
			if !s.covers(p.start, p.end) {
				t.Fatalf("[%q, %q) takes from r%d [%q, %q)", p.start, p.end, s.id, s.start, s.end)
			}
		}
		for i, p := range s.waiting {
			check(p, false, s, i)
		}
		if prevs[s] != s.prevs {
			t.Fatalf("%d want the version before, and %d are counted", prevs[s], s.prevs)
		}
		for i, c := range s.waiters {
			if c.waits != s || int(c.waitsAt) != i || c.gone {
				t.Fatalf("a cursor waits where it does not belong")
			}
		}
	}
	for i, p := range h.lost {
		check(p, false, nil, i)
	}
	for c := range seen {
		held, bytes, astray, at := 0, 0, 0, c.start
		for p := &c.part; p != nil; p = p.sibling {
			if p.start != at {
				t.Fatalf("a gap between the parts of [%q, %q)", c.start, c.end)
			}
			at = p.end
			if !p.attached {
				astray++
			}
			held += len(p.held)
			for _, e := range p.held {
				bytes += e.size()
			}
		}
		if at != c.end || held != c.held || bytes != c.bytes || astray != int(c.astray) || len(c.watches) == 0 {
			t.Fatalf("[%q, %q): ends at %q, holds %d events of %d bytes, %d parts astray, %d watches; counted %d, %d, %d",
				c.start, c.end, at, held, bytes, astray, len(c.watches), c.held, c.bytes, c.astray)
		}
		for i, w := range c.watches {
			if w.cursor != c || int(w.at) != i || w.flags&(parked|ended) != 0 {
				t.Fatalf("a watch stands where it does not belong")
			}
		}
	}
	for _, st := range h.streams {
		waits := map[*watch]bool{}
		for _, p := range st.parked {
			if w := p.watch; w.flags&ended == 0 {
				if waits[w] || w.flags&parked == 0 || w.cursor != nil || w.stream != st {
					t.Fatalf("s%d: w%d is parked where it does not belong", st.id, w.id)
				}
				waits[w] = true
			}
		}
		if !st.full && len(st.parked) > 0 && !st.ready || st.ready && !slices.Contains(h.ready, st) {
			t.Fatalf("s%d: full %v, %d parked, ready %v", st.id, st.full, len(st.parked), st.ready)
		}
		for _, w := range st.list {
			if w.flags&parked != 0 && !waits[w] {
				t.Fatalf("s%d: w%d is parked, and is not among those that wait", st.id, w.id)
			}
		}
	}
	slots := 0
	for _, q := range h.asks {
		if q.slot {
			slots++
		}
	}
	if slots != h.pulls {
		t.Fatalf("%d pulls, %d counted", slots, h.pulls)
	}
}

func count(n *part) int {
	if n == nil {
		return 0
	}
	k := count(n.left) + count(n.right)
	for ; n != nil; n = n.same {
		k++
	}
	return k
}

// dump shows what a hub has.
func dump(h *Hub) string {
	var s strings.Builder
	seen := map[*cursor]bool{}
	show := func(p *part) {
		if c := p.cursor; !seen[c] {
			seen[c] = true
			fmt.Fprintf(&s, "[%q, %q) prev %v live %v fresh %v at %d goal %d held %d waits %v:", c.start, c.end, c.prev, c.live, c.fresh, c.pos(), c.goal, c.held, c.waits != nil)
			for p := &c.part; p != nil; p = p.sibling {
				id := base.RangeID(0)
				if p.source != nil {
					id = p.source.id
				}
				fmt.Fprintf(&s, " [%q, %q) %s attached %v at %d ask %d queued %v paused %v quiet %v held %d", p.start, p.end, id, p.attached, p.pos(), p.ask, p.queued, p.paused, p.quiet, len(p.held))
			}
			for _, w := range c.watches {
				fmt.Fprintf(&s, " s%d w%d next %d", w.stream.id, w.id, w.next)
			}
			s.WriteString("\n")
		}
	}
	for _, r := range h.layout {
		fmt.Fprintf(&s, "r%d [%q, %q) next %d local %v reached %d pending %d ask %d closing %v blocked %v\n", r.id, r.start, r.end, r.next, r.local, r.reached, len(r.pending), r.ask, r.closing, r.blocked)
		for _, p := range r.parts {
			show(p)
		}
		for _, p := range r.waiting {
			show(p)
		}
	}
	for _, p := range h.lost {
		show(p)
	}
	return s.String()
}

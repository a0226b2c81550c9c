package sim

import (
	"bytes"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// tiling is the rule that ranges cover each keyspace exactly once, at every moment: in what has been committed, and on each
// node, where a gap is another node's and an overlap is nobody's.
type tiling struct {
	w         *world
	committed map[base.RangeID]*metapb.RangeDescriptor // the newest that any node has applied
}

func newTiling(w *world) *tiling {
	t := &tiling{w: w, committed: make(map[base.RangeID]*metapb.RangeDescriptor)}
	for _, r := range w.ranges {
		t.committed[r.id] = r.first
	}
	return t
}

// applied takes in what a node has applied. The two parts of a split are there at once.
func (t *tiling) applied(p *process) {
	var here []*metapb.RangeDescriptor
	news := false
	for _, id := range p.store.Ranges() {
		v := p.store.View(id)
		if v == nil {
			continue
		}
		here = append(here, v.Descriptor)
		if t.w.merged[id] {
			continue // a node that has not heard yet
		}
		if old := t.committed[id]; old == nil || v.Descriptor.Generation > old.Generation {
			if t.committed[id] = v.Descriptor; old != nil {
				t.w.rules.seated(old, v.Descriptor)
			}
			news = news || old == nil || !desc.SameSpan(old, v.Descriptor)
		}
	}
	t.absorb(p)
	inOrder(here)
	for i := 1; i < len(here); i++ {
		if desc.Overlap(here[i-1], here[i]) {
			t.w.violate("ranges tile", "%s holds keys twice: %s and %s", p.n.id, desc.Format(here[i-1]), desc.Format(here[i]))
		}
	}
	if news {
		t.check()
	}
}

// absorb takes out the ranges that others have taken over, as a node has applied.
func (t *tiling) absorb(p *process) {
	for _, id := range p.store.Ranges() {
		v := p.store.View(id)
		if v == nil || v.Descriptor.Absorbing == 0 {
			continue
		}
		right := t.committed[base.RangeID(v.Descriptor.Absorbing)]
		if right == nil || right.Generation >= v.Descriptor.Generation {
			continue
		}
		if desc.Fate(right, v.Descriptor) != desc.Merged {
			t.w.violate("ranges tile", "%s has taken over %s, which was not frozen for it", desc.Format(v.Descriptor), desc.Format(right))
		}
		delete(t.committed, base.RangeID(right.RangeId))
		t.w.takenOver(base.RangeID(right.RangeId), v.Descriptor, right.Start)
	}
}

// check: what is committed covers each keyspace once.
func (t *tiling) check() {
	t.w.count("tilings checked")
	var all []*metapb.RangeDescriptor
	for _, id := range sortedKeys(t.committed) {
		all = append(all, t.committed[id])
	}
	inOrder(all)
	for i, d := range all {
		if i == 0 || all[i-1].KeyspaceId != d.KeyspaceId {
			if len(d.Start) > 0 || i > 0 && len(all[i-1].End) > 0 {
				t.w.violate("ranges tile", "no range holds the keys at the edge of a keyspace by %s", desc.Format(d))
			}
			continue
		}
		if last := all[i-1]; !bytes.Equal(last.End, d.Start) || len(d.Start) == 0 {
			t.w.violate("ranges tile", "between %s and %s are keys of none, or of both", desc.Format(last), desc.Format(d))
		}
	}
	if len(all) > 0 && len(all[len(all)-1].End) > 0 {
		t.w.violate("ranges tile", "no range holds the keys behind %s", desc.Format(all[len(all)-1]))
	}
}

func inOrder(ds []*metapb.RangeDescriptor) {
	slices.SortFunc(ds, func(a, b *metapb.RangeDescriptor) int {
		if a.KeyspaceId != b.KeyspaceId {
			return int(int64(a.KeyspaceId) - int64(b.KeyspaceId))
		}
		return bytes.Compare(a.Start, b.Start)
	})
}

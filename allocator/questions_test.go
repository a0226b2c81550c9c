package allocator_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

func (w *world) some() []base.NodeID {
	ids := rapid.Permutation(w.ids()).Draw(w.t, "some")
	return ids[:rapid.IntRange(1, len(ids)).Draw(w.t, "of them")]
}

// TestSafeToStopLaw: nodes that may be stopped leave every range a quorum of voters that have caught up; and if every range has one
// left, with a majority to spare for constraints and room, nobody is told of a quorum.
func TestSafeToStopLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 10).Draw(t, "changes") {
			w.changeNode()
			w.changeRange()
		}
		away := w.some()
		lost := 0
		for _, id := range w.rangeIDs() {
			r := w.ranges[id]
			var before, after [2]int // voters of the old configuration and of the new one, and those of them that would be well
			touched := false
			for _, x := range r.Replicas {
				s := w.nodes[x.Node].State
				alive := s == allocator.Active || s == allocator.Leaving || s == allocator.Joining
				well := alive && !slices.Contains(r.Behind, x.Node) && !slices.Contains(away, x.Node)
				touched = touched || slices.Contains(away, x.Node)
				for i, role := range []allocator.Role{allocator.Outgoing, allocator.Incoming} {
					if x.Role != allocator.Voter && x.Role != role {
						continue
					}
					before[i]++
					if well {
						after[i]++
					}
				}
			}
			if touched && (after[0] < before[0]/2+1 || after[1] < before[1]/2+1) {
				lost++
			}
		}
		told := 0
		for _, f := range allocator.SafeToStop(w.snap[0], away) {
			if f.Quorum {
				told += f.Count
			}
			if f.What == "" || f.Next == "" {
				t.Fatalf("a finding that says nothing: %+v", f)
			}
		}
		if told != lost {
			t.Fatalf("%d ranges would lose their quorum without %v, and %d are told of", lost, away, told)
		}
	})
}

// TestDecommissionLaw: nodes of which nothing speaks against a decommission are empty once all is at rest.
func TestDecommissionLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.rest()
		away := w.some()
		if found := allocator.CanDecommission(w.snap[0], away); len(found) > 0 {
			return
		}
		for _, id := range away {
			n := w.nodes[id]
			n.State = allocator.Leaving
			w.setNode(n)
		}
		w.rest()
		for _, id := range away {
			if h := w.snap[0].Holding(id); h.Replicas > 0 {
				for _, r := range w.ranges {
					if x := allocator.Explain(w.snap[0], r.ID); slices.Contains(votersOf(r), id) {
						t.Fatalf("nothing spoke against %v, and %s still holds %+v: %s: %v", away, id, h, x.Why, x.Candidates)
					}
				}
				t.Fatalf("nothing spoke against it, and %s still holds %+v", id, h)
			}
		}
	})
}

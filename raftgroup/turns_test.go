package raftgroup

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Many ranges that have no leader, on all nodes at once, are led soon, each after about one election: at no time are more
// candidates than a loop may have.
func TestRuleCandidatesTakeTurns(t *testing.T) {
	const many = 4 * base.CandidatesPerLoop
	w := newLeaseWorld(t, nil)
	for _, n := range w.sorted() {
		for id := range base.RangeID(many) {
			w.placeOn(n, descriptor(1000+id, 1, 2, 3))
		}
		for id := range base.RangeID(many) {
			n.ev.Admin = append(n.ev.Admin, Admin{Range: 1000 + id, Start: true})
		}
		w.run(2 * time.Second) // alone, each candidate fails again and again
	}
	for began := w.now; ; {
		w.run(50 * time.Millisecond)
		led := 0
		for id := range base.RangeID(many) {
			if w.leader(1000+id) != nil {
				led++
			}
		}
		for _, n := range w.sorted() {
			if c := n.loop.candidates; c > base.CandidatesPerLoop {
				t.Fatalf("n%d: %d candidates", n.id, c)
			}
		}
		if led == many {
			t.Logf("after %s", w.now.Sub(began))
			break
		}
		if w.now.Sub(began) > 10*time.Second {
			for _, n := range w.sorted() {
				t.Logf("n%d: %d candidates, %d queue", n.id, n.loop.candidates, len(n.loop.queue))
			}
			t.Fatalf("%d of %d ranges are led", led, many)
		}
	}
}

package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
)

// Whatever readers and writers do: behind what was applied when a latch was granted nothing but raises stands in the log before
// the one that went through it; writes keep their order; every proposal and every latch is answered.
func TestRuleALatchHoldsItsRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(7)
		n := w.addNode(1)
		w.place(descriptor(testRange, 1))
		w.start(n)
		w.run(3 * time.Second)
		seen := func() []string { return n.disk.written[testRange].commands }
		granted := map[LatchID]int{} // how much was applied then
		raised := map[string]LatchID{}
		asked, proposed := 0, 0
		watch := func() {
			for _, o := range n.outcomes {
				var c rune
				if _, err := fmt.Sscanf(o, "latch %c: ready", &c); err == nil {
					if id := readerID(c); granted[id] == 0 {
						granted[id] = len(seen()) + 1
					}
				}
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := readerID(rune('A' + asked))
			who := readerID(rune('A' + rapid.IntRange(0, max(0, asked-1)).Draw(t, "reader")))
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1, 2:
				proposed++
				w.propose(n, testRange, fmt.Sprintf("w%03d", i), nil)
			case 3:
				asked++
				n.ev.Latches = append(n.ev.Latches, Latch{Range: testRange, ID: id, Waiter: ReadID(asked)})
			case 4:
				if granted[who] > 0 {
					proposed++
					cmd := fmt.Sprintf("r%03d", i)
					w.propose(n, testRange, cmd, nil)
					n.ev.Proposals[len(n.ev.Proposals)-1].Latch, raised[cmd] = &who, who
				}
			case 5:
				n.ev.Latches = append(n.ev.Latches, Latch{Range: testRange, ID: who, End: true})
			case 6:
				n.holdApply = !n.holdApply
			default:
				w.run(time.Duration(rapid.IntRange(1, 300).Draw(t, "ms")) * time.Millisecond)
			}
			for rapid.Bool().Draw(t, "settle") && w.settle() {
				watch()
			}
			watch()
		}
		n.holdApply = false
		w.apply(n)
		w.run(3 * base.LatchDuration)
		all := seen()
		for at, cmd := range all {
			id, raise := raised[cmd]
			if !raise {
				continue
			}
			for _, between := range all[granted[id]-1 : at] {
				if !strings.HasPrefix(between, "r") {
					t.Fatalf("%s went through a latch that was granted behind %d commands: %v", cmd, granted[id]-1, all)
				}
			}
		}
		writes := slices.DeleteFunc(slices.Clone(all), func(c string) bool { return strings.HasPrefix(c, "r") })
		if !slices.IsSorted(writes) {
			t.Fatalf("writes out of order: %v", writes)
		}
		answers, latches := 0, 0
		for _, o := range n.outcomes {
			if strings.HasPrefix(o, "proposal") {
				answers++
			} else {
				latches++
			}
		}
		if answers != proposed || latches != asked {
			t.Fatalf("%d of %d proposals and %d of %d latches were answered", answers, proposed, latches, asked)
		}
	})
}

func readerID(c rune) LatchID { return LatchID{Began: int64(c), Node: 1, Seq: 1, Try: 1} }

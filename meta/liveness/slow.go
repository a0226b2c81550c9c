package liveness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// A node that lives may be slow: leaders leave it first, and replicas later. What it takes to be slow is to be far above the other
// nodes, and not above a number alone: where all disks are slow, no place is better. So at most half of the nodes are ever slow, by
// any one measure: the median of the others is at most one of theirs.

// measures are what is compared, each with what it must take in any case.
var measures = [...]struct {
	of    func(*metapb.NodeLoad) int64
	floor time.Duration
	told  string
}{
	{(*metapb.NodeLoad).GetSyncMicros, base.SlowSync, "its disk takes %s to sync"},
	{(*metapb.NodeLoad).GetPutMicros, base.SlowPut, "a write that it leads takes %s"},
	{(*metapb.NodeLoad).GetLateMicros, base.SlowLate, "its timers are %s late"},
}

// slowness is what is known of a node by each measure.
type slowness [len(measures)]watch

// watch is one measure of one node over time.
type watch struct {
	over, under   base.Instant // since when it is above the bound, or below half of it; 0 or Never: it is not
	since         base.Instant // since when the node is slow by it; 0: it is not
	value, median int64        // as last seen, in microseconds
}

// words says what shows that a node is slow; empty: it is not.
func (s *slowness) words(now base.Instant) string {
	var parts []string
	for i, w := range s {
		if w.since == 0 {
			continue
		}
		told := fmt.Sprintf(measures[i].told, micros(w.value))
		if w.median > 0 && w.value >= 2*w.median { // it may be on its way back
			told += fmt.Sprintf(", %d times the median of %s", w.value/w.median, micros(w.median))
		}
		parts = append(parts, fmt.Sprintf("%s, for %s", told, words(now.Sub(w.since))))
	}
	return strings.Join(parts, "; ")
}

// watchSlow compares what the nodes that are heard say of themselves.
func (t *Table) watchSlow(now base.Instant) {
	ids := slices.Sorted(maps.Keys(t.nodes))
	for i, m := range measures {
		values := make([]int64, 0, len(ids))
		for _, id := range ids {
			if n := t.nodes[id]; member(n.record) && t.fresh(now, n) && n.beat.Load != nil {
				values = append(values, m.of(n.beat.Load))
			}
		}
		slices.Sort(values)
		for _, id := range ids {
			n := t.nodes[id]
			switch {
			case !member(n.record):
				n.slow[i] = watch{over: base.Never, under: base.Never}
			case t.fresh(now, n) && n.beat.Load != nil && len(values) > 1:
				value := m.of(n.beat.Load)
				n.slow[i].look(now, value, medianOfOthers(values, value), m.floor)
			}
		}
	}
}

// medianOfOthers is the lower median of the sorted values without one that is value.
func medianOfOthers(sorted []int64, value int64) int64 {
	own, _ := slices.BinarySearch(sorted, value)
	at := (len(sorted) - 2) / 2
	if at >= own {
		at++
	}
	return sorted[at]
}

// look takes a new value. It takes longer to be well again than to be slow: leaders are not to go and come.
func (w *watch) look(now base.Instant, value, median int64, floor time.Duration) {
	bound := max(floor.Microseconds(), base.SlowFactor*median)
	w.value, w.median = value, median
	w.over = continued(w.over, now, value >= bound)
	w.under = continued(w.under, now, value < bound/2)
	switch {
	case w.since == 0 && value >= bound && now.Sub(w.over) >= base.SlowAfter:
		w.since = w.over
	case w.since != 0 && value < bound/2 && now.Sub(w.under) >= base.SlowClear:
		w.since = 0
	}
}

// continued is since when something is so; Never if it is not.
func continued(since, now base.Instant, is bool) base.Instant {
	switch {
	case !is:
		return base.Never
	case since == 0 || since == base.Never:
		return now
	}
	return since
}

// micros is a time in microseconds as people want to read it.
func micros(n int64) string {
	d := time.Duration(n) * time.Microsecond
	if d >= 10*time.Millisecond {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

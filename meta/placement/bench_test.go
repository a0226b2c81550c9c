package placement_test

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// BenchmarkStep is what a second of a decider costs that looks after a hundred thousand ranges on a hundred nodes: all nodes are told
// again, one range has changed, and it plans.
func BenchmarkStep(b *testing.B) {
	const nodes, ranges = 100, 100_000
	d := placement.New(placement.Config{Node: 1, Life: 1, Index: base.KeyspaceMeta})
	var records []*metapb.NodeRecord
	for i := range uint64(nodes) {
		records = append(records, &metapb.NodeRecord{NodeId: i + 1, State: metapb.NodeState_NODE_STATE_ACTIVE})
	}
	for i := range uint64(ranges) {
		d.Learn(descriptor(i+1000, i%nodes+1, (i+1)%nodes+1, (i+2)%nodes+1))
	}
	now := base.Instant(time.Hour)
	changed := descriptor(1000, 1, 2, 3)
	for range 20 { // the first passes look at everything
		d.SetNodes(records, nil)
		d.Step(now)
		now = now.Add(time.Second)
	}
	b.ReportAllocs()
	for b.Loop() {
		changed.Generation++
		d.Learn(changed)
		d.SetNodes(records, nil)
		d.Step(now)
		now = now.Add(time.Second)
	}
}

package apply_test

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

// BenchmarkSplitLeased is the cut of a range in the middle of leases that hold ten keys each: per key on either side.
func BenchmarkSplitLeased(b *testing.B) {
	const leases, each = 10_000, 10
	for range b.N {
		b.StopTimer()
		eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: b.TempDir()})
		must(b, err)
		d, err := desctest.Parse("r9 ks9 [-∞, +∞) gen 1: 1@n1 next 2")
		must(b, err)
		r := bootstrap(b, eng, 1, d)
		var seq uint64
		do := func(cmd *kvpb.Command) *raftpb.Entry {
			seq++
			return entry(b, apply.InitialIndex+seq, raftgroup.ProposalID{Node: 2, Seq: seq}, cmd, nil)
		}
		var entries []*raftpb.Entry
		for id := int64(1); id <= leases; id++ {
			entries = append(entries, do(leaseGrant(id<<49, 60)))
			for k := range each {
				entries = append(entries, do(leasePut(b, fmt.Sprintf("%d/%012d", k, id), "v", id<<49, false)))
			}
		}
		must(b, r.apply(b, false, entries...))
		cmd, err := apply.Split(r.sm.Descriptor(), []byte("5"), 10)
		must(b, err)
		cut := do(cmd)
		b.StartTimer()
		must(b, r.apply(b, false, cut))
		b.StopTimer()
		must(b, eng.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/leases/each, "ns/key")
}

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

// leasedKeys is how many keys leases hold together.
const leasedKeys = 100_000

// onLeased applies one command, which make gives, to a range where so many leases hold their share of the keys each; events says whether
// what is written is told, with the versions before. Its report is per key.
func onLeased(b *testing.B, leases int, events bool, make func(*replica) *kvpb.Command) {
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
		for id := int64(1); id <= int64(leases); id++ {
			must(b, r.apply(b, false, do(leaseGrant(id<<49, 60))))
		}
		var entries []*raftpb.Entry
		for i := range leasedKeys {
			id := int64(i%leases + 1)
			entries = append(entries, do(leasePut(b, fmt.Sprintf("%d/%012d", i/leases%10, i), "v", id<<49, false)))
			if len(entries) == 1000 {
				must(b, r.apply(b, false, entries...))
				entries = entries[:0]
			}
		}
		r.sm.WantEvents(events, events)
		last := do(make(r))
		b.StartTimer()
		must(b, r.apply(b, false, last))
		b.StopTimer()
		must(b, eng.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/leasedKeys, "ns/key")
}

// BenchmarkRevoke is the end of a lease that holds all keys, and that of one that is told to watches.
func BenchmarkRevoke(b *testing.B) {
	for _, events := range []bool{false, true} {
		b.Run(fmt.Sprintf("events=%t", events), func(b *testing.B) {
			onLeased(b, 1, events, func(*replica) *kvpb.Command { return leaseRevoke(&kvpb.LeaseRevoke{Id: 1 << 49}) })
		})
	}
}

// BenchmarkSplitLeased is the cut of a range in the middle of leases that hold ten keys each, and of one that holds all.
func BenchmarkSplitLeased(b *testing.B) {
	for _, leases := range []int{1, leasedKeys / 10} {
		b.Run(fmt.Sprintf("leases=%d", leases), func(b *testing.B) {
			onLeased(b, leases, false, func(r *replica) *kvpb.Command {
				cmd, err := apply.Split(r.sm.Descriptor(), []byte("5"), 10)
				must(b, err)
				return cmd
			})
		})
	}
}

package placement

import (
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// asker is who asks for reports: it knows what it was told.
type asker struct {
	index   base.KeyspaceID
	version uint64
	inc     uint64
	known   map[uint64]*rangepb.RangeReport
	told    int // ranges, in all answers
}

func (a *asker) ask(r *Reports) {
	for more := true; more; {
		out := r.Report(&rangepb.ReportRequest{After: a.version, Incarnation: a.inc, KeyspaceId: uint64(a.index)})
		if a.version == 0 && !out.All {
			panic("who knows nothing is not told all")
		}
		if out.All {
			a.known = map[uint64]*rangepb.RangeReport{}
		}
		for _, x := range out.Ranges {
			a.known[x.Descriptor_.RangeId] = x
			a.told++
		}
		for _, id := range out.Ended {
			delete(a.known, id)
		}
		a.version, a.inc, more = out.Version, out.Incarnation, out.More
	}
}

func newReports() *Reports {
	return NewReports(7, func(id base.RangeID) (*metapb.RangeDescriptor, int64, bool) { return nil, int64(id) << 20, true })
}

func change(id base.RangeID, ks base.KeyspaceID, generation uint64, role raftgroup.Role) raftgroup.StateChange {
	return raftgroup.StateChange{Range: id, Role: role, Descriptor: &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(ks), Generation: generation}}
}

// Whatever happens, and however rarely somebody asks, he knows after asking what is: the ranges of his index, with their newest
// generations, and figures that are off by no more than what counts as no change.
func TestWhoAsksKnows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newReports()
		askers := []*asker{{index: base.KeyspaceMeta}, {index: base.KeyspaceRoot}}
		type truth struct {
			generation uint64
			rate       float64
			bytes      int64
		}
		led := map[base.RangeID]truth{}
		keyspace := func(id base.RangeID) base.KeyspaceID {
			if id%4 == 0 {
				return base.KeyspaceMeta
			}
			return base.FirstFreeID + base.KeyspaceID(id%3)
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := base.RangeID(rapid.IntRange(1, 12).Draw(t, "range"))
			is, ok := led[id]
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0, 1:
				is = truth{is.generation + 1, is.rate, int64(id) << 20}
				r.Changed(change(id, keyspace(id), is.generation, raftgroup.Leader))
				led[id] = is
			case 2:
				r.Changed(change(id, keyspace(id), is.generation, raftgroup.Follower))
				delete(led, id)
			case 3:
				bytes := rapid.Int64Range(0, 1<<30).Draw(t, "bytes")
				r.Sized(id, bytes)
				if is.bytes = bytes; ok {
					led[id] = is
				}
			case 4:
				rates := map[base.RangeID]float64{}
				for id, is := range led {
					if is.rate = rapid.SampledFrom([]float64{0, 0.5, 10, 11, 50, 1000}).Draw(t, "rate"); is.rate > 0 {
						rates[id] = is.rate
					}
					led[id] = is
				}
				r.Rates(rates)
			case 5:
				askers[rapid.IntRange(0, 1).Draw(t, "asker")].ask(r)
			case 6:
				askers[0].inc = 6 // what it knows is of an earlier process
			case 7:
				askers[1].version = 0 // it gave up what it knows: the node did not answer
			}
		}
		for _, a := range askers {
			a.ask(r)
			var want []uint64
			for id := range led {
				if indexOf(keyspace(id)) == a.index {
					want = append(want, uint64(id))
				}
			}
			slices.Sort(want)
			if have := slices.Sorted(maps.Keys(a.known)); !slices.Equal(have, want) {
				t.Fatalf("who asks for %s knows of %v, led are %v", a.index, have, want)
			}
			for id, x := range a.known {
				is := led[base.RangeID(id)]
				if x.Descriptor_.Generation != is.generation || differs(x.RequestsPerSecond, is.rate, 2*base.ReportRate) || differs(float64(x.Bytes), float64(is.bytes), 2*base.ReportBytes) {
					t.Fatalf("r%d is said to be %v, and is %+v", id, x, is)
				}
			}
			before := a.told
			a.ask(r)
			if a.told != before {
				t.Fatalf("nothing has happened, and %d ranges were told of again", a.told-before)
			}
		}
	})
}

// Many ranges are told of in pages; and who was away while more ended than is remembered is told everything again, once.
func TestReportsInPages(t *testing.T) {
	r := newReports()
	const n = 3*base.ReportPage + 7
	for id := base.RangeID(1); id <= n; id++ {
		r.Changed(change(id, base.FirstFreeID, 1, raftgroup.Leader))
	}
	a := &asker{index: base.KeyspaceMeta}
	a.ask(r)
	if len(a.known) != n || a.told != n {
		t.Fatalf("%d ranges are known, %d were told of; %d are led", len(a.known), a.told, n)
	}
	for id := base.RangeID(n + 1); id <= n+base.ReportEnded+1; id++ {
		r.Changed(change(id, base.FirstFreeID, 1, raftgroup.Leader))
		r.Changed(change(id, base.FirstFreeID, 1, raftgroup.Follower))
	}
	a.told = 0
	a.ask(r)
	if len(a.known) != n || a.told != n {
		t.Fatalf("after much has ended %d ranges are known, %d were told of; %d are led", len(a.known), a.told, n)
	}
	if len(r.log) > 2*n+2*base.ReportPage || len(r.ended) > base.ReportEnded {
		t.Fatalf("the log has %d entries for %d ranges, and %d that ended are remembered", len(r.log), n, len(r.ended))
	}
}

// Figures that move a little are no news, and what a replica that lags is, is.
func TestWhatCountsAsNews(t *testing.T) {
	r := newReports()
	a := &asker{index: base.KeyspaceMeta}
	r.Changed(change(7, base.FirstFreeID, 1, raftgroup.Leader))
	r.Sized(7, 100<<20)
	r.Rates(map[base.RangeID]float64{7: 100})
	a.ask(r)
	for what, f := range map[string]func(){
		"a little larger": func() { r.Sized(7, 109<<20) },
		"a little busier": func() { r.Rates(map[base.RangeID]float64{7: 109}) },
		"thawed":          func() { r.Changed(raftgroup.StateChange{Range: 7, Role: raftgroup.Leader, Thawed: true}) },
		"as it was":       func() { r.Changed(change(7, base.FirstFreeID, 1, raftgroup.Leader)); r.Replicas(7, nil, "") },
	} {
		a.told = 0
		f()
		if a.ask(r); a.told != 0 {
			t.Errorf("%s is taken for news", what)
		}
	}
	r.Replicas(7, []base.NodeID{3}, "a merge")
	a.ask(r)
	want := &rangepb.RangeReport{
		Descriptor_: &metapb.RangeDescriptor{RangeId: 7, KeyspaceId: uint64(base.FirstFreeID), Generation: 1},
		Bytes:       100 << 20, RequestsPerSecond: 100, Behind: []uint64{3}, Busy: "a merge",
	}
	if !proto.Equal(a.known[7], want) {
		t.Errorf("told %v, want %v", a.known[7], want)
	}
}

// A node that leads nothing yet is told apart from one that was never heard.
func TestNothingIsSomething(t *testing.T) {
	r := newReports()
	first := r.Report(&rangepb.ReportRequest{KeyspaceId: uint64(base.KeyspaceMeta)})
	if !first.All || first.Version == 0 {
		t.Errorf("the first report of a node that leads nothing is %v", first)
	}
	r.Changed(change(7, base.FirstFreeID, 1, raftgroup.Leader))
	then := r.Report(&rangepb.ReportRequest{After: first.Version, Incarnation: first.Incarnation, KeyspaceId: uint64(base.KeyspaceMeta)})
	if then.All || len(then.Ranges) != 1 {
		t.Errorf("the next one is %v", then)
	}
}

// A range that ended between two pages is not led, whatever the first said; one that is led again is.
func TestPagesOfOneReport(t *testing.T) {
	of := func(ids ...uint64) (out []*rangepb.RangeReport) {
		for _, id := range ids {
			out = append(out, &rangepb.RangeReport{Descriptor_: &metapb.RangeDescriptor{RangeId: id}})
		}
		return out
	}
	whole := &rangepb.Report{All: true, Version: 3, More: true, Ranges: of(1, 2, 3)}
	join(whole, &rangepb.Report{Version: 5, More: true, Ranges: of(4), Ended: []uint64{2, 3}})
	join(whole, &rangepb.Report{Version: 7, Ranges: of(3)})
	want := &rangepb.Report{All: true, Version: 7, Ranges: of(1, 4, 3), Ended: []uint64{2, 3}}
	if !proto.Equal(whole, want) {
		t.Errorf("three pages make %v, want %v", whole, want)
	}
}

func BenchmarkReportNothingNew(b *testing.B) {
	r := newReports()
	for id := base.RangeID(1); id <= 50_000; id++ {
		r.Changed(change(id, base.FirstFreeID, 1, raftgroup.Leader))
	}
	a := &asker{index: base.KeyspaceMeta}
	a.ask(r)
	for b.Loop() {
		a.ask(r)
	}
}

package apply_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

// TestReplicasAgree: two nodes that get the same log, in other pieces and through other crashes, one of them removing
// what was compacted in the background, come to the same bytes, the same conf changes and the same outcomes.
func TestReplicasAgree(t *testing.T) {
	engines := []engine.Engine{openEngine(t), engine.NewMem()} // one on disk, one that the simulator would use
	next := base.RangeID(100)                                  // a range and keyspace of its own for each run
	rapid.Check(t, func(t *rapid.T) {
		next++
		d := desctest.First(next, base.KeyspaceID(next))
		d.Start, d.End = []byte("b"), []byte("x")
		a, b := bootstrap(t, engines[0], 1, d), bootstrap(t, engines[1], 2, d)
		log := drawLog(t, d)
		changesA, outcomesA := feed(t, a, log, true)
		changesB, outcomesB := feed(t, b, log, false)
		viewA, sumA := a.at(t)
		viewB, sumB := b.at(t)
		if !reflect.DeepEqual(changesA, changesB) {
			t.Fatalf("conf changes differ: %v and %v", changesA, changesB)
		}
		if viewA.Counters != viewB.Counters || viewA.AppliedIndex != viewB.AppliedIndex || viewA.AppliedTerm != viewB.AppliedTerm ||
			!desc.Equal(viewA.Descriptor, viewB.Descriptor) {
			t.Fatalf("%+v and %+v", viewA, viewB)
		}
		if sumA != sumB {
			t.Fatalf("checksums differ: %x and %x\n%s\n%s", sumA, sumB, a.dump(t), b.dump(t))
		}
		if n := len(outcomesA) + len(outcomesB); n != len(log) {
			t.Fatalf("%d outcomes of %d proposals", n, len(log))
		}
	})
}

// drawLog draws proposals of two nodes.
func drawLog(t *rapid.T, d *metapb.RangeDescriptor) (log []*raftpb.Entry) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d", "x"})
	for i := range rapid.IntRange(1, 30).Draw(t, "entries") {
		id := raftgroup.ProposalID{Node: base.NodeID(rapid.IntRange(1, 2).Draw(t, "node")), Seq: uint64(i)}
		var cmd *kvpb.Command
		var change *raftpb.ConfChangeV2
		switch rapid.IntRange(0, 6).Draw(t, "command") {
		case 0, 1:
			cmd = put(t, key.Draw(t, "key"), fmt.Sprint(i))
		case 2:
			cmd = del(t, key.Draw(t, "key"))
		case 3:
			cmd = compactTo(t, rapid.Int64Range(998, 1015).Draw(t, "revision"))
		case 6:
			cmd, d = drawMergeStep(t, d)
		case 4, 5:
			steps := desctest.Steps(d, 5)
			if len(steps) == 0 { // frozen, or absorbing
				cmd, d = drawMergeStep(t, d)
				break
			}
			to := rapid.SampledFrom(steps).Draw(t, "step")
			var err error
			cmd, change, err = apply.Change(d, to)
			must(t, err)
			if rapid.Bool().Draw(t, "stale") {
				cmd.GetChangeReplicas().ExpectedGeneration++
			} else {
				d = to
			}
		}
		log = append(log, entry(t, apply.InitialIndex+1+uint64(i), id, cmd, change))
	}
	return log
}

// feed applies the log in random pieces, some of them again after a crash, and removes what was compacted.
func feed(t *rapid.T, r *replica, log []*raftpb.Entry, remove bool) (changes []string, outcomes []raftgroup.ProposalID) {
	for len(log) > 0 {
		n := rapid.IntRange(1, len(log)).Draw(t, "piece")
		crash := rapid.IntRange(0, 3).Draw(t, "crash") == 0
		if err := r.apply(t, crash, log[:n]...); crash && errors.Is(err, errDropped) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.out.Applied.Changes {
			changes = append(changes, fmt.Sprintf("%s %s", c.GetTransition(), raftpb.ConfChangesToString(c.Changes)))
		}
		for _, o := range r.out.Outcomes {
			if (o.Response == nil) == (o.Err == nil) || o.ID.Node != r.node {
				t.Fatalf("outcome %+v", o)
			}
			outcomes = append(outcomes, o.ID)
		}
		if r.out.Applied.Index != log[n-1].GetIndex() || r.sm.AppliedIndex() != log[n-1].GetIndex() {
			t.Fatalf("applied %d of %d", r.out.Applied.Index, log[n-1].GetIndex())
		}
		log = log[n:]
		if remove && rapid.Bool().Draw(t, "remove") {
			r.compact(t)
		}
	}
	return changes, outcomes
}

// dump lists what the range's spans hold.
func (r *replica) dump(t fataler) string {
	var b strings.Builder
	for _, s := range apply.Spans(r.sm.Descriptor()) {
		it, err := r.eng.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
		must(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.Value()
			must(t, err)
			fmt.Fprintf(&b, "%s = %x\n", keys.Pretty(it.Key()), v)
		}
		must(t, it.Close())
	}
	return b.String()
}

// compact removes what no read can ask for any more, as the shell does in the background.
func (r *replica) compact(t fataler) {
	v, _ := r.at(t)
	span := keys.DataSpan(base.KeyspaceID(v.Descriptor.KeyspaceId), v.Descriptor.Start, v.Descriptor.End)
	b := r.eng.NewBatch()
	defer b.Close()
	_, err := eval.CompactStep(r.eng, b, span, v.Counters.Compacted, nil, math.MaxInt)
	must(t, err)
	must(t, b.CommitNoSync())
}

// TestSpansAreAll: a range's spans, copied to an empty store, are the range there: a snapshot sends just these.
func TestSpansAreAll(t *testing.T) {
	from, to := openEngine(t), openEngine(t)
	d := desctest.First(9, 9)
	d.Start, d.End = []byte("b"), []byte("d")
	r := bootstrap(t, from, 1, d)
	other := desctest.First(10, 9) // a neighbour, whose keys must stay behind
	other.Start = []byte("d")
	n := bootstrap(t, from, 1, other)
	must(t, r.apply(t, false, entry(t, 11, raftgroup.ProposalID{}, put(t, "b", "1"), nil), entry(t, 12, raftgroup.ProposalID{}, put(t, "c\xff", "1"), nil)))
	must(t, n.apply(t, false, entry(t, 11, raftgroup.ProposalID{}, put(t, "d", "1"), nil)))

	view, sum := r.at(t)
	b := to.NewBatch()
	defer b.Close()
	last, copied := []byte(nil), 0
	for _, s := range apply.Spans(view.Descriptor) {
		if string(s.Start) < string(last) || string(s.End) <= string(s.Start) {
			t.Fatal("the spans are not in order")
		}
		last = s.End
		it, err := from.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
		must(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.Value()
			must(t, err)
			must(t, b.Set(it.Key(), v))
			copied++
		}
		must(t, it.Close())
	}
	must(t, b.CommitNoSync())
	if copied != 5 { // descriptor, counters, applied, and two keys
		t.Errorf("%d pairs were copied", copied)
	}
	c := &replica{eng: to, node: 2}
	c.load(t, 9)
	if got, gotSum := c.at(t); gotSum != sum || got.AppliedIndex != 12 {
		t.Errorf("the copy is at %+v with checksum %x, not %x", got, gotSum, sum)
	}
	// One byte more in the data is another checksum.
	must(t, c.apply(t, false, entry(t, 13, raftgroup.ProposalID{}, put(t, "b", "2"), nil)))
	if _, other := c.at(t); other == sum {
		t.Error("other data has the same checksum")
	}
}

// TestLoad: nothing is nothing; a part missing or damaged is corruption, and says where.
func TestLoad(t *testing.T) {
	eng := openEngine(t)
	if sm, err := apply.Load(eng, 4); sm != nil || err != nil {
		t.Errorf("an empty store holds %v, %v", sm, err)
	}
	var moved *base.RangeMoved
	if _, err := apply.ReadView(eng, 4); !errors.As(err, &moved) || moved.Range != 4 {
		t.Errorf("an empty store shows %v", err)
	}
	bootstrap(t, eng, 1, desctest.First(4, base.KeyspaceDefault))
	b := eng.NewBatch()
	defer b.Close()
	if err := apply.Bootstrap(b, &metapb.RangeDescriptor{}); err == nil {
		t.Error("a range that is none was made")
	}
	foreign, err := desc.Encode(desctest.First(5, base.KeyspaceDefault))
	must(t, err)
	for _, key := range [][]byte{keys.RangeDescriptor(4), keys.RangeApplied(4), keys.RangeCounters(4)} {
		whole, err := eng.Get(key)
		must(t, err)
		for _, damaged := range [][]byte{nil, {0xff}, append(whole[:len(whole):len(whole)], 0xff), make([]byte, 16), foreign[:len(foreign)-1]} {
			set(t, eng, key, damaged)
			var c *base.Corruption
			if _, err := apply.Load(eng, 4); !errors.As(err, &c) {
				t.Errorf("%s as %x is loaded: %v", keys.Pretty(key), damaged, err)
			}
		}
		set(t, eng, key, whole)
		if string(key) == string(keys.RangeDescriptor(4)) {
			continue // without it there is no replica
		}
		drop := eng.NewBatch()
		must(t, drop.Delete(key))
		must(t, drop.CommitNoSync())
		must(t, drop.Close())
		var c *base.Corruption
		if _, err := apply.Load(eng, 4); !errors.As(err, &c) {
			t.Errorf("without %s it is loaded: %v", keys.Pretty(key), err)
		}
		set(t, eng, key, whole)
	}
	if sm, err := apply.Load(eng, 4); err != nil || sm.AppliedIndex() != apply.InitialIndex || sm.AppliedTerm() != apply.InitialTerm {
		t.Errorf("whole again, it is %v, %v", sm, err)
	}
}

func set(t *testing.T, eng engine.Engine, key, value []byte) {
	b := eng.NewBatch()
	must(t, b.Set(key, value))
	must(t, b.CommitNoSync())
	must(t, b.Close())
}

// FuzzEntry: whatever a log holds, Apply does not panic, and what it accepts moves the applied index by one and leaves
// a valid descriptor.
func FuzzEntry(f *testing.F) {
	d := desctest.First(4, base.KeyspaceDefault)
	id := raftgroup.ProposalID{Node: 1, Seq: 1}
	t := &testing.T{}
	for _, cmd := range []*kvpb.Command{
		put(t, "a", "1"), del(t, "a"), compactTo(t, 1), publish(d, []byte("x")), freeze(d, d), merge(1, &kvpb.FrozenRange{Descriptor_: d}), giveUp(1), thaw(d, d), absorbed(1), unpublish([]byte("x"), 1), {},
	} {
		raw, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int32(raftpb.EntryNormal), raftgroup.EncodeProposal(id, raw))
	}
	for _, to := range desctest.Steps(d, 3) {
		cmd, change, err := apply.Change(d, to)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int32(raftpb.EntryConfChangeV2), entry(t, 11, id, cmd, change).GetData())
	}
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = eng.Close() }) // the fuzzing process may be killed as well
	f.Fuzz(func(t *testing.T, typ int32, data []byte) {
		r := bootstrap(t, eng, 1, d)
		b := eng.NewIndexedBatch()
		defer b.Close()
		p := eval.NewPass(b)
		defer p.Close()
		err := r.sm.Apply(p, []*raftpb.Entry{rawEntry(apply.InitialIndex+1, raftpb.EntryType(typ), data)}, 1, &r.out)
		if err == nil && (r.sm.AppliedIndex() != apply.InitialIndex+1 || desc.Validate(r.sm.Descriptor()) != nil) {
			t.Fatalf("accepted: %d, %s", r.sm.AppliedIndex(), desc.Format(r.sm.Descriptor()))
		}
	})
}

// FuzzLoad: stored bytes of any kind are read, or are corruption.
func FuzzLoad(f *testing.F) {
	raw, err := desc.Encode(desctest.First(4, base.KeyspaceDefault))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, make([]byte, 16), eval.FirstCounters().Marshal())
	f.Fuzz(func(t *testing.T, descriptor, applied, counters []byte) {
		sm, err := apply.Load(pairs{
			string(keys.RangeDescriptor(4)): descriptor, string(keys.RangeApplied(4)): applied, string(keys.RangeCounters(4)): counters,
		}, 4)
		var c *base.Corruption
		if err != nil && !errors.As(err, &c) {
			t.Fatal(err)
		}
		if err == nil && (desc.Validate(sm.Descriptor()) != nil || sm.AppliedIndex() < apply.InitialIndex) {
			t.Fatalf("loaded %s at %d", desc.Format(sm.Descriptor()), sm.AppliedIndex())
		}
	})
}

// pairs is a reader of a few keys.
type pairs map[string][]byte

func (p pairs) Get(key []byte) ([]byte, error) {
	v, ok := p[string(key)]
	if !ok {
		return nil, engine.ErrNotFound
	}
	return v, nil
}

func (p pairs) NewIter(engine.IterOptions) (engine.Iterator, error) {
	return nil, errors.New("nothing is walked here")
}

package apply_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

// hashAll hashes all of a range, in pages of the given sizes in turn; each page goes on from the one before.
func (r *replica) hashAll(t fataler, revision, mark base.Revision, sizes ...int) uint64 {
	t.Helper()
	p := apply.Page{Revision: revision, Compacted: mark}
	for i := 0; ; i++ {
		p.Bytes = sizes[i%len(sizes)]
		h, err := apply.HashVersions(r.eng, r.sm.Descriptor(), p, free)
		must(t, err)
		if h.End {
			return h.Sum
		}
		if p.After != nil && h.Reached.Revision == p.After.Revision && string(h.Reached.Key) == string(p.After.Key) {
			t.Fatalf("a page stays at %q %d", h.Reached.Key, h.Reached.Revision)
		}
		p.After, p.State = &h.Reached, h.State
	}
}

func free(int) error { return nil }

// TestHashVersionsAgree: two replicas, of which one has applied more and has removed other things in the background, have the same
// hash of what both hold at a revision, whatever pages it is made in; and it is another as soon as one version is another.
func TestHashVersionsAgree(t *testing.T) {
	engines := []engine.Engine{engine.NewMem(), engine.NewMem()}
	next := base.RangeID(100)
	rapid.Check(t, func(t *rapid.T) {
		next++
		d := desctest.First(next, base.KeyspaceID(next))
		d.Start, d.End = []byte("b"), []byte("x")
		a, b := bootstrap(t, engines[0], 1, d), bootstrap(t, engines[1], 2, d)
		log := drawLog(t, d)
		at := rapid.IntRange(0, len(log)).Draw(t, "applied")
		for i, e := range log {
			if i == at {
				b.compact(t)
			}
			if i < at {
				must(t, a.apply(t, false, e))
			}
			must(t, b.apply(t, false, e))
		}
		if rapid.Bool().Draw(t, "removed") {
			b.compact(t)
		}
		va, _ := a.at(t)
		vb, _ := b.at(t)
		if va.Descriptor.Generation != vb.Descriptor.Generation || vb.Counters.Compacted > va.Counters.Revision {
			return // what is compared has other bounds by now
		}
		sizes := rapid.SliceOfN(rapid.IntRange(1, 300), 1, 3).Draw(t, "sizes")
		revision, mark := va.Counters.Revision, vb.Counters.Compacted
		sum := a.hashAll(t, revision, mark, math.MaxInt)
		for who, got := range map[string]uint64{
			"in pages": a.hashAll(t, revision, mark, sizes...), "of the other": b.hashAll(t, revision, mark, sizes...),
		} {
			if got != sum {
				t.Fatalf("the sum %s at revision %d above %d is %x and not %x\n%s\n%s", who, revision, mark, got, sum, a.dump(t), b.dump(t))
			}
		}
		if !b.spoil(t, revision, mark) {
			return
		}
		if got := b.hashAll(t, revision, mark, sizes...); got == sum {
			t.Fatalf("the sum at revision %d above %d does not show that a version is another\n%s", revision, mark, b.dump(t))
		}
	})
}

// spoil changes the last byte of a version that is in the hash, or adds one; false if there is no room for one.
func (r *replica) spoil(t fataler, revision, mark base.Revision) bool {
	d := r.sm.Descriptor()
	span := keys.DataSpan(base.KeyspaceID(d.KeyspaceId), d.Start, d.End)
	it, err := r.eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	must(t, err)
	var key, value []byte
	for ok := it.First(); ok; ok = it.Next() {
		if rev, _ := keys.DataRevision(it.Key()); rev > mark && rev <= revision {
			v, err := it.Value()
			must(t, err)
			key, value = slices.Clone(it.Key()), slices.Clone(v)
		}
	}
	must(t, it.Close())
	if key == nil { // all that counts is at the mark or below it: an extra version will do
		if mark == revision {
			return false
		}
		key, value = keys.Data(nil, base.KeyspaceID(d.KeyspaceId), d.Start, mark+1), []byte{0}
	} else {
		value[len(value)-1]++
	}
	b := r.eng.NewBatch()
	defer b.Close()
	must(t, b.Set(key, value))
	must(t, b.CommitNoSync())
	return true
}

// TestHashVersionsPages: a page ends where it is told to, and names the last version that it looked at; and what pace says ends it.
func TestHashVersionsPages(t *testing.T) {
	d := desctest.First(9, 9)
	r := bootstrap(t, engine.NewMem(), 1, d)
	index := uint64(11)
	for _, k := range []string{"a", "a", "b", "c"} {
		must(t, r.apply(t, false, entry(t, index, raftgroup.ProposalID{}, put(t, k, strings.Repeat(k, 100)), nil)))
		index++
	}
	v, _ := r.at(t)
	var seen []string
	p := apply.Page{Revision: v.Counters.Revision, Bytes: 1}
	for {
		h, err := apply.HashVersions(r.eng, d, p, free)
		must(t, err)
		seen = append(seen, fmt.Sprintf("%d", h.Versions))
		if h.End {
			break
		}
		seen = append(seen, string(h.Reached.Key))
		p.After = &h.Reached
	}
	if got := strings.Join(seen, " "); got != "1 a 1 a 1 b 1" {
		t.Errorf("pages: %s", got)
	}

	all := r.hashAll(t, v.Counters.Revision, 0, math.MaxInt)
	h, err := apply.HashVersions(r.eng, d, apply.Page{Revision: v.Counters.Revision, Bytes: math.MaxInt, Until: &apply.Position{Key: []byte("b")}}, free)
	must(t, err)
	if !h.End || h.Versions != 3 || h.Sum == all {
		t.Errorf("up to b: %+v", h)
	}
	stop := errors.New("enough")
	if _, err := apply.HashVersions(r.eng, d, apply.Page{Revision: v.Counters.Revision, Bytes: math.MaxInt}, func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("pace ended it with %v", err)
	}
	if _, err := apply.HashVersions(r.eng, d, apply.Page{State: []byte("no state")}, free); err == nil {
		t.Error("a state that is none was taken")
	}
}

package route_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/route"
)

// TestStories runs the dialogues in testdata/stories. Verbs: cache (limit=, starts anew), put, drop, find (ks= key=), show;
// index (what root and meta hold, one descriptor a line), ranges (what there really is), unled (those that nobody leads: words r2 r3),
// lookup (ks= key= at=, again: though something is known); doubt (at=), trust; targets (self=, has, leader=: whom the tries go to that
// are refused without a hint), retry (one error a line).
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{c: route.NewCache(100)}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			out, err := s.verb(t, c)
			if err != nil {
				c.Fatalf(t, "%v", err)
			}
			return out
		})
	})
}

type story struct {
	c     *route.Cache
	index map[string]*metapb.RangeDescriptor // by index keyspace and index key
	real  []*metapb.RangeDescriptor
	unled []string
	at    base.Instant
}

func (s *story) verb(t *testing.T, c *datadriven.TestData) (string, error) {
	ds, err := parseAll(c)
	if err != nil {
		return "", err
	}
	var at string
	if c.MaybeScanArgs(t, "at", &at) {
		d, err := time.ParseDuration(at)
		if err != nil {
			return "", err
		}
		s.at = base.Instant(d)
	}
	var b strings.Builder
	switch c.Cmd {
	case "cache":
		var limit int
		c.ScanArgs(t, "limit", &limit)
		s.c = route.NewCache(limit)
	case "put":
		for _, d := range ds {
			fmt.Fprintln(&b, s.c.Put(d))
		}
	case "drop":
		for _, d := range ds {
			s.c.Drop(d)
		}
	case "find":
		ks, key := place(t, c)
		fmt.Fprintln(&b, desc.Format(s.c.Find(ks, key)))
	case "show":
		return s.c.String(), nil
	case "index":
		s.index = map[string]*metapb.RangeDescriptor{}
		for _, d := range ds {
			ks, _ := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
			s.index[indexed(ks, route.DescriptorKey(d))] = d
		}
	case "ranges":
		s.real = ds
	case "unled":
		s.unled = strings.Fields(c.Input)
	case "lookup":
		ks, key := place(t, c)
		if c.HasArg("again") {
			return s.lookup(route.Again(s.c, s.c.Find(ks, key), key)), nil
		}
		return s.lookup(route.NewLookup(s.c, ks, key)), nil
	case "doubt":
		fmt.Fprintln(&b, s.c.Doubt(s.c.Known(base.RangeID(ds[0].RangeId)), s.at))
	case "trust":
		s.c.Trust(ds[0])
	case "targets":
		var self, leader uint64
		c.ScanArgs(t, "self", &self)
		c.MaybeScanArgs(t, "leader", &leader)
		return targets(ds[0], route.Own{Node: base.NodeID(self), Has: c.HasArg("has"), Leader: base.NodeID(leader)}), nil
	case "retry":
		return retries(c.Input)
	default:
		return "", fmt.Errorf("there is no verb %s", c.Cmd)
	}
	return b.String(), nil
}

// lookup answers as the ranges and the indexes of the story would.
func (s *story) lookup(l *route.Lookup) string {
	var b strings.Builder
	for {
		switch q := l.Next(); {
		case q.Found != nil:
			fmt.Fprintf(&b, "found %s\n", desc.Format(q.Found))
			return b.String()
		case q.Failed != nil:
			fmt.Fprintf(&b, "failed: %v\n", q.Failed)
			return b.String()
		case q.Root:
			root := s.holder(base.KeyspaceRoot, nil)
			fmt.Fprintf(&b, "who is root? %s\n", desc.Format(root))
			if root == nil {
				l.Learn()
			} else {
				l.Learn(root)
			}
		default:
			if !s.read(&b, l, q.Index) {
				return b.String()
			}
		}
	}
}

// read answers an index read; false if it cannot be answered.
func (s *story) read(b *strings.Builder, l *route.Lookup, r *route.IndexRead) bool {
	fmt.Fprintf(b, "%s: ", base.RangeID(r.Range.RangeId))
	if slices.Contains(s.unled, base.RangeID(r.Range.RangeId).String()) {
		fmt.Fprintf(b, "nobody leads it; it is to be looked up again: %v\n", l.Unled(s.at))
		return false
	}
	if now := s.holder(r.Keyspace, r.Start); now == nil || now.RangeId != r.Range.RangeId {
		fmt.Fprintf(b, "not here; %s\n", desc.Format(now))
		l.Refused(slices.DeleteFunc([]*metapb.RangeDescriptor{now}, func(d *metapb.RangeDescriptor) bool { return d == nil })...)
		return true
	}
	var keys []string
	for k := range s.index {
		if k >= indexed(r.Keyspace, r.Start) && k < indexed(r.Keyspace, r.End) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		b.WriteString("nothing\n")
		l.Learn()
		return true
	}
	d := s.index[slices.Min(keys)]
	fmt.Fprintln(b, desc.Format(d))
	l.Learn(d)
	return true
}

func (s *story) holder(ks base.KeyspaceID, key []byte) *metapb.RangeDescriptor {
	for _, d := range s.real {
		if desc.Contains(d, ks, key) {
			return d
		}
	}
	return nil
}

func indexed(ks base.KeyspaceID, key []byte) string { return fmt.Sprintf("%s/%s", ks, key) }

// targets are the nodes to which the tries of a request go, twice round.
func targets(d *metapb.RangeDescriptor, own route.Own) string {
	var out []base.NodeID
	var r route.Retry
	for range 2 * len(d.Replicas) {
		out = append(out, r.Target(d, own))
		r, _ = r.After(&base.NotLeader{})
	}
	return fmt.Sprintln(out)
}

// retries: one error a line, as words: what, then its argument. The range is on node 1, and the asker on none of its.
func retries(input string) (string, error) {
	var (
		b strings.Builder
		r route.Retry
	)
	for _, l := range strings.Split(input, "\n") {
		what, arg, _ := strings.Cut(l, " ")
		var err error
		switch what {
		case "not-leader":
			var n uint64
			_, _ = fmt.Sscan(arg, &n) // none: no hint
			err = &base.NotLeader{HintNode: base.NodeID(n)}
		case "moved":
			err = &base.RangeMoved{Descriptors: []*metapb.RangeDescriptor{desctest.First(4, 4)}}
		case "moved-nowhere":
			err = &base.RangeMoved{}
		case "throttled":
			d, perr := time.ParseDuration(arg)
			if perr != nil {
				return "", perr
			}
			err = fmt.Errorf("wrapped: %w", &base.Throttled{RetryAfter: d})
		case "ambiguous":
			err = &base.Ambiguous{Cause: &base.NotLeader{HintNode: 2}}
		case "no-range":
			err = &route.NoRange{}
		case "refused":
			err = errors.New("the command's own answer")
		case "stale":
			err = &base.StaleGeneration{}
		default:
			return "", fmt.Errorf("there is no error %s", what)
		}
		var try route.Try
		switch r, try = r.After(err); {
		case try.GiveUp:
			b.WriteString("give up\n")
		case try.Doubt:
			fmt.Fprintf(&b, "wait %s, in doubt\n", try.Wait)
		case try.Wait > 0:
			fmt.Fprintf(&b, "wait %s\n", try.Wait)
		default:
			fmt.Fprintf(&b, "at once, %s\n", r.Target(desctest.First(4, 4), route.Own{}))
		}
	}
	return b.String(), nil
}

func parseAll(c *datadriven.TestData) (out []*metapb.RangeDescriptor, err error) {
	if c.Input == "" || c.Cmd == "retry" || c.Cmd == "unled" {
		return nil, nil
	}
	for _, l := range strings.Split(c.Input, "\n") {
		d, err := desctest.Parse(l)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func place(t *testing.T, c *datadriven.TestData) (base.KeyspaceID, []byte) {
	var ks uint64
	var key string
	c.ScanArgs(t, "ks", &ks)
	c.MaybeScanArgs(t, "key", &key)
	return base.KeyspaceID(ks), []byte(key)
}

// TestRetryEnds: whatever fails, in whatever order, the tries and the waits are bounded.
func TestRetryEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r route.Retry
		kinds := []error{&base.NotLeader{}, &base.NotLeader{HintNode: 3}, &base.RangeMoved{}, &base.Throttled{}, &route.NoRange{}}
		direct := 0
		for range base.RetryTries {
			var try route.Try
			r, try = r.After(rapid.SampledFrom(kinds).Draw(t, "err"))
			switch {
			case try.GiveUp:
				return
			case try.Wait > base.RetryMax:
				t.Fatalf("a wait of %s", try.Wait)
			case try.Wait == 0:
				direct++
			default:
				direct = 0
			}
			if direct > base.RetryHints {
				t.Fatalf("%d tries without a pause", direct)
			}
		}
		t.Fatal("no end")
	})
}

// TestIndexKeyOrder: index keys order as keyspace and end do, the end of a keyspace last, and are read back.
func TestIndexKeyOrder(t *testing.T) {
	end := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 0xff}), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			ks  base.KeyspaceID
			end []byte
		}
		draw := func(l string) place {
			return place{base.KeyspaceID(rapid.Uint64Range(1, 3).Draw(t, l)), end.Draw(t, l)}
		}
		a, b := draw("a"), draw("b")
		want := int(a.ks) - int(b.ks)
		if want == 0 {
			switch {
			case len(a.end) == 0 || len(b.end) == 0:
				want = len(b.end) - len(a.end)
				if len(a.end) != 0 && len(b.end) == 0 {
					want = -1
				}
			default:
				want = bytes.Compare(a.end, b.end)
			}
		}
		got := bytes.Compare(route.IndexKey(a.ks, a.end), route.IndexKey(b.ks, b.end))
		if sign(got) != sign(want) {
			t.Fatalf("%v and %v order as %d", a, b, got)
		}
		ks, e, ok := route.DecodeIndexKey(route.IndexKey(a.ks, a.end))
		if !ok || ks != a.ks || !bytes.Equal(e, a.end) {
			t.Fatalf("%v was read back as %v %v", a, ks, e)
		}
	})
}

func sign(n int) int {
	return min(1, max(-1, n))
}

// FuzzDecodeIndexKey: bytes that are no key are refused, and what is accepted has one encoding.
func FuzzDecodeIndexKey(f *testing.F) {
	f.Add(route.IndexKey(4, nil))
	f.Add(route.IndexKey(4, []byte("a")))
	f.Add([]byte("12345678\x01"))
	f.Fuzz(func(t *testing.T, k []byte) {
		if ks, end, ok := route.DecodeIndexKey(k); ok && !bytes.Equal(route.IndexKey(ks, end), k) {
			t.Fatalf("%x was read as %s %x", k, ks, end)
		}
	})
}

// A refuser that had a replica once may remember the descriptor by which it was asked: that is no news, and whoever believed it
// would ask the same node for ever.
func TestMovedTakesNoOldNews(t *testing.T) {
	asked := desctest.First(9, 9)
	asked.Generation = 3
	for _, c := range []struct {
		generation uint64
		want       bool
	}{{2, false}, {3, false}, {4, true}} {
		cache := route.NewCache(10)
		cache.Put(asked)
		known := desc.Clone(asked)
		known.Generation = c.generation
		cache.Moved(asked, []*metapb.RangeDescriptor{known})
		if got := cache.Find(9, []byte("k")) != nil; got != c.want {
			t.Errorf("refused by one that knows generation %d: the cache holds one: %v", c.generation, got)
		}
	}
}

// A refuser whose cache has not heard yet that it was cut in two does not add, to what it says now, what it said before.
func TestBesideIsNotTheRefuserOfBefore(t *testing.T) {
	before := desctest.First(9, 9)
	left := desc.Clone(before)
	left.End, left.Generation = []byte("k"), before.Generation+1
	c := route.NewCache(10)
	c.Put(before)
	if got := c.Beside([]*metapb.RangeDescriptor{left}); len(got) != 1 {
		t.Fatalf("%d descriptors are said: %v", len(got), got)
	}
}

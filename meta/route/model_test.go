package route_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/route"
)

// layout cuts a keyspace into ranges and keeps splitting them, as generations that grow.
type layout struct {
	now  []*metapb.RangeDescriptor // in order
	past []*metapb.RangeDescriptor
	next base.RangeID
}

func (l *layout) split(t *rapid.T) {
	i := rapid.IntRange(0, len(l.now)-1).Draw(t, "range")
	at := rapid.SliceOfN(rapid.ByteRange('a', 'e'), 1, 3).Draw(t, "at")
	if !desc.Contains(l.now[i], base.KeyspaceDefault, at) || string(l.now[i].Start) == string(at) {
		return
	}
	left, right := desc.Clone(l.now[i]), desc.Clone(l.now[i])
	left.End, right.Start = at, at
	left.Generation++
	right.Generation++
	right.RangeId = uint64(l.next)
	l.next++
	l.past = append(l.past, l.now[i])
	l.now = append(l.now[:i:i], append([]*metapb.RangeDescriptor{left, right}, l.now[i+1:]...)...)
}

// TestCacheConverges: whatever of past and present the cache is told, in any order, it never goes back from what is
// newest, holds no two that overlap, keeps its bound, and once told the present finds every key where it is.
func TestCacheConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &layout{now: []*metapb.RangeDescriptor{desctest.First(10, base.KeyspaceDefault)}, next: 11}
		limit := rapid.IntRange(1, 30).Draw(t, "limit")
		c := route.NewCache(limit)
		for range rapid.IntRange(1, 30).Draw(t, "moves") {
			switch rapid.IntRange(0, 3).Draw(t, "move") {
			case 0:
				l.split(t)
			case 1:
				if len(l.past) > 0 {
					c.Put(rapid.SampledFrom(l.past).Draw(t, "past"))
				}
			case 2:
				d := rapid.SampledFrom(l.now).Draw(t, "now")
				c.Put(d)
				if got := c.Find(base.KeyspaceDefault, d.Start); !desc.Equal(got, d) {
					t.Fatalf("told %s, finds %s", desc.Format(d), desc.Format(got))
				}
				if got := c.Known(base.RangeID(d.RangeId)); !desc.Equal(got, d) {
					t.Fatalf("told %s, knows %s", desc.Format(d), desc.Format(got))
				}
			case 3:
				c.Drop(rapid.SampledFrom(append(l.past, l.now...)).Draw(t, "dropped"))
			}
			sound(t, c, limit)
		}
		for _, d := range l.now {
			c.Put(d)
		}
		for _, d := range l.past {
			if len(l.now) <= limit && c.Put(d) {
				t.Fatalf("took %s back", desc.Format(d))
			}
		}
		sound(t, c, limit)
		for _, d := range l.now {
			if got := c.Find(base.KeyspaceDefault, d.Start); len(l.now) <= limit && !desc.Equal(got, d) {
				t.Fatalf("told all, finds %s for %s", desc.Format(got), desc.Format(d))
			}
		}
	})
}

func sound(t *rapid.T, c *route.Cache, limit int) {
	all := c.All()
	if len(all) > limit || len(all) != c.Len() {
		t.Fatalf("%d descriptors, the limit is %d", len(all), limit)
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if desc.Overlap(a, b) || a.RangeId == b.RangeId {
				t.Fatalf("holds %s and %s", desc.Format(b), desc.Format(a))
			}
		}
	}
}

// TestLookupEnds: whatever it is answered, a lookup ends, with a range that holds the key or with a failure, and asks
// no more than its bound.
func TestLookupEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := route.NewCache(8)
		any := rapid.Custom(func(t *rapid.T) *metapb.RangeDescriptor {
			d := desctest.First(base.RangeID(rapid.IntRange(1, 5).Draw(t, "range")), base.KeyspaceID(rapid.IntRange(1, 4).Draw(t, "keyspace")))
			d.Generation = rapid.Uint64Range(0, 5).Draw(t, "generation") // 0 is not valid
			if rapid.Bool().Draw(t, "cut") {
				d.Start = rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "start")
				d.End = rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "end")
			}
			return d
		})
		ks, key := base.KeyspaceID(rapid.IntRange(1, 4).Draw(t, "keyspace")), rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "key")
		l := route.NewLookup(c, ks, key)
		for asked := 0; ; asked++ {
			q := l.Next()
			if q.Found != nil && !desc.Contains(q.Found, ks, key) {
				t.Fatalf("found %s for %q", desc.Format(q.Found), key)
			}
			if q.Found != nil || q.Failed != nil {
				return
			}
			if asked == base.LookupQuestions {
				t.Fatal("asks too much")
			}
			ds := rapid.SliceOfN(any, 0, 3).Draw(t, "answer")
			if rapid.Bool().Draw(t, "refused") {
				l.Refused(ds...)
			} else {
				l.Learn(ds...)
			}
		}
	})
}

// TestDoubts: the index is asked about a range that nobody leads once in DoubtAfter at most, whoever asks and however often, and not
// before that time is over; and if that goes on it is asked.
func TestDoubts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := route.NewCache(4)
		d := desctest.First(10, base.KeyspaceDefault)
		c.Put(d)
		var (
			now   = base.Instant(rapid.Int64Range(0, 1<<40).Draw(t, "now"))
			began = base.Never // of the refusals that nothing has interrupted
			last  = now.Add(-base.DoubtAfter)
		)
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(base.DoubtAfter)).Draw(t, "later")))
			if rapid.IntRange(0, 9).Draw(t, "served") == 0 {
				c.Trust(d)
				began = base.Never
				continue
			}
			began = min(began, now)
			asks := c.Doubt(d, now)
			if since := now.Sub(max(began, last)); asks != (since >= base.DoubtAfter) {
				t.Fatalf("%s after the first refusal, or the last question, the index is asked: %v", since, asks)
			}
			if asks {
				last = now
			}
			if c.Doubt(desc.Clone(d), now.Add(10*base.DoubtAfter)) {
				t.Fatal("what the cache does not hold is doubted")
			}
		}
	})
}

// TestTargets: whatever it is refused with, a request goes in turn to every node that may have the range, as long as none leads it;
// and to the asker only if that has a replica, or is told to, or there is no other.
func TestTargets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := desctest.First(10, base.KeyspaceDefault)
		d.Replicas = nil
		for i, n := range rapid.SliceOfNDistinct(rapid.Uint64Range(1, 6), 1, 6, rapid.ID).Draw(t, "nodes") {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: n, Role: rapid.SampledFrom([]metapb.ReplicaRole{
				metapb.ReplicaRole_REPLICA_ROLE_VOTER, metapb.ReplicaRole_REPLICA_ROLE_LEARNER}).Draw(t, "role")})
		}
		own := route.Own{Node: base.NodeID(rapid.IntRange(1, 6).Draw(t, "own")), Has: rapid.Bool().Draw(t, "has"), Leader: base.NodeID(rapid.IntRange(0, 8).Draw(t, "leader"))}
		var r route.Retry
		step := func(err error) base.NodeID {
			to := r.Target(d, own)
			r, _ = r.After(err)
			return to
		}
		for range rapid.IntRange(0, 20).Draw(t, "before") {
			step(rapid.SampledFrom([]error{&base.NotLeader{}, &base.NotLeader{HintNode: 9}, &base.RangeMoved{}, &base.Throttled{}, &route.NoRange{}}).Draw(t, "refusal"))
		}
		step(&base.NotLeader{}) // a hint, if there was one, is used up
		asked := map[base.NodeID]bool{}
		for range (len(d.Replicas) + 1) * (len(d.Replicas) + 1) {
			asked[step(&base.NotLeader{})] = true
		}
		for _, rep := range d.Replicas {
			n := base.NodeID(rep.NodeId)
			alone := len(d.Replicas) == 1
			if want := n != own.Node || own.Has || alone; asked[n] != want && !(own.Has && own.Leader == n) {
				t.Errorf("%s of %s asked: %v (own %+v)", n, desc.Format(d), asked[n], own)
			}
		}
		if own.Has && own.Leader != 0 && !asked[own.Leader] {
			t.Errorf("the leader that the own replica knows was not asked: %v (own %+v)", asked, own)
		}
		if !own.Has && asked[own.Node] && desc.ReplicaOn(d, own.Node) == nil {
			t.Errorf("the asker, which has nothing, asked itself: %v", asked)
		}
	})
}

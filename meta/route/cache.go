package route

import (
	"bytes"
	"cmp"
	"container/list"
	"fmt"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
	"github.com/cairndb/cairn/meta/desc"
)

// Cache holds the newest descriptors that were heard of, ordered by keyspace and end key. No two of them overlap. It
// is bounded: the one that was used longest ago goes. Not safe for concurrent use, Find neither: it notes the use.
type Cache struct {
	limit   int
	byStart *btree.BTreeG[*metapb.RangeDescriptor] // none overlap: ordered by start, they are by end too
	byID    map[base.RangeID]*list.Element         // of byUse
	byUse   *list.List                             // of descriptors, the one used last in front
	doubted map[base.RangeID]base.Instant          // of those held, see Doubt
}

// NewCache returns an empty cache of at most limit descriptors.
func NewCache(limit int) *Cache {
	invariants.Check(limit > 0, "a cache of %d descriptors", limit)
	return &Cache{
		limit: limit, byID: make(map[base.RangeID]*list.Element), byUse: list.New(), doubted: make(map[base.RangeID]base.Instant),
		byStart: btree.NewBTreeGOptions(ordered, btree.Options{NoLocks: true}),
	}
}

func ordered(a, b *metapb.RangeDescriptor) bool {
	return cmp.Or(cmp.Compare(a.KeyspaceId, b.KeyspaceId), bytes.Compare(a.Start, b.Start)) < 0
}

// Len is the number of descriptors held.
func (c *Cache) Len() int { return len(c.byID) }

// Find returns the descriptor of the range that holds key, nil if none is known. It may be out of date.
func (c *Cache) Find(ks base.KeyspaceID, key []byte) (found *metapb.RangeDescriptor) {
	c.byStart.Descend(at(ks, key), func(d *metapb.RangeDescriptor) bool {
		if desc.Contains(d, ks, key) {
			found = d
			c.byUse.MoveToFront(c.byID[base.RangeID(d.RangeId)])
		}
		return false
	})
	return found
}

// at is where a range that begins at key stands in the order.
func at(ks base.KeyspaceID, key []byte) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{KeyspaceId: uint64(ks), Start: key}
}

// Known returns the descriptor of a range, nil if none is known.
func (c *Cache) Known(id base.RangeID) *metapb.RangeDescriptor {
	if e := c.byID[id]; e != nil {
		return e.Value.(*metapb.RangeDescriptor)
	}
	return nil
}

// Put takes a descriptor in and says whether it was news. The newer generation wins: what it overlaps and what is held
// of the same range goes, unless one of these is newer, or as new. The cache keeps d, which nobody may change. A
// descriptor that is not valid is not taken.
func (c *Cache) Put(d *metapb.RangeDescriptor) bool {
	if desc.Validate(d) != nil {
		return false
	}
	displaced := c.overlapped(d)
	if same := c.Known(base.RangeID(d.RangeId)); same != nil && !desc.Overlap(same, d) {
		displaced = append(displaced, same)
	}
	for _, e := range displaced {
		if e.Generation >= d.Generation {
			return false
		}
	}
	for _, e := range displaced {
		c.remove(e)
	}
	if c.Len() >= c.limit {
		c.remove(c.byUse.Back().Value.(*metapb.RangeDescriptor))
	}
	c.byStart.Set(d)
	c.byID[base.RangeID(d.RangeId)] = c.byUse.PushFront(d)
	if invariants.Enabled {
		c.check()
	}
	return true
}

// Drop forgets a descriptor that proved wrong, or an older one of the same range; a newer one stays.
func (c *Cache) Drop(d *metapb.RangeDescriptor) {
	if held := c.Known(base.RangeID(d.GetRangeId())); held != nil && held.Generation <= d.Generation {
		c.remove(held)
	}
}

// Moved takes the refusal of a range that was asked because of what the cache holds: that is dropped, and what the
// refusal says is put in its place. What it says is no news if it is what was asked for, or older: the refuser remembers
// that it had a replica, and has none. Then the index is asked.
func (c *Cache) Moved(asked *metapb.RangeDescriptor, known []*metapb.RangeDescriptor) {
	c.Drop(asked)
	for _, d := range known {
		if d.GetRangeId() != asked.GetRangeId() || d.GetGeneration() > asked.GetGeneration() {
			c.Put(d)
		}
	}
}

// Beside adds, to what a refusal says, the ranges behind those that it names: the key that was asked for lies there if the
// range was cut in two since, and the asker need not find out from the index, which may not know yet. What is held of the refuser
// itself may be older than what it says, and is not added: it would say that it holds the key after all.
func (c *Cache) Beside(refusal []*metapb.RangeDescriptor) []*metapb.RangeDescriptor {
	out := refusal
	for _, d := range refusal {
		if len(d.GetEnd()) == 0 {
			continue
		}
		if next := c.Find(base.KeyspaceID(d.KeyspaceId), d.End); next != nil && next.RangeId != d.RangeId {
			out = append(out[:len(out):len(out)], next)
		}
	}
	return out
}

// Doubt takes note that a node which was asked because of d, as the cache holds it, knew nobody who leads the range (Try.Doubt).
// True if that has been so for longer than an election takes: d may be of long ago, and whoever asks is to find out what is newer
// (Again). The descriptor stays meanwhile: in an election that lasts it is right. True again only after as long, whoever asks: the
// requests that wait for one leader do not storm the index.
func (c *Cache) Doubt(d *metapb.RangeDescriptor, now base.Instant) bool {
	return c.doubt(d, now, false)
}

// doubt is Doubt; atOnce: the first time counts as well.
func (c *Cache) doubt(d *metapb.RangeDescriptor, now base.Instant, atOnce bool) bool {
	id := base.RangeID(d.GetRangeId())
	if d == nil || c.Known(id) != d {
		return false // something else is known by now
	}
	since, before := c.doubted[id]
	if before && now.Sub(since) < base.DoubtAfter {
		return false
	}
	c.doubted[id] = now
	return before || atOnce
}

// Trust ends a doubt: the range was found at one of its nodes.
func (c *Cache) Trust(d *metapb.RangeDescriptor) { delete(c.doubted, base.RangeID(d.GetRangeId())) }

// All returns the descriptors in order.
func (c *Cache) All() []*metapb.RangeDescriptor { return c.byStart.Items() }

// overlapped lists the descriptors held that share a key with d.
func (c *Cache) overlapped(d *metapb.RangeDescriptor) (out []*metapb.RangeDescriptor) {
	first := at(base.KeyspaceID(d.KeyspaceId), d.Start)
	c.byStart.Descend(first, func(o *metapb.RangeDescriptor) bool { // the one that begins before d, or with it
		if desc.Overlap(o, d) {
			out = append(out, o)
		}
		return false
	})
	c.byStart.Ascend(first, func(o *metapb.RangeDescriptor) bool {
		if !desc.Overlap(o, d) {
			return false
		}
		if len(out) == 0 || out[0] != o {
			out = append(out, o)
		}
		return true
	})
	return out
}

// remove takes a descriptor out that is held.
func (c *Cache) remove(d *metapb.RangeDescriptor) {
	gone, held := c.byStart.Delete(d)
	invariants.Check(held && gone == d, "the cache does not hold %s where it belongs", desc.Format(d))
	id := base.RangeID(d.RangeId)
	c.byUse.Remove(c.byID[id])
	delete(c.byID, id)
	delete(c.doubted, id)
}

// check panics unless the entries are ordered and disjoint.
func (c *Cache) check() {
	all := c.All()
	invariants.Check(len(all) == len(c.byID) && len(all) == c.byUse.Len(), "the cache holds %d descriptors of %d ranges", len(all), len(c.byID))
	invariants.Check(len(c.doubted) <= len(all), "the cache doubts %d descriptors of %d", len(c.doubted), len(all))
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		ordered := a.KeyspaceId < b.KeyspaceId ||
			a.KeyspaceId == b.KeyspaceId && len(a.End) > 0 && bytes.Compare(a.End, b.Start) <= 0
		invariants.Check(ordered, "the cache holds %s before %s", desc.Format(a), desc.Format(b))
	}
}

// String lists the descriptors, one a line.
func (c *Cache) String() string {
	var b bytes.Buffer
	for _, d := range c.All() {
		fmt.Fprintln(&b, desc.Format(d))
	}
	return b.String()
}

package route

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
	"github.com/cairndb/cairn/meta/desc"
)

// Cache holds the newest descriptors that were heard of, ordered by keyspace and end key. No two of them overlap. It
// is bounded: the one that was used longest ago goes. Not safe for concurrent use, Find neither: it notes the use.
type Cache struct {
	limit   int
	entries []entry // ordered by keyspace and end; few, and mostly read, so a slice
	byID    map[base.RangeID]*metapb.RangeDescriptor
	clock   uint64 // counts uses
}

type entry struct {
	d    *metapb.RangeDescriptor
	used uint64
}

// NewCache returns an empty cache of at most limit descriptors.
func NewCache(limit int) *Cache {
	invariants.Check(limit > 0, "a cache of %d descriptors", limit)
	return &Cache{limit: limit, byID: make(map[base.RangeID]*metapb.RangeDescriptor)}
}

// Len is the number of descriptors held.
func (c *Cache) Len() int { return len(c.entries) }

// Find returns the descriptor of the range that holds key, nil if none is known. It may be out of date.
func (c *Cache) Find(ks base.KeyspaceID, key []byte) *metapb.RangeDescriptor {
	i := c.behind(ks, key)
	if i == len(c.entries) || !desc.Contains(c.entries[i].d, ks, key) {
		return nil
	}
	c.clock++
	c.entries[i].used = c.clock
	return c.entries[i].d
}

// Known returns the descriptor of a range, nil if none is known.
func (c *Cache) Known(id base.RangeID) *metapb.RangeDescriptor { return c.byID[id] }

// Put takes a descriptor in and says whether it was news. The newer generation wins: what it overlaps and what is held
// of the same range goes, unless one of these is newer, or as new. The cache keeps d, which nobody may change. A
// descriptor that is not valid is not taken.
func (c *Cache) Put(d *metapb.RangeDescriptor) bool {
	if desc.Validate(d) != nil {
		return false
	}
	displaced := c.overlapped(d)
	if same := c.byID[base.RangeID(d.RangeId)]; same != nil && !desc.Overlap(same, d) {
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
	if len(c.entries) >= c.limit {
		c.remove(c.oldest())
	}
	c.clock++
	c.entries = slices.Insert(c.entries, c.behind(base.KeyspaceID(d.KeyspaceId), d.Start), entry{d: d, used: c.clock})
	c.byID[base.RangeID(d.RangeId)] = d
	if invariants.Enabled {
		c.check()
	}
	return true
}

// Drop forgets a descriptor that proved wrong, or an older one of the same range; a newer one stays.
func (c *Cache) Drop(d *metapb.RangeDescriptor) {
	if held := c.byID[base.RangeID(d.GetRangeId())]; held != nil && held.Generation <= d.Generation {
		c.remove(held)
	}
}

// Moved takes the refusal of a range that was asked because of what the cache holds: that is dropped, and what the
// refusal says is put in its place.
func (c *Cache) Moved(asked *metapb.RangeDescriptor, known []*metapb.RangeDescriptor) {
	c.Drop(asked)
	for _, d := range known {
		c.Put(d)
	}
}

// All returns the descriptors in order.
func (c *Cache) All() []*metapb.RangeDescriptor {
	out := make([]*metapb.RangeDescriptor, len(c.entries))
	for i, e := range c.entries {
		out[i] = e.d
	}
	return out
}

// behind returns the index of the first entry that ends behind key: the only one that can hold it.
func (c *Cache) behind(ks base.KeyspaceID, key []byte) int {
	i, _ := slices.BinarySearchFunc(c.entries, key, func(e entry, key []byte) int {
		switch eks := base.KeyspaceID(e.d.KeyspaceId); {
		case eks < ks, eks == ks && !desc.EndAfter(e.d.End, key):
			return -1
		}
		return 1
	})
	return i
}

// overlapped lists the descriptors held that share a key with d.
func (c *Cache) overlapped(d *metapb.RangeDescriptor) (out []*metapb.RangeDescriptor) {
	for i := c.behind(base.KeyspaceID(d.KeyspaceId), d.Start); i < len(c.entries) && desc.Overlap(c.entries[i].d, d); i++ {
		out = append(out, c.entries[i].d)
	}
	return out
}

// remove takes a descriptor out that is held.
func (c *Cache) remove(d *metapb.RangeDescriptor) {
	i := c.behind(base.KeyspaceID(d.KeyspaceId), d.Start)
	invariants.Check(i < len(c.entries) && c.entries[i].d == d, "the cache does not hold %s where it belongs", desc.Format(d))
	c.entries = slices.Delete(c.entries, i, i+1)
	delete(c.byID, base.RangeID(d.RangeId))
}

// oldest returns the descriptor whose last use lies furthest back. It looks at all: only a full cache pays for that.
func (c *Cache) oldest() *metapb.RangeDescriptor {
	return slices.MinFunc(c.entries, func(a, b entry) int { return cmp.Compare(a.used, b.used) }).d
}

// check panics unless the entries are ordered and disjoint.
func (c *Cache) check() {
	invariants.Check(len(c.entries) == len(c.byID), "the cache holds %d descriptors of %d ranges", len(c.entries), len(c.byID))
	for i := 1; i < len(c.entries); i++ {
		a, b := c.entries[i-1].d, c.entries[i].d
		ordered := a.KeyspaceId < b.KeyspaceId ||
			a.KeyspaceId == b.KeyspaceId && len(a.End) > 0 && bytes.Compare(a.End, b.Start) <= 0
		invariants.Check(ordered, "the cache holds %s before %s", desc.Format(a), desc.Format(b))
	}
}

// String lists the descriptors, one a line.
func (c *Cache) String() string {
	var b bytes.Buffer
	for _, e := range c.entries {
		fmt.Fprintln(&b, desc.Format(e.d))
	}
	return b.String()
}

package route

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Lookup finds the range that holds a key, from a cache and by asking. It is stepped: Next says what is lacking, the
// shell finds that out and hands it to Learn or Refused, until Next says Found or Failed. What one lookup learns is in
// the cache, and helps the others.
type Lookup struct {
	cache   *Cache
	ks      base.KeyspaceID
	key     []byte
	doubted *metapb.RangeDescriptor // what is known already, and does not end it
	asked   int
	pending Question // the question last put
	learned bool     // and it was answered, not refused
}

// NoRange ends a lookup: an index has no entry where there should be one, or was asked too often. What is missing may
// be published in a moment; the lookup may be begun again.
type NoRange struct {
	Keyspace base.KeyspaceID
	Key      []byte
	Asked    int
}

func (e *NoRange) Error() string {
	return fmt.Sprintf("no range of %s is known to hold %q after %d questions", e.Keyspace, e.Key, e.Asked)
}

// Question is what a lookup wants. Exactly one of Found, Failed, Root and Index is set.
type Question struct {
	// Found is the range that holds the key, as far as is known.
	Found  *metapb.RangeDescriptor
	Failed *NoRange
	// Root asks for the descriptor of the root range, which the node knows from joining.
	Root bool
	// Index asks a range of meta or root for the first entry in [Start, End), linearizably if it can be had.
	Index *IndexRead
}

// IndexRead is a read of one entry of an index.
type IndexRead struct {
	Range      *metapb.RangeDescriptor // which range to ask
	Keyspace   base.KeyspaceID         // of the index
	Start, End []byte
}

// NewLookup begins a lookup of key in ks.
func NewLookup(c *Cache, ks base.KeyspaceID, key []byte) *Lookup {
	return &Lookup{cache: c, ks: ks, key: key}
}

// Again begins a lookup of key for want of something newer than d, which the cache holds: the index is asked, once. If it has
// nothing newer the lookup fails, and the cache is as before.
func Again(c *Cache, d *metapb.RangeDescriptor, key []byte) *Lookup {
	return &Lookup{cache: c, ks: base.KeyspaceID(d.KeyspaceId), key: key, doubted: d}
}

// Next returns what the lookup wants now.
func (l *Lookup) Next() Question {
	if d := l.cache.Find(l.ks, l.key); d != nil && d != l.doubted {
		return Question{Found: d}
	}
	q := l.lacking(l.ks, l.key)
	if l.asked >= base.LookupQuestions || l.learned && q.same(l.pending) {
		return Question{Failed: &NoRange{Keyspace: l.ks, Key: l.key, Asked: l.asked}}
	}
	l.pending, l.learned = q, false
	return q
}

// Learn answers the last question with what the index holds there: nothing, or a descriptor.
func (l *Lookup) Learn(ds ...*metapb.RangeDescriptor) {
	l.asked++
	l.learned = true
	if l.pending.Index != nil {
		l.cache.Trust(l.pending.Index.Range)
	}
	for _, d := range ds {
		l.cache.Put(d)
	}
}

// Refused answers the last question with a base.RangeMoved: the range that was asked is not what the cache holds.
func (l *Lookup) Refused(known ...*metapb.RangeDescriptor) {
	l.asked++
	if l.pending.Index != nil {
		l.cache.Moved(l.pending.Index.Range, known)
	}
}

// Unled answers the last question with a base.NotLeader of all the nodes of the index's range: the lookup cannot go on. True if what
// is known of that range is to be looked up again in its turn: as Cache.Doubt says, and at once if the lookup comes of a doubt
// itself, for that has waited already.
func (l *Lookup) Unled(now base.Instant) bool {
	return l.pending.Index != nil && l.cache.doubt(l.pending.Index.Range, now, l.doubted != nil)
}

// same says whether a and b ask the same of the same range: an answer that did not help will not help now.
func (a Question) same(b Question) bool {
	if a.Index == nil || b.Index == nil {
		return a.Root && b.Root
	}
	return a.Index.Range == b.Index.Range && bytes.Equal(a.Index.Start, b.Index.Start)
}

// lacking goes up the indexes to the first range that is known, and returns the question to it.
func (l *Lookup) lacking(ks base.KeyspaceID, key []byte) Question {
	index, ok := IndexKeyspace(ks)
	if !ok {
		return Question{Root: true}
	}
	start, end := IndexSpan(ks, key)
	if d := l.cache.Find(index, start); d != nil {
		return Question{Index: &IndexRead{Range: d, Keyspace: index, Start: start, End: end}}
	}
	return l.lacking(index, start)
}

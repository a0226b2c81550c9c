// Package route finds the range that holds a key, and the node to ask.
//
// Every range's descriptor is in the range itself; the `meta` keyspace indexes them by keyspace and end key, and `root`,
// one range that never splits, indexes `meta`. So a lookup is at most three hops: root, meta, the range. Both indexes
// and the Cache here may lag behind: a range that is asked for what it does not hold refuses with the descriptors that
// it knows, which heal the cache, and the request goes on from there. Nothing correct rests on what is found here.
//
// Lookup and Retry are values that are stepped: they say what to ask or to wait for, and the shell does it.
package route

import (
	"bytes"
	"encoding/binary"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// The last byte before an end key orders the end of the keyspace behind every key.
const (
	endAtKey      = 1
	endOfKeyspace = 2
)

// IndexKeyspace is the keyspace that indexes the ranges of ks: meta, and root for meta's own. Root is indexed nowhere,
// its descriptor is known from joining; false for it.
func IndexKeyspace(ks base.KeyspaceID) (base.KeyspaceID, bool) {
	switch ks {
	case base.KeyspaceRoot:
		return 0, false
	case base.KeyspaceMeta:
		return base.KeyspaceRoot, true
	}
	return base.KeyspaceMeta, true
}

// IndexKey is the key under which the index holds the range of ks that ends at end; an empty end is the end of the
// keyspace. Keys order as (keyspace, end) do.
func IndexKey(ks base.KeyspaceID, end []byte) []byte {
	k := binary.BigEndian.AppendUint64(make([]byte, 0, 9+len(end)), uint64(ks))
	if len(end) == 0 {
		return append(k, endOfKeyspace)
	}
	return append(append(k, endAtKey), end...)
}

// DecodeIndexKey is the inverse of IndexKey.
func DecodeIndexKey(k []byte) (ks base.KeyspaceID, end []byte, ok bool) {
	if len(k) < 9 {
		return 0, nil, false
	}
	ks = base.KeyspaceID(binary.BigEndian.Uint64(k))
	switch {
	case k[8] == endOfKeyspace && len(k) == 9:
		return ks, nil, true
	case k[8] == endAtKey && len(k) > 9:
		return ks, bytes.Clone(k[9:]), true
	}
	return 0, nil, false
}

// DescriptorKey is the index key of a descriptor.
func DescriptorKey(d *metapb.RangeDescriptor) []byte {
	return IndexKey(base.KeyspaceID(d.GetKeyspaceId()), d.GetEnd())
}

// IndexSpan is where the index holds the range of ks that contains key: at its first entry, if there is one.
func IndexSpan(ks base.KeyspaceID, key []byte) (start, end []byte) {
	start = binary.BigEndian.AppendUint64(make([]byte, 0, 10+len(key)), uint64(ks))
	// The range ends behind key: the first such end is key itself with a zero byte.
	start = append(append(append(start, endAtKey), key...), 0)
	end = append(IndexKey(ks, nil), 0)
	return start, end
}

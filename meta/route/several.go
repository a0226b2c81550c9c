package route

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// Several says of a range that refuses a request by whose first key it was found, and that holds that key, that it lacks another
// of the request's. Nil if it was refused for another reason: a node without a replica knows the range by hearsay, and refuses
// whatever the keys are.
func Several(moved *base.RangeMoved, ks base.KeyspaceID, key []byte) *base.SeveralRanges {
	if moved.Absent {
		return nil
	}
	for _, d := range moved.Descriptors {
		if base.RangeID(d.RangeId) == moved.Range && desc.Contains(d, ks, key) {
			return &base.SeveralRanges{Descriptors: []*metapb.RangeDescriptor{d}}
		}
	}
	return nil
}

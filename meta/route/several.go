package route

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// Several says of a range that refuses a request by whose first key it was found, and that holds that key, that it lacks another
// of the request's. Nil if it was refused for another reason: a node without a replica knows the range by hearsay, and refuses
// whatever the keys are; a range that has changed since it was asked may have refused a key that it did not hold then, and holds
// now. What is told beside its own descriptor may be what it once was, or has become.
func Several(moved *base.RangeMoved, asked *metapb.RangeDescriptor, ks base.KeyspaceID, key []byte) *base.SeveralRanges {
	if moved.Absent {
		return nil
	}
	var own *metapb.RangeDescriptor
	for _, d := range moved.Descriptors {
		if base.RangeID(d.RangeId) == moved.Range && d.Generation > own.GetGeneration() {
			own = d
		}
	}
	if own == nil || own.Generation > asked.GetGeneration() || !desc.Contains(own, ks, key) {
		return nil
	}
	return &base.SeveralRanges{Descriptors: []*metapb.RangeDescriptor{own}}
}

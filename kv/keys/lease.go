package keys

import (
	"encoding/binary"

	"github.com/cairndb/cairn/internal/base"
)

// The leases of a range's clients (RFC 6) are replicated state of the range. Their ids order as eight bytes do, the highest first: those
// below 0 come last.

func leaseKey(r base.RangeID, sub byte, lease int64, extra int) []byte {
	return binary.BigEndian.AppendUint64(append(rangeKey(r, 9+extra), sub), uint64(lease))
}

// leaseKeyLen is that of the key of a lease, or of what comes before the user's key in RangeLeaseKey.
const leaseKeyLen = 1 + 8 + 1 + 8

func subSpan(r base.RangeID, sub byte) Span {
	return Span{append(rangeKey(r, 1), sub), append(rangeKey(r, 1), sub+1)}
}

// RangeLease is the key of the kvpb.LeaseRecord of a lease that lives in the range.
func RangeLease(r base.RangeID, lease int64) []byte { return leaseKey(r, rangeLease, lease, 0) }

// RangeLeaseSpan holds the leases that live in a range, from one on.
func RangeLeaseSpan(r base.RangeID, from int64) Span {
	return Span{RangeLease(r, from), subSpan(r, rangeLease).End}
}

// RangeLeaseGuest is the key of the kvpb.LeaseGuest of a lease that lives in another range and may hold keys of this one.
func RangeLeaseGuest(r base.RangeID, lease int64) []byte {
	return leaseKey(r, rangeLeaseGuest, lease, 0)
}

// RangeLeaseGuestSpan holds all guests of a range.
func RangeLeaseGuestSpan(r base.RangeID) Span { return subSpan(r, rangeLeaseGuest) }

// RangeLeaseKey is there, with an empty value, as long as the newest version of a user's key is held by the lease.
func RangeLeaseKey(r base.RangeID, lease int64, key []byte) []byte {
	return append(leaseKey(r, rangeLeaseKey, lease, len(key)), key...)
}

// RangeLeaseKeySpan holds the range's keys of a lease, from one on.
func RangeLeaseKeySpan(r base.RangeID, lease int64, from []byte) Span {
	return Span{RangeLeaseKey(r, lease, from), prefixEnd(leaseKey(r, rangeLeaseKey, lease, 0))}
}

// RangeLeaseKeysSpan holds the range's keys of all leases.
func RangeLeaseKeysSpan(r base.RangeID) Span { return subSpan(r, rangeLeaseKey) }

// LeaseOf is the lease that a key of RangeLease, RangeLeaseGuest or RangeLeaseKey is of, and of the latter the user's key: part of k.
func LeaseOf(k []byte) (lease int64, key []byte, ok bool) {
	if len(k) < leaseKeyLen || k[0] != prefixReplicated {
		return 0, nil, false
	}
	switch k[9] {
	case rangeLeaseKey:
	case rangeLease, rangeLeaseGuest:
		if len(k) > leaseKeyLen {
			return 0, nil, false
		}
	default:
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(k[10:])), k[leaseKeyLen:], true
}

// RangeLeaseEvicted is the key of the revision of the latest eviction in a group of leases.
func RangeLeaseEvicted(r base.RangeID, group byte) []byte {
	return append(rangeKey(r, 2), rangeLeaseEvicted, group)
}

// RangeLeaseEvictedSpan holds those of all groups.
func RangeLeaseEvictedSpan(r base.RangeID) Span { return subSpan(r, rangeLeaseEvicted) }

// RangeLeaseGrants is the key of the number of the last grant.
func RangeLeaseGrants(r base.RangeID) []byte { return append(rangeKey(r, 1), rangeLeaseGrants) }

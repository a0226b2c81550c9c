package keys

import (
	"encoding/binary"

	"github.com/cairndb/cairn/internal/base"
)

// Span is [Start, End) of engine keys; both are set.
type Span struct{ Start, End []byte }

const (
	prefixStore      = 0x01
	prefixRaft       = 0x02
	prefixReplicated = 0x03
	prefixData       = 0x04

	storeIdentity    = 'i'
	storeIncarnation = 'n'
	storeAddressBook = 'a'
	storeConsent     = 'c'

	raftLocal     = 'l'
	raftReplicaID = 'r'
	raftTombstone = 't'

	localCompacted = 'c'
	localHardState = 'h'
	localTruncated = 'j'
	localLogEntry  = 'l'

	rangeApplied      = 'a'
	rangeCounters     = 'c'
	rangeDescriptor   = 'd'
	rangeLeaseEvicted = 'e'
	rangeLeaseGuest   = 'g'
	rangeLeaseKey     = 'k'
	rangeLease        = 'l'
	rangeLeaseGrants  = 'n'
)

// StoreIdentity is the key of the store's metapb.StoreIdentity.
func StoreIdentity() []byte { return []byte{prefixStore, storeIdentity} }

// StoreIncarnation is the key of the counter of the node's starts.
func StoreIncarnation() []byte { return []byte{prefixStore, storeIncarnation} }

// StoreAddressBook is the key of the store's metapb.AddressBook.
func StoreAddressBook() []byte { return []byte{prefixStore, storeAddressBook} }

// StoreConsent is the key of the consent that the node gave before it was part of a cluster.
func StoreConsent() []byte { return []byte{prefixStore, storeConsent} }

func raftKey(sub byte, r base.RangeID, extra int) []byte {
	k := make([]byte, 2, 10+extra)
	k[0], k[1] = prefixRaft, sub
	return binary.BigEndian.AppendUint64(k, uint64(r))
}

// RaftHardState is the key of a replica's raftpb.HardState.
func RaftHardState(r base.RangeID) []byte { return append(raftKey(raftLocal, r, 1), localHardState) }

// RaftTruncated is the key of the index and term at which a replica's log was cut.
func RaftTruncated(r base.RangeID) []byte { return append(raftKey(raftLocal, r, 1), localTruncated) }

// RaftCompacted is the key of the revision up to which a replica has removed what a compaction hid.
func RaftCompacted(r base.RangeID) []byte { return append(raftKey(raftLocal, r, 1), localCompacted) }

// RaftLogEntry is the key of one entry of a replica's log.
func RaftLogEntry(r base.RangeID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(raftKey(raftLocal, r, 9), localLogEntry), index)
}

// DecodeRaftLogEntry is the inverse of RaftLogEntry.
func DecodeRaftLogEntry(k []byte) (r base.RangeID, index uint64, ok bool) {
	if len(k) != 19 || k[0] != prefixRaft || k[1] != raftLocal || k[10] != localLogEntry {
		return 0, 0, false
	}
	return base.RangeID(binary.BigEndian.Uint64(k[2:])), binary.BigEndian.Uint64(k[11:]), true
}

// RaftLogSpan holds all entries of a replica's log, and nothing else.
func RaftLogSpan(r base.RangeID) Span {
	return Span{append(raftKey(raftLocal, r, 1), localLogEntry), append(raftKey(raftLocal, r, 1), localLogEntry+1)}
}

// UnreplicatedSpan holds all of a replica's unreplicated state but its id and its tombstone.
func UnreplicatedSpan(r base.RangeID) Span {
	return Span{raftKey(raftLocal, r, 0), prefixEnd(raftKey(raftLocal, r, 0))}
}

// RaftReplicaID is the key of the id of a range's replica in this store.
func RaftReplicaID(r base.RangeID) []byte { return raftKey(raftReplicaID, r, 0) }

// RaftReplicaIDSpan holds the ids of all replicas of this store, ordered by range.
func RaftReplicaIDSpan() Span {
	return Span{[]byte{prefixRaft, raftReplicaID}, []byte{prefixRaft, raftReplicaID + 1}}
}

// DecodeRaftReplicaID is the inverse of RaftReplicaID.
func DecodeRaftReplicaID(k []byte) (base.RangeID, bool) {
	if len(k) != 10 || k[0] != prefixRaft || k[1] != raftReplicaID {
		return 0, false
	}
	return base.RangeID(binary.BigEndian.Uint64(k[2:])), true
}

// RaftTombstone is the key of the lowest replica id that may still exist in this store.
func RaftTombstone(r base.RangeID) []byte { return raftKey(raftTombstone, r, 0) }

// IsRaftTombstone says whether a key is one of RaftTombstone's.
func IsRaftTombstone(k []byte) bool {
	return len(k) == 10 && k[0] == prefixRaft && k[1] == raftTombstone
}

func rangeKey(r base.RangeID, extra int) []byte {
	k := make([]byte, 1, 9+extra)
	k[0] = prefixReplicated
	return binary.BigEndian.AppendUint64(k, uint64(r))
}

// RangeApplied is the key of a range's applied index and term.
func RangeApplied(r base.RangeID) []byte { return append(rangeKey(r, 1), rangeApplied) }

// RangeCounters is the key of a range's counters: revisions.
func RangeCounters(r base.RangeID) []byte { return append(rangeKey(r, 1), rangeCounters) }

// RangeDescriptor is the key of a range's descriptor.
func RangeDescriptor(r base.RangeID) []byte { return append(rangeKey(r, 1), rangeDescriptor) }

// RangeLocalSpan holds all replicated state of a range that is not data.
func RangeLocalSpan(r base.RangeID) Span { return Span{rangeKey(r, 0), prefixEnd(rangeKey(r, 0))} }

// prefixEnd returns the first key after all that begin with k, which it overwrites.
func prefixEnd(k []byte) []byte {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	panic("keys: a prefix of 0xFF only has no end")
}

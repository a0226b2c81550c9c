package keys

import (
	"encoding/binary"
	"fmt"

	"github.com/cairndb/cairn/internal/base"
)

// Pretty writes a key for people: /data/default/"foo"@17, /raft/4/log/123. Bytes that are no key are
// written in hex. Parse reads all of it back.
func Pretty(k []byte) string {
	if len(k) == 0 {
		return "(empty)"
	}
	s := ""
	switch k[0] {
	case prefixStore:
		s = prettyStore(k)
	case prefixRaft:
		s = prettyRaft(k)
	case prefixReplicated:
		s = prettyRange(k)
	case prefixData:
		s = prettyData(k)
	}
	if s == "" {
		return fmt.Sprintf("0x%x", k)
	}
	return s
}

func prettyStore(k []byte) string {
	if len(k) == 2 && storeName(k[1]) != "" {
		return "/store/" + storeName(k[1])
	}
	return ""
}

func storeName(b byte) string {
	switch b {
	case storeIdentity:
		return "identity"
	case storeIncarnation:
		return "incarnation"
	case storeAddressBook:
		return "addressbook"
	case storeConsent:
		return "consent"
	}
	return ""
}

func prettyRaft(k []byte) string {
	if r, index, ok := DecodeRaftLogEntry(k); ok {
		return fmt.Sprintf("/raft/%d/log/%d", r, index)
	}
	if len(k) < 10 {
		return ""
	}
	r := binary.BigEndian.Uint64(k[2:])
	switch {
	case k[1] == raftReplicaID && len(k) == 10:
		return fmt.Sprintf("/raft/%d/replica", r)
	case k[1] == raftTombstone && len(k) == 10:
		return fmt.Sprintf("/raft/%d/tombstone", r)
	case k[1] == raftLocal && len(k) == 10:
		return fmt.Sprintf("/raft/%d", r)
	case k[1] == raftLocal && len(k) == 11 && localName(k[10]) != "":
		return fmt.Sprintf("/raft/%d/%s", r, localName(k[10]))
	}
	return ""
}

func localName(b byte) string {
	switch b {
	case localCompacted:
		return "compacted"
	case localHardState:
		return "hardstate"
	case localTruncated:
		return "truncated"
	case localLogEntry:
		return "log"
	}
	return ""
}

func prettyRange(k []byte) string {
	switch {
	case len(k) == 9:
		return fmt.Sprintf("/range/%d", binary.BigEndian.Uint64(k[1:]))
	case len(k) < 10 || rangeName(k[9]) == "":
		return ""
	}
	s := fmt.Sprintf("/range/%d/%s", binary.BigEndian.Uint64(k[1:]), rangeName(k[9]))
	if len(k) == 10 {
		return s
	}
	if k[9] == rangeLeaseEvicted && len(k) == 11 {
		return fmt.Sprintf("%s/%d", s, k[10])
	}
	lease, key, ok := LeaseOf(k)
	switch {
	case !ok:
		return ""
	case k[9] == rangeLeaseKey:
		return fmt.Sprintf("%s/%x/%q", s, uint64(lease), key)
	}
	return fmt.Sprintf("%s/%x", s, uint64(lease)) // as clients print it
}

func rangeName(b byte) string {
	switch b {
	case rangeApplied:
		return "applied"
	case rangeCounters:
		return "counters"
	case rangeDescriptor:
		return "descriptor"
	case rangeLease:
		return "lease"
	case rangeLeaseGuest:
		return "leaseguest"
	case rangeLeaseKey:
		return "leasekey"
	case rangeLeaseEvicted:
		return "leaseevicted"
	case rangeLeaseGrants:
		return "leasegrants"
	}
	return ""
}

func prettyData(k []byte) string {
	if ks, key, rev, ok := DecodeData(nil, k); ok {
		return fmt.Sprintf("/data/%s/%q@%d", ks, key, rev)
	}
	if len(k) < dataHeader {
		return ""
	}
	ks := base.KeyspaceID(binary.BigEndian.Uint64(k[1:]))
	if len(k) == dataHeader {
		return fmt.Sprintf("/data/%s", ks)
	}
	if EndsAtPrefix(k) {
		if key, ok := appendUnescaped(nil, k[dataHeader:len(k)-2]); ok {
			return fmt.Sprintf("/data/%s/%q", ks, key)
		}
	}
	return ""
}

package keys

import (
	"encoding/binary"
	"fmt"

	"github.com/cairndb/cairn/internal/base"
)

// Pretty writes a key for people: /data/default/"foo"@17, /raft/4/log/123. Bytes that are no key are written in hex.
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
	names := map[byte]string{
		storeIdentity: "identity", storeIncarnation: "incarnation", storeAddressBook: "addressbook", storeConsent: "consent",
	}
	if len(k) == 2 && names[k[1]] != "" {
		return "/store/" + names[k[1]]
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
	case k[1] == raftLocal && len(k) == 11 && k[10] == localHardState:
		return fmt.Sprintf("/raft/%d/hardstate", r)
	case k[1] == raftLocal && len(k) == 11 && k[10] == localCompacted:
		return fmt.Sprintf("/raft/%d/compacted", r)
	case k[1] == raftLocal && len(k) == 11 && k[10] == localTruncated:
		return fmt.Sprintf("/raft/%d/truncated", r)
	case k[1] == raftLocal && len(k) == 11 && k[10] == localLogEntry:
		return fmt.Sprintf("/raft/%d/log", r)
	}
	return ""
}

func prettyRange(k []byte) string {
	names := map[byte]string{rangeApplied: "applied", rangeCounters: "counters", rangeDescriptor: "descriptor"}
	if len(k) == 10 && names[k[9]] != "" {
		return fmt.Sprintf("/range/%d/%s", binary.BigEndian.Uint64(k[1:]), names[k[9]])
	}
	if len(k) == 9 {
		return fmt.Sprintf("/range/%d", binary.BigEndian.Uint64(k[1:]))
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
	if n := Split(k); n == len(k) && n >= dataHeader+2 && k[n-2] == escape && k[n-1] == terminator {
		if key, ok := appendUnescaped(nil, k[dataHeader:n-2]); ok {
			return fmt.Sprintf("/data/%s/%q", ks, key)
		}
	}
	return ""
}

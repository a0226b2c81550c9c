package keys

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/base"
)

// Parse is the inverse of Pretty: it reads keys that people type.
func Parse(s string) ([]byte, error) {
	if s == "(empty)" {
		return []byte{}, nil
	}
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		return hex.DecodeString(digits)
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(s, "/"), "/")
	var k []byte
	switch kind {
	case "store":
		if b, ok := named(storeName, rest); ok {
			k = []byte{prefixStore, b}
		}
	case "raft":
		k = parseRaft(rest)
	case "range":
		k = parseRange(rest)
	case "data":
		k = parseData(rest)
	}
	if k == nil || !strings.HasPrefix(s, "/") {
		return nil, fmt.Errorf("%q is no key; keys look like /data/default/\"foo\"@17, /range/4/descriptor, /raft/4/log/123 or 0x04", s)
	}
	return k, nil
}

// named finds the byte of a name.
func named(name func(byte) string, s string) (byte, bool) {
	for b := range 256 {
		if s != "" && name(byte(b)) == s {
			return byte(b), true
		}
	}
	return 0, false
}

func parseRaft(s string) []byte {
	id, what, some := strings.Cut(s, "/")
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return nil
	}
	r := base.RangeID(n)
	switch {
	case !some:
		return raftKey(raftLocal, r, 0)
	case what == "replica":
		return RaftReplicaID(r)
	case what == "tombstone":
		return RaftTombstone(r)
	}
	if index, ok := strings.CutPrefix(what, "log/"); ok {
		if i, err := strconv.ParseUint(index, 10, 64); err == nil {
			return RaftLogEntry(r, i)
		}
		return nil
	}
	if b, ok := named(localName, what); ok {
		return append(raftKey(raftLocal, r, 1), b)
	}
	return nil
}

func parseRange(s string) []byte {
	id, what, some := strings.Cut(s, "/")
	r, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return nil
	}
	if !some {
		return rangeKey(base.RangeID(r), 0)
	}
	what, rest, more := strings.Cut(what, "/")
	b, ok := named(rangeName, what)
	switch {
	case !ok:
		return nil
	case !more:
		return append(rangeKey(base.RangeID(r), 1), b)
	}
	return parseLease(base.RangeID(r), b, rest)
}

func parseLease(r base.RangeID, sub byte, s string) []byte {
	if sub == rangeLeaseEvicted {
		group, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return nil
		}
		return RangeLeaseEvicted(r, byte(group))
	}
	digits, quoted, some := strings.Cut(s, "/")
	id, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || some != (sub == rangeLeaseKey) {
		return nil
	}
	switch sub {
	case rangeLease, rangeLeaseGuest:
		return leaseKey(r, sub, int64(id), 0)
	case rangeLeaseKey:
		if key, err := strconv.Unquote(quoted); err == nil && quoted[0] == '"' {
			return RangeLeaseKey(r, int64(id), []byte(key))
		}
	}
	return nil
}

func parseData(s string) []byte {
	name, rest, some := strings.Cut(s, "/")
	ks, ok := parseKeyspace(name)
	if !ok {
		return nil
	}
	if !some {
		return dataStart(nil, ks)
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil || quoted[0] != '"' {
		return nil
	}
	key, err := strconv.Unquote(quoted)
	if err != nil {
		return nil
	}
	after := rest[len(quoted):]
	if after == "" {
		return DataPrefix(nil, ks, []byte(key))
	}
	at, ok := strings.CutPrefix(after, "@")
	rev, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || rev < 0 {
		return nil
	}
	return Data(nil, ks, []byte(key), base.Revision(rev))
}

func parseKeyspace(name string) (base.KeyspaceID, bool) {
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		if ks.String() == name {
			return ks, true
		}
	}
	digits, ok := strings.CutPrefix(name, "ks")
	digits, single := strings.CutSuffix(digits, "s")
	n, err := strconv.ParseUint(digits, 10, 64)
	ks := base.KeyspaceID(n)
	if single {
		ks = ks.AsSingle()
	}
	return ks, ok && err == nil && ks.String() == name // one name each: what is single is not written otherwise
}

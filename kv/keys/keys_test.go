package keys_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

func FuzzDataKey(f *testing.F) {
	f.Add(uint64(4), []byte("foo"), uint64(17), []byte("foo\x00"), uint64(3))
	f.Add(uint64(1<<63), []byte{0, 0xFF, 0, 1}, uint64(1), []byte{0}, uint64(2))
	f.Fuzz(func(t *testing.T, ks uint64, a []byte, ra uint64, b []byte, rb uint64) {
		ks, ra, rb = ks>>1, ra>>1, rb>>1
		ka := keys.Data(nil, base.KeyspaceID(ks), a, base.Revision(ra))
		kb := keys.Data(nil, base.KeyspaceID(ks), b, base.Revision(rb))
		gotKS, got, rev, ok := keys.DecodeData(nil, ka)
		if !ok || uint64(gotKS) != ks || !bytes.Equal(got, a) || uint64(rev) != ra {
			t.Fatalf("%q@%d decodes as %q@%d, %v", a, ra, got, rev, ok)
		}
		want := bytes.Compare(a, b)
		if want == 0 && ra != rb {
			if want = 1; ra > rb {
				want = -1 // the newest first
			}
		}
		if got := bytes.Compare(ka, kb); got != want {
			t.Fatalf("%q@%d and %q@%d compare as %d, want %d", a, ra, b, rb, got, want)
		}
		p := keys.DataPrefix(nil, base.KeyspaceID(ks), a)
		if n := keys.Split(ka); !bytes.Equal(ka[:n], p) || keys.Split(p) != len(p) {
			t.Fatalf("prefix of %q: %x of %x", a, ka[:n], ka)
		}
		s := keys.DataSpan(base.KeyspaceID(ks), a, nil)
		if bytes.Compare(s.Start, ka) > 0 || bytes.Compare(s.End, ka) <= 0 {
			t.Fatalf("the span from %q does not hold it", a)
		}
		if len(b) > 0 {
			s = keys.DataSpan(base.KeyspaceID(ks), nil, b)
			if in := bytes.Compare(ka, s.End) < 0; in != (bytes.Compare(a, b) < 0) {
				t.Fatalf("the span up to %q holds %q: %v", b, a, in)
			}
		}
	})
}

// Bytes that are no key never make anything fail.
func FuzzAnyBytes(f *testing.F) {
	for _, k := range named() {
		f.Add(k)
	}
	f.Add([]byte{4})
	f.Add([]byte("\x04\x00\x00\x00\x00\x00\x00\x00\x04a\x00\x00\x01\x00\x01b")) // an escape that nothing writes
	f.Fuzz(func(t *testing.T, k []byte) {
		if n := keys.Split(k); n < 0 || n > len(k) {
			t.Fatalf("Split(%x) = %d", k, n)
		}
		if back, err := keys.Parse(keys.Pretty(k)); err != nil || !bytes.Equal(back, k) {
			t.Fatalf("%x prints as %s, which is read as %x, %v", k, keys.Pretty(k), back, err)
		}
		if p := k[:keys.Split(k)]; keys.Split(p) != len(p) || keys.EndsAtPrefix(p) != (keys.Split(append(p[:len(p):len(p)], 7)) == len(p)) {
			t.Fatalf("%x: prefix %x", k, p)
		}
		if ks, key, rev, ok := keys.DecodeData(nil, k); ok && !bytes.Equal(keys.Data(nil, ks, key, rev), k) {
			t.Fatalf("%x decodes, and encodes as something else", k)
		}
		if r, i, ok := keys.DecodeRaftLogEntry(k); ok && !bytes.Equal(keys.RaftLogEntry(r, i), k) {
			t.Fatalf("%x decodes, and encodes as something else", k)
		}
	})
}

// named is one key of each kind.
func named() map[string][]byte {
	return map[string][]byte{
		"identity": keys.StoreIdentity(), "incarnation": keys.StoreIncarnation(), "address-book": keys.StoreAddressBook(),
		"consent": keys.StoreConsent(), "hard-state": keys.RaftHardState(4), "truncated": keys.RaftTruncated(4),
		"compacted": keys.RaftCompacted(4), "entry": keys.RaftLogEntry(4, 123), "log": keys.RaftLogSpan(4).Start,
		"replica": keys.RaftReplicaID(4), "tombstone": keys.RaftTombstone(4), "raft": keys.UnreplicatedSpan(4).Start,
		"applied": keys.RangeApplied(4), "counters": keys.RangeCounters(4), "descriptor": keys.RangeDescriptor(4),
		"range": keys.RangeLocalSpan(4).Start, "range-end": keys.RangeLocalSpan(4).End,
		"lease": keys.RangeLease(4, 0x1234), "negative-lease": keys.RangeLease(4, -1), "lease-guest": keys.RangeLeaseGuest(4, 0x1234),
		"lease-key": keys.RangeLeaseKey(4, 0x1234, []byte("foo")), "lease-keys": keys.RangeLeaseKeySpan(4, 0x1234, nil).Start,
		"lease-keys-end": keys.RangeLeaseKeySpan(4, 0x1234, nil).End, "leases": keys.RangeLeaseSpan(4, 0).Start, "leases-end": keys.RangeLeaseSpan(4, 0).End,
		"lease-evicted": keys.RangeLeaseEvicted(4, 7), "lease-grants": keys.RangeLeaseGrants(4),
		"data": keys.Data(nil, base.KeyspaceDefault, []byte("a\x00b"), 17), "prefix": keys.DataPrefix(nil, 9, []byte("foo")),
		"binary":   keys.Data(nil, base.KeyspaceSys, []byte("\xff\"/@\n"), 0),
		"keyspace": keys.KeyspaceSpan(base.KeyspaceMeta).Start, "keyspace-end": keys.KeyspaceSpan(base.KeyspaceMeta).End,
		"no-revision": append(keys.DataPrefix(nil, 4, []byte("a")), make([]byte, 8)...), "unknown": {9, 1}, "empty": {},
	}
}

func TestPretty(t *testing.T) {
	all := named()
	asked := map[string]bool{}
	datadriven.RunTest(t, "testdata/pretty", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "parse" {
			k, err := keys.Parse(d.Input)
			if err != nil {
				return "error\n"
			}
			return fmt.Sprintf("%x\n", k)
		}
		asked[d.CmdArgs[0].Key] = true
		k, ok := all[d.CmdArgs[0].Key]
		if !ok {
			d.Fatalf(t, "no such key")
		}
		return keys.Pretty(k) + "\n"
	})
	for name := range all {
		if !asked[name] {
			t.Errorf("testdata/pretty does not ask for %s", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range named() {
		f.Add(keys.Pretty(k))
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := keys.Parse(s)
		if err != nil {
			return
		}
		if back, err := keys.Parse(keys.Pretty(k)); err != nil || !bytes.Equal(back, k) {
			t.Fatalf("%s is read as %x, which prints as %s", s, k, keys.Pretty(k))
		}
	})
}

// What belongs to one range lies in its spans, and nothing of another range does; the tombstone outlives its replica.
func TestSpans(t *testing.T) {
	in := func(s keys.Span, k []byte) bool { return bytes.Compare(k, s.Start) >= 0 && bytes.Compare(k, s.End) < 0 }
	for _, r := range []base.RangeID{1, 255, 256, 1<<64 - 2} {
		for _, k := range [][]byte{keys.RaftHardState(r), keys.RaftTruncated(r), keys.RaftCompacted(r), keys.RaftLogEntry(r, 1), keys.RaftLogEntry(r, 1<<64-1)} {
			if !in(keys.UnreplicatedSpan(r), k) || in(keys.UnreplicatedSpan(r+1), k) || in(keys.UnreplicatedSpan(r-1), k) {
				t.Errorf("%s is not where it belongs", keys.Pretty(k))
			}
		}
		if in(keys.UnreplicatedSpan(r), keys.RaftTombstone(r)) || in(keys.UnreplicatedSpan(r), keys.RaftReplicaID(r)) {
			t.Errorf("r%d: tombstone or replica id would be deleted with the replica's state", r)
		}
		if !in(keys.RaftReplicaIDSpan(), keys.RaftReplicaID(r)) || in(keys.RaftLogSpan(r), keys.RaftHardState(r)) {
			t.Errorf("r%d: replica id or log span", r)
		}
		for _, k := range [][]byte{keys.RangeApplied(r), keys.RangeCounters(r), keys.RangeDescriptor(r), keys.RangeLease(r, -1),
			keys.RangeLeaseGuest(r, 1), keys.RangeLeaseKey(r, -1, []byte("\xff")), keys.RangeLeaseEvicted(r, 255), keys.RangeLeaseGrants(r)} {
			if !in(keys.RangeLocalSpan(r), k) || in(keys.RangeLocalSpan(r+1), k) {
				t.Errorf("%s is not where it belongs", keys.Pretty(k))
			}
		}
	}
}

// The keys of leases are taken apart as they were made, and each lies in its span and in no other.
func TestLeaseKeys(t *testing.T) {
	in := func(s keys.Span, k []byte) bool { return bytes.Compare(k, s.Start) >= 0 && bytes.Compare(k, s.End) < 0 }
	for _, id := range []int64{1, 255, 1 << 40, 1<<63 - 1, -1 << 63, -1} {
		for _, key := range []string{"", "a", "\xff\xff", "\x00"} {
			k := keys.RangeLeaseKey(4, id, []byte(key))
			if got, user, ok := keys.LeaseOf(k); !ok || got != id || string(user) != key {
				t.Errorf("%x of %q is taken for %x of %q", id, key, got, user)
			}
			if !in(keys.RangeLeaseKeySpan(4, id, nil), k) || in(keys.RangeLeaseKeySpan(4, id+1, nil), k) || !in(keys.RangeLeaseKeysSpan(4), k) || in(keys.RangeLeaseGuestSpan(4), k) || in(keys.RangeLeaseSpan(4, 0), k) {
				t.Errorf("%s is not where it belongs", keys.Pretty(k))
			}
		}
		for _, k := range [][]byte{keys.RangeLease(4, id), keys.RangeLeaseGuest(4, id)} {
			if got, _, ok := keys.LeaseOf(k); !ok || got != id {
				t.Errorf("%x is taken for %x", id, got)
			}
			if in(keys.RangeLeaseSpan(4, 0), k) == in(keys.RangeLeaseGuestSpan(4), k) || in(keys.RangeLeaseKeysSpan(4), k) || in(keys.RangeLeaseEvictedSpan(4), k) {
				t.Errorf("%s is not where it belongs", keys.Pretty(k))
			}
		}
	}
	for _, k := range [][]byte{keys.RangeLeaseEvicted(4, 1), keys.RangeLeaseGrants(4), append(keys.RangeLease(4, 1), 0), keys.RangeLeaseSpan(4, 1).End, {3}} {
		if id, _, ok := keys.LeaseOf(k); ok {
			t.Errorf("%s is taken for lease %x", keys.Pretty(k), id)
		}
	}
}

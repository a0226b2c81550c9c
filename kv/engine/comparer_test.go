package engine

import (
	"bytes"
	"testing"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// The laws that Pebble states for a comparer's Split and Compare, over keys of every kind. Its own mini test suite also
// wants prefixes without their first bytes to be prefixes, which matters for synthetic prefixes of external tables only;
// the engine has none.
func TestComparer(t *testing.T) {
	var all [][]byte
	for _, k := range []string{"a", "a\x00", "a\x00\x01", "a\x00\xff", "a\x01", "ab", "b", "\xff", ""} {
		all = append(all, keys.DataPrefix(nil, 4, []byte(k)))
		for _, rev := range []base.Revision{1 << 62, 300, 255, 2, 1, 0} {
			all = append(all, keys.Data(nil, 4, []byte(k), rev))
		}
	}
	all = append(all, keys.RaftHardState(3), keys.RangeDescriptor(4), keys.RaftLogEntry(1, 7), keys.KeyspaceSpan(4).Start,
		keys.DataSpan(4, nil, []byte("b")).End, []byte{4, 0}, []byte{4})
	prefix := func(k []byte) []byte { return k[:comparer.Split(k)] }
	for _, a := range all {
		if p := prefix(a); len(p) < len(a) && comparer.Compare(p, a) >= 0 || !bytes.Equal(prefix(p), p) {
			t.Errorf("%s: its prefix %s does not sort before it, or is no prefix", keys.Pretty(a), keys.Pretty(p))
		}
		next := comparer.ImmediateSuccessor(nil, prefix(a))
		if comparer.Compare(a, next) >= 0 || !bytes.Equal(prefix(next), next) {
			t.Errorf("%s: successor %x", keys.Pretty(a), next)
		}
		for _, b := range all {
			c, p := comparer.Compare(a, b), bytes.Compare(prefix(a), prefix(b))
			if p == 0 {
				p = comparer.ComparePointSuffixes(a[comparer.Split(a):], b[comparer.Split(b):])
			}
			if c != p || (c == 0) != comparer.Equal(a, b) {
				t.Errorf("%s and %s compare as %d, by prefix and suffix as %d", keys.Pretty(a), keys.Pretty(b), c, p)
			}
			if q := prefix(b); c < 0 && comparer.Compare(next, q) > 0 && !bytes.Equal(q, prefix(a)) {
				t.Errorf("%s lies between %s and its immediate successor", keys.Pretty(q), keys.Pretty(a))
			}
			if c >= 0 {
				continue
			}
			if s := comparer.Separator(nil, a, b); comparer.Compare(a, s) > 0 || comparer.Compare(s, b) >= 0 {
				t.Errorf("separator of %s and %s: %x", keys.Pretty(a), keys.Pretty(b), s)
			}
		}
	}
}

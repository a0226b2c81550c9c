package engine

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// Pebble's own laws of a comparer, on prefixes and revisions as they occur.
func TestComparer(t *testing.T) {
	var prefixes [][]byte
	for _, k := range []string{"a", "a\x00", "a\x00\x01", "a\x01", "ab", "b", "\xff"} {
		prefixes = append(prefixes, keys.DataPrefix(nil, base.KeyspaceDefault, []byte(k)))
	}
	var suffixes [][]byte
	suffixes = append(suffixes, nil)
	for _, rev := range []base.Revision{1 << 62, 300, 255, 2, 1, 0} {
		suffixes = append(suffixes, keys.Data(nil, 4, []byte("k"), rev)[len(keys.DataPrefix(nil, 4, []byte("k"))):])
	}
	if err := pebble.CheckComparer(comparer, prefixes, suffixes); err != nil {
		t.Error(err)
	}
	for _, k := range [][]byte{keys.RaftHardState(3), keys.RangeDescriptor(4), keys.RaftLogEntry(1, 7), {4, 0}} {
		next := comparer.ImmediateSuccessor(nil, k)
		if comparer.Compare(k, next) >= 0 || keys.Split(next) != len(next) {
			t.Errorf("%s: successor %x", keys.Pretty(k), next)
		}
	}
}

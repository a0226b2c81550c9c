package jepsen

import (
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability/workloads"
)

// Ranges cover each keyspace once, or it is said where they do not.
func TestTile(t *testing.T) {
	r := func(keyspace, id uint64, start, end string) *clusterpb.IndexedRange {
		return &clusterpb.IndexedRange{Keyspace: "k", Descriptor_: &metapb.RangeDescriptor{RangeId: id, KeyspaceId: keyspace, Start: []byte(start), End: []byte(end)}}
	}
	for _, c := range []struct {
		name string
		all  []*clusterpb.IndexedRange
		says string
	}{
		{"in any order", []*clusterpb.IndexedRange{r(5, 2, "m", ""), r(4, 1, "", ""), r(5, 3, "", "c"), r(5, 4, "c", "m")}, ""},
		{"a gap", []*clusterpb.IndexedRange{r(5, 2, "", "c"), r(5, 3, "m", "")}, "before range 3"},
		{"an overlap", []*clusterpb.IndexedRange{r(5, 2, "", "n"), r(5, 3, "m", "")}, "before range 3"},
		{"the same twice", []*clusterpb.IndexedRange{r(5, 2, "", ""), r(5, 3, "", "")}, "before range 3"},
		{"no beginning", []*clusterpb.IndexedRange{r(4, 1, "", ""), r(5, 2, "a", "")}, "before range 2"},
		{"no end", []*clusterpb.IndexedRange{r(4, 1, "", "z"), r(5, 2, "", "")}, "behind range 1"},
		{"nothing", nil, "no ranges"},
	} {
		err := tile(c.all)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// A cut is drawn beside what clients of the keyspace of many ranges use, and not within what is one operation's.
func TestCut(t *testing.T) {
	rec, err := newRecorder(filepath.Join(t.TempDir(), "history"), noClock, nil)
	if err != nil {
		t.Fatal(err)
	}
	spread := keyspace{id: 9, name: spreadName}
	l := &load{record: rec}
	for _, name := range []string{"register", "spread", "spread-append"} {
		k, _ := workloads.Named(name)
		l.works = append(l.works, newWork(k, stagePrefix(0)+name+"/", spread))
	}
	rand := base.NewRand(1)
	if key := l.cut(spread.id, rand); key != nil {
		t.Errorf("%q, and nothing was used yet", key)
	}
	rec.invoke(1, base.KeyspaceDefault, &etcdserverpb.RangeRequest{Key: []byte("s000/register/r/0.1")}, false)
	rec.invoke(1, spread.id, &etcdserverpb.RangeRequest{Key: []byte("s000/spread/r/0.1")}, false)
	rec.invoke(1, spread.id, &etcdserverpb.PutRequest{Key: []byte("s000/spread-append/a/0.1/2")}, false)
	drawn := map[string]bool{}
	for range 100 {
		drawn[string(l.cut(spread.id, rand))] = true
	}
	delete(drawn, "") // the draw met only the other keyspace
	if len(drawn) != 2 || !drawn["s000/spread/r/0.1"] || !drawn["s000/spread-append/a/0.1/"] {
		t.Errorf("cuts at %v", drawn)
	}
	if err := rec.close(); err != nil {
		t.Fatal(err)
	}
}

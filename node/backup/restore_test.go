package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/archive"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/node/store"
)

const shardsID = 107 // keyspaces keep their ids

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample is a file with two keyspaces, history, and three leases that hold keys, of which one is not in it.
func sample(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample.snap")
	f, err := os.Create(path)
	must(t, err)
	w, err := archive.NewWriter(f, &archivepb.Beginning{ClusterId: 7, ClusterCreatedUnixMicros: 1000})
	must(t, err)
	must(t, w.Keyspace(&archivepb.Keyspace{Name: "default", Single: true, Revision: 12, KeyspaceId: uint64(base.KeyspaceDefault)}))
	must(t, w.Leases([]*kvpb.LeaseRecord{{Id: 0x10, Ttl: 10, GrantedRevision: 5}, {Id: 0x11, Ttl: 11, GrantedRevision: 6}}))
	versions(t, w,
		put("a", 9, 0x10), put("a", 4, 0x11), // only its newest version counts
		put("gone", 8, 0x12), gone("was", 7), put("was", 3, 0x11))
	must(t, w.EndKeyspace(3))
	must(t, w.Keyspace(&archivepb.Keyspace{Name: "shards", Revision: 5_000_000, KeyspaceId: shardsID}))
	must(t, w.Leases([]*kvpb.LeaseRecord{{Id: 0x20, Ttl: 20, GrantedRevision: 3, Spans: []*kvpb.LeaseSpan{{Start: []byte("x")}}}}))
	versions(t, w, put("x", 4_000_000, 0x20))
	must(t, w.EndKeyspace(-1))
	must(t, w.Close())
	must(t, f.Close())
	return path
}

func put(key string, rev base.Revision, lease int64) *archive.Version {
	return &archive.Version{Key: []byte(key), Revision: rev, Record: eval.AppendRecord(nil, &eval.Record{Create: rev, Mod: rev, Version: 1, Lease: lease, Value: []byte("v")})}
}

func gone(key string, rev base.Revision) *archive.Version {
	return &archive.Version{Key: []byte(key), Revision: rev, Record: eval.AppendRecord(nil, &eval.Record{Mod: rev, Tombstone: true})}
}

func versions(t *testing.T, w *archive.Writer, all ...*archive.Version) {
	t.Helper()
	var e archive.Encoder
	for _, v := range all {
		e.Add(v)
	}
	n := e.Count()
	must(t, w.Versions(e.Payload(), uint64(n)))
}

// opened is a store that was made.
func opened(t *testing.T, dir string) engine.Engine {
	t.Helper()
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: dir, CacheBytes: 1 << 20, OnFatal: func(err error) { t.Error(err) }})
	must(t, err)
	t.Cleanup(func() { must(t, eng.Close()) })
	return eng
}

// printed is all that a store holds of a range but its data, and its keyspace's data.
func printed(t *testing.T, eng engine.Engine, id base.RangeID) string {
	t.Helper()
	v, err := apply.ReadView(eng, id)
	must(t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "%s revision %d, compacted %d\n", base.KeyspaceID(v.Descriptor.KeyspaceId), v.Counters.Revision, v.Counters.Compacted)
	leases, _, err := eval.ReadLeases(eng, id, 0, 100)
	must(t, err)
	for _, l := range leases {
		held, _, err := eval.ReadLeaseKeys(eng, id, l.Id, nil, 100)
		must(t, err)
		fmt.Fprintf(&b, "lease %x of %d s, grant %d, ending %t, in %d spans, holds %q\n", l.Id, l.Ttl, l.GrantedRevision, l.Ending, len(l.Spans), held)
	}
	it, err := eng.NewIter(engine.IterOptions{Lower: apply.Spans(v.Descriptor)[1].Start, Upper: apply.Spans(v.Descriptor)[1].End})
	must(t, err)
	defer func() { must(t, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		_, key, rev, _ := keys.DecodeData(nil, it.Key())
		fmt.Fprintf(&b, "%s at %d\n", key, rev)
	}
	return b.String()
}

func TestRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub", "store")
	made, err := Restore(RestoreConfig{File: sample(t), Dir: dir})
	must(t, err)
	eng := opened(t, dir)
	id, err := store.ReadIdentity(eng)
	must(t, err)
	if id.ClusterId != made.ClusterID || id.ClusterId == 7 || id.ClusterId == 0 || id.NodeId != 1 || len(id.StoreUuid) != 16 || id.ClusterCreatedUnixMicros != 1000 {
		t.Errorf("identity %v", id)
	}
	// A lease that is not in the file was revoked since: it is to end, and with it its keys.
	want := `default revision 12, compacted 3
lease 10 of 10 s, grant 5, ending false, in 0 spans, holds ["a"]
lease 11 of 11 s, grant 6, ending false, in 0 spans, holds []
lease 12 of 1 s, grant 7, ending true, in 0 spans, holds ["gone"]
a at 9
a at 4
gone at 8
was at 7
was at 3
`
	if got := printed(t, eng, base.RangeDefault); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `ks107 revision 5000000, compacted -1
lease 20 of 20 s, grant 3, ending false, in 0 spans, holds ["x"]
x at 4000000
`
	if got := printed(t, eng, base.FirstFreeID); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := printed(t, eng, base.RangeSys); !strings.Contains(got, "keyspace/shards at ") || !strings.Contains(got, "counter/keyspace at ") {
		t.Errorf("got\n%s", got)
	}
}

// TestBump: revisions go on above what clients may have seen, and whoever asks for what lies between is told that it is compacted.
func TestBump(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	_, err := Restore(RestoreConfig{File: sample(t), Dir: dir, BumpRevision: 1000, MarkCompacted: true, UnixMicros: func() int64 { return 9_001_000 }})
	must(t, err)
	eng := opened(t, dir)
	for id, want := range map[base.RangeID]string{
		base.RangeDefault: "default revision 1012, compacted 1012\n", base.FirstFreeID: "ks107 revision 9000000, compacted 9000000\n",
	} {
		if got := printed(t, eng, id); !strings.HasPrefix(got, want) {
			t.Errorf("got\n%s", got)
		}
	}
	if err := (&RestoreConfig{File: "f", Dir: "d", BumpRevision: 1}).Validate(); err == nil {
		t.Error("revisions are bumped, and nobody is told")
	}
}

// TestRefused: what cannot be restored leaves nothing behind, and what is there as it was.
func TestRefused(t *testing.T) {
	file := sample(t)
	raw, err := os.ReadFile(file)
	must(t, err)
	at := filepath.Dir(file)
	write := func(name string, b []byte) string {
		path := filepath.Join(at, name)
		must(t, os.WriteFile(path, b, 0o600))
		return path
	}
	flipped := bytes.Clone(raw)
	flipped[len(flipped)/2] ^= 4
	store := filepath.Join(at, "store")
	for name, says := range map[string]string{
		write("cut", raw[:len(raw)-1]):          "is damaged at byte",
		write("flipped", flipped):               "is damaged at byte",
		write("other", []byte("another file")):  "is no snapshot of Cairn's",
		filepath.Join(at, "missing"):            "no such file",
		write("longer", append(raw[:], raw...)): "goes on where it should end",
	} {
		_, err := Restore(RestoreConfig{File: name, Dir: store})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := filepath.Glob(store + "*"); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	_, err = Restore(RestoreConfig{File: file, Dir: store})
	must(t, err)
	before, err := os.ReadDir(store)
	must(t, err)
	var refused *base.Refused
	if _, err = Restore(RestoreConfig{File: file, Dir: store}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("over a store: %v", err)
	}
	if after, err := os.ReadDir(store); err != nil || len(after) != len(before) {
		t.Errorf("%d files, and there were %d: %v", len(after), len(before), err)
	}
	other := filepath.Join(at, "other-store")
	must(t, os.Mkdir(other+".restoring", 0o755))
	if _, err = Restore(RestoreConfig{File: file, Dir: other}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "broken off") {
		t.Errorf("beside another restore: %v", err)
	}
	if _, err := os.Stat(other + ".restoring"); err != nil {
		t.Errorf("another restore's folder is gone: %v", err)
	}
}

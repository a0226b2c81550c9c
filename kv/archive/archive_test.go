package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// script is what is written to a file, as text: what is read from it is compared with that.
type script []string

func (s *script) add(format string, args ...any) error {
	*s = append(*s, fmt.Sprintf(format, args...))
	return nil
}

// visitor writes down all that a file holds.
func (s *script) visitor() *Visitor {
	return &Visitor{
		Beginning: func(b *archivepb.Beginning) error { return s.add("cluster %d", b.ClusterId) },
		Keyspace:  func(k *archivepb.Keyspace) error { return s.add("keyspace %s at %d", k.Name, k.Revision) },
		Version: func(v *Version, rec *eval.Record) error {
			return s.add("%q %d %d %q %t", v.Key, v.Revision, rec.Create, rec.Value, rec.Tombstone)
		},
		Leases: func(l *archivepb.Leases) error {
			for _, rec := range l.Leases {
				_ = s.add("lease %x of %d s", uint64(rec.Id), rec.Ttl) // it does not fail
			}
			return nil
		},
		KeyspaceEnd: func(e *archivepb.KeyspaceEnd) error { return s.add("compacted %d", e.Compacted) },
		Ending:      func(e *archivepb.Ending) error { return s.add("%d keyspaces", e.Keyspaces) },
	}
}

// version is a key's, with some record.
func version(key string, rev int64, value string) *Version {
	r := eval.Record{Create: 1, Mod: base.Revision(rev), Version: rev, Value: []byte(value), Tombstone: value == ""}
	if r.Tombstone {
		r.Create, r.Version, r.Value = 0, 0, nil
	}
	return &Version{Key: []byte(key), Revision: r.Mod, Record: eval.AppendRecord(nil, &r)}
}

// sample is a small file with all kinds of blocks, and what is in it.
func sample(t testing.TB) []byte {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, &archivepb.Beginning{ClusterId: 7, Writer: "test"})
	must(t, err)
	must(t, w.Keyspace(&archivepb.Keyspace{Name: "default", Single: true, Revision: 9}))
	must(t, w.Leases([]*kvpb.LeaseRecord{{Id: 3, Ttl: 10, GrantedRevision: 1}, {Id: -1, Ttl: 60, GrantedRevision: 2}}))
	var e Encoder
	for _, v := range []*Version{version("a", 9, "new"), version("a", 3, "old"), version("ab", 5, ""), version("b", 2, "x")} {
		e.Add(v)
	}
	n := e.Count()
	must(t, w.Versions(e.Payload(), uint64(n)))
	e.Add(version("ba", 8, strings.Repeat("long", 50)))
	must(t, w.Versions(e.Payload(), 1))
	must(t, w.EndKeyspace(3))
	must(t, w.Keyspace(&archivepb.Keyspace{Name: "empty", Revision: 1, KeyspaceId: 100}))
	must(t, w.EndKeyspace(-1))
	must(t, w.Close())
	return buf.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadWhatWasWritten(t *testing.T) {
	file := sample(t)
	if len(file)%512 != 32 {
		t.Errorf("%d bytes: etcd's client would not take it", len(file))
	}
	var got script
	s, err := Read(bytes.NewReader(file), got.visitor())
	want := script{
		"cluster 7", "keyspace default at 9", "lease 3 of 10 s", "lease ffffffffffffffff of 60 s",
		`"a" 9 1 "new" false`, `"a" 3 1 "old" false`, `"ab" 5 0 "" true`, `"b" 2 1 "x" false`, `"ba" 8 1 "` + strings.Repeat("long", 50) + `" false`,
		"compacted 3", "keyspace empty at 1", "compacted -1", "2 keyspaces",
	}
	if err != nil || s.Bytes != int64(len(file)) || !bytes.HasSuffix(file, s.SHA256[:]) || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%v, %d of %d bytes:\n%s", err, s.Bytes, len(file), strings.Join(got, "\n"))
	}
}

// TestEveryBit: a file with any one bit changed is refused, and the error says about where: not behind the bit's block.
func TestEveryBit(t *testing.T) {
	file := sample(t)
	for i := range file {
		for bit := range 8 {
			file[i] ^= 1 << bit
			_, err := Read(bytes.NewReader(file), &Visitor{})
			var damaged *Damaged
			var foreign *Foreign
			switch {
			case i < len(magic) && errors.As(err, &foreign):
			case i >= len(magic) && errors.As(err, &damaged):
			default:
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
			file[i] ^= 1 << bit
		}
	}
}

// TestEveryCut: a file that is cut short anywhere is refused, and so is one with something behind it.
func TestEveryCut(t *testing.T) {
	file := sample(t)
	for n := range file {
		_, err := Read(bytes.NewReader(file[:n]), &Visitor{})
		var damaged *Damaged
		var foreign *Foreign
		if n < len(magic) && !errors.As(err, &foreign) || n >= len(magic) && (!errors.As(err, &damaged) || damaged.At > int64(n)) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Read(bytes.NewReader(append(file, 0)), &Visitor{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("at byte ", len(file))) {
		t.Fatalf("with a byte more: %v", err)
	}
}

// TestBlocksAtOtherPlaces: blocks that are whole, and doubled, left out or exchanged, are refused for where they are.
func TestBlocksAtOtherPlaces(t *testing.T) {
	file := sample(t)
	var at []int // of each block
	for i := len(magic); Kind(file[i]) != Ending; i += headerLen + int(file[i+3])<<8 + int(file[i+4]) {
		at = append(at, i)
	}
	for k := range len(at) - 1 {
		block := file[at[k]:at[k+1]]
		lost := append(bytes.Clone(file[:at[k]]), file[at[k+1]:]...)
		doubled := append(append(bytes.Clone(file[:at[k+1]]), block...), file[at[k+1]:]...)
		for what, b := range map[string][]byte{"lost": lost, "doubled": doubled} {
			var damaged *Damaged
			if _, err := Read(bytes.NewReader(b), &Visitor{}); !errors.As(err, &damaged) || damaged.At < int64(at[k]) {
				t.Errorf("block %d %s: %v", k, what, err)
			}
		}
	}
}

// TestForeign: what never was a snapshot is told from one that is damaged, and etcd's is recognised.
func TestForeign(t *testing.T) {
	bolt := make([]byte, 4096)
	copy(bolt[16:], []byte{0xED, 0xDA, 0x0C, 0xED}) // the lowest byte first
	for want, b := range map[string][]byte{"it is empty": nil, "other bytes": []byte("hello, world; hello, world"), "etcd's": bolt} {
		var foreign *Foreign
		if _, err := Read(bytes.NewReader(b), &Visitor{}); !errors.As(err, &foreign) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not %s", err, want)
		}
	}
}

// TestVersionsLaw: what an Encoder has made is taken apart into the same versions.
func TestVersionsLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Encoder
		var want []string
		for range rapid.IntRange(0, 50).Draw(t, "versions") {
			v := version(rapid.StringMatching(`[ab]{0,6}`).Draw(t, "key"), rapid.Int64Range(2, 1<<62).Draw(t, "rev"), rapid.StringN(0, 9, 9).Draw(t, "value"))
			e.Add(v)
			want = append(want, fmt.Sprintf("%q %d %x", v.Key, v.Revision, v.Record))
		}
		if e.Count() != len(want) {
			t.Fatalf("%d of %d counted", e.Count(), len(want))
		}
		var got []string
		if err := EachVersion(e.Payload(), func(v *Version) error {
			got = append(got, fmt.Sprintf("%q %d %x", v.Key, v.Revision, v.Record))
			return nil
		}); err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%v\ngot  %v\nwant %v", err, got, want)
		}
	})
}

// FuzzRead: no bytes make the reader fail in another way than by saying what is wrong, and what it takes is what a writer would write.
func FuzzRead(f *testing.F) {
	file := sample(f)
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s script
		sum, err := Read(bytes.NewReader(b), s.visitor())
		var damaged *Damaged
		var foreign *Foreign
		switch {
		case err == nil && (sum.Bytes != int64(len(b)) || len(b)%512 != 32):
			t.Fatalf("%d of %d bytes were read", sum.Bytes, len(b))
		case err != nil && !errors.As(err, &damaged) && !errors.As(err, &foreign):
			t.Fatal(err)
		case damaged != nil && (damaged.At < 0 || damaged.At > int64(len(b))):
			t.Fatalf("%v, of %d bytes", err, len(b))
		}
	})
}

// FuzzVersions: no payload is taken apart but one that is made of just these versions.
func FuzzVersions(f *testing.F) {
	var e Encoder
	e.Add(version("key", 7, "value"))
	e.Add(version("key", 3, ""))
	f.Add(e.Payload())
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Encoder
		if EachVersion(b, func(v *Version) error { e.Add(v); return nil }) != nil {
			return
		}
		var again Encoder
		first := e.Payload()
		if err := EachVersion(first, func(v *Version) error { again.Add(v); return nil }); err != nil || !bytes.Equal(first, again.Payload()) {
			t.Fatalf("%x became %x: %v", b, first, err)
		}
	})
}

// FuzzBlocks: blocks whose checksums are right, whatever is in them: of a kind each, with a payload.
func FuzzBlocks(f *testing.F) {
	var e Encoder
	e.Add(version("k", 2, "v"))
	payload := e.Payload()
	f.Add([]byte{1, 0, 2, 6, 0x0a, 0x01, 'd', 0x18, 0x09, 0, byte(Versions), byte(len(payload))}, payload)
	f.Fuzz(func(t *testing.T, b, rest []byte) {
		var file bytes.Buffer
		w, err := NewWriter(&file, &archivepb.Beginning{})
		must(t, err)
		b = append(b, rest...)
		for len(b) >= 2 {
			k, n := Kind(b[0]), min(int(b[1]), len(b)-2)
			must(t, w.block(k, b[2:2+n]))
			b = b[2+n:]
		}
		must(t, w.Close())
		_, err = Read(bytes.NewReader(file.Bytes()), new(script).visitor())
		var damaged *Damaged
		if err != nil && !errors.As(err, &damaged) {
			t.Fatal(err)
		}
	})
}

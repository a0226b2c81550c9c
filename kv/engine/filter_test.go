package engine_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// What a lowest revision lets Pebble leave out: blocks and tables of older revisions, and never anything newer.
//
//	write from=R keys=N [stride=S]   N keys of 100 bytes from key 0 on, of revisions R, R+S, …; in one table
//	local keys=N                     keys of ranges, which have no revision; in one table
//	delete-range from=K to=K         all versions of the keys [from, to); in one table
//	scan [min=R]                     how many keys are seen, and how many of them are at or above R
//	newer min=R                      the same without the older ones: what compactions in the background do, they do
//	                                 not tell
func TestRevisionFilter(t *testing.T) {
	datadriven.Walk(t, "testdata/filter", func(t *testing.T, path string) {
		p, err := engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			from, to, n, stride, least := 0, 0, 0, 0, 0
			d.MaybeScanArgs(t, "from", &from)
			d.MaybeScanArgs(t, "to", &to)
			d.MaybeScanArgs(t, "keys", &n)
			d.MaybeScanArgs(t, "stride", &stride)
			d.MaybeScanArgs(t, "min", &least)
			switch newer, older, local := scan(t, p, base.Revision(least)); d.Cmd {
			case "scan":
				return fmt.Sprintf("%d at or above, %d older, %d without a revision\n", newer, older, local)
			case "newer":
				return fmt.Sprintf("%d at or above, %d without a revision\n", newer, local)
			}
			b := p.NewBatch()
			switch d.Cmd {
			case "write":
				for i := range n {
					err = errors.Join(err, b.Set(numbered(i, base.Revision(from+i*stride)), make([]byte, 100)))
				}
			case "local":
				for i := range n {
					err = errors.Join(err, b.Set(keys.RangeApplied(base.RangeID(i+1)), make([]byte, 100)))
				}
			case "delete-range":
				err = b.DeleteRange(numbered(from, 1<<62), numbered(to, 1<<62))
			default:
				d.Fatalf(t, "no such command")
			}
			if err := errors.Join(err, b.CommitNoSync(), b.Close(), p.Flush()); err != nil {
				t.Fatal(err)
			}
			return ""
		})
	})
}

func numbered(i int, rev base.Revision) []byte {
	return keys.Data(nil, base.KeyspaceDefault, fmt.Appendf(nil, "key%06d", i), rev)
}

// scan counts the keys that are seen with a lowest revision.
func scan(t *testing.T, p *engine.Pebble, least base.Revision) (newer, older, local int) {
	o := everything
	o.MinRevision = least
	it, err := p.NewIter(o)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		switch rev, ok := keys.DataRevision(it.Key()); {
		case !ok:
			local++
		case rev >= least:
			newer++
		default:
			older++
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return newer, older, local
}

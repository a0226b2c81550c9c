package backup

import (
	"io"
	"os"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/archive"
	"github.com/cairndb/cairn/kv/eval"
)

// Contents is what is in a file that is whole.
type Contents struct {
	archive.Summary
	Beginning *archivepb.Beginning
	Total     *archivepb.Ending
	Keyspaces []Space
}

// Space is one keyspace of a file.
type Space struct {
	*archivepb.Keyspace
	*archivepb.KeyspaceEnd
	Keys uint64 // that exist at the file's revision
}

// Inspect reads a whole file and says what is in it. The error is the archive's if it is not what was written.
func Inspect(path string) (*Contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return inspect(f)
}

func inspect(f io.Reader) (*Contents, error) {
	out := &Contents{}
	var last []byte // the key whose newest version was met
	var err error
	out.Summary, err = archive.Read(f, &archive.Visitor{
		Beginning: func(b *archivepb.Beginning) error { out.Beginning = b; return nil },
		Keyspace: func(k *archivepb.Keyspace) error {
			out.Keyspaces, last = append(out.Keyspaces, Space{Keyspace: k}), nil
			return nil
		},
		Version: func(v *archive.Version, rec *eval.Record) error {
			if last == nil || string(last) != string(v.Key) {
				last = append(last[:0:0], v.Key...)
				if !rec.Tombstone {
					out.Keyspaces[len(out.Keyspaces)-1].Keys++
				}
			}
			return nil
		},
		KeyspaceEnd: func(e *archivepb.KeyspaceEnd) error { out.Keyspaces[len(out.Keyspaces)-1].KeyspaceEnd = e; return nil },
		Ending:      func(e *archivepb.Ending) error { out.Total = e; return nil },
	})
	if err == nil && (len(out.Keyspaces) == 0 || out.Keyspaces[0].Name != base.KeyspaceDefault.String()) {
		err = &archive.Damaged{Why: "it does not begin with the keyspace default"}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// Visitor is told what a file holds, in order. A nil function is not asked; an error of one ends the reading. What the functions
// are given is valid until they return.
type Visitor struct {
	Beginning   func(*archivepb.Beginning) error
	Keyspace    func(*archivepb.Keyspace) error
	Version     func(*Version, *eval.Record) error
	Leases      func(*archivepb.Leases) error
	KeyspaceEnd func(*archivepb.KeyspaceEnd) error
	Ending      func(*archivepb.Ending) error
}

// Summary is what is known of a file that was read to its end.
type Summary struct {
	Bytes  int64
	SHA256 [sha256.Size]byte // that it ends with
}

// Read reads a whole file, and nothing behind it. A file that is not just what was written is refused, with a *Damaged or a
// *Foreign, but what came before the damage has been told to the visitor by then: whoever acts on it reads the file twice.
func Read(r io.Reader, v *Visitor) (Summary, error) {
	f := &reader{r: r, sum: sha256.New(), v: v}
	if err := f.begin(); err != nil {
		return Summary{}, err
	}
	for f.last != Ending {
		if err := f.block(); err != nil {
			return Summary{}, err
		}
	}
	return f.tail()
}

// reader is a file while it is read.
type reader struct {
	r   io.Reader
	v   *Visitor
	sum hash.Hash
	at  int64
	buf []byte

	last   Kind
	space  *archivepb.Keyspace
	names  map[string]bool
	within archivepb.KeyspaceEnd
	total  archivepb.Ending
	order  order
	lease  uint64 // the last one's id
}

// take reads n bytes, which are valid until the next call.
func (f *reader) take(n int) ([]byte, error) {
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	got, err := io.ReadFull(f.r, b)
	f.at += int64(got)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &Damaged{f.at, "it is cut off there"}
	}
	return b, err
}

// begin looks whether it is a snapshot at all.
func (f *reader) begin() error {
	b, err := f.take(len(magic))
	var short *Damaged
	switch {
	case errors.As(err, &short) && short.At == 0:
		return &Foreign{"it is empty"}
	case err != nil && !errors.As(err, &short):
		return err
	case err == nil && bytes.Equal(b, []byte(magic)):
		_, _ = f.sum.Write(b)
		return nil
	}
	why := "it begins with other bytes"
	if rest, err := f.take(4); err == nil && binary.LittleEndian.Uint32(rest) == boltMagic {
		why = "it looks like one of etcd's: restore that with etcdutl, and copy it with etcdctl make-mirror"
	}
	return &Foreign{why}
}

// boltMagic is at byte 16 of a file of etcd's.
const boltMagic = 0xED0CDAED

// block reads one.
func (f *reader) block() error {
	at := f.at
	h, err := f.take(headerLen)
	if err != nil {
		return err
	}
	_, _ = f.sum.Write(h)
	k, n, want := Kind(h[0]), binary.BigEndian.Uint32(h[1:]), binary.BigEndian.Uint64(h[5:])
	if n > base.ArchiveBlockBytes {
		return &Damaged{at, fmt.Sprintf("a block says that it has %d bytes", n)}
	}
	payload, err := f.take(int(n))
	if err != nil {
		return err
	}
	_, _ = f.sum.Write(payload)
	if checksum(at, k, payload) != want {
		return &Damaged{at, "the checksum of the block there is another"}
	}
	if !follows(k, f.last) {
		return &Damaged{at, fmt.Sprintf("%s cannot be there", k)}
	}
	f.last = k
	return f.tell(at, k, payload)
}

// follows says whether a block of a kind may come behind one of another; 0: at the beginning.
func follows(k, last Kind) bool {
	switch k {
	case Beginning:
		return last == 0
	case Keyspace, Ending:
		return last == Beginning || last == KeyspaceEnd
	case Leases:
		return last == Keyspace || last == Leases
	case Versions, KeyspaceEnd:
		return last == Keyspace || last == Leases || last == Versions
	}
	return false
}

// tell checks what a block says against those before it, and tells the visitor.
func (f *reader) tell(at int64, k Kind, payload []byte) error {
	switch k {
	case Beginning:
		return inform(at, payload, &archivepb.Beginning{}, nil, f.v.Beginning)
	case Keyspace:
		return inform(at, payload, &archivepb.Keyspace{}, f.beginKeyspace, f.v.Keyspace)
	case Versions:
		return f.versions(at, payload)
	case Leases:
		return inform(at, payload, &archivepb.Leases{}, f.leases, f.v.Leases)
	case KeyspaceEnd:
		return inform(at, payload, &archivepb.KeyspaceEnd{}, f.endKeyspace, f.v.KeyspaceEnd)
	}
	return inform(at, payload, &archivepb.Ending{}, func(e *archivepb.Ending) string {
		if e.Keyspaces != f.total.Keyspaces || e.Versions != f.total.Versions || e.Leases != f.total.Leases {
			return "it does not hold as much as it says"
		}
		return ""
	}, f.v.Ending)
}

// inform decodes a block's message, checks it, and hands it on.
func inform[M proto.Message](at int64, payload []byte, m M, check func(M) string, to func(M) error) error {
	if err := proto.Unmarshal(payload, m); err != nil {
		return &Damaged{at, err.Error()}
	}
	if check != nil {
		if why := check(m); why != "" {
			return &Damaged{at, why}
		}
	}
	if to == nil {
		return nil
	}
	return to(m)
}

func (f *reader) beginKeyspace(k *archivepb.Keyspace) string {
	if f.names == nil {
		f.names = make(map[string]bool)
	}
	if k.Name == "" || f.names[k.Name] || k.Revision < 1 {
		return fmt.Sprintf("there cannot be a keyspace %q at revision %d", k.Name, k.Revision)
	}
	f.names[k.Name] = true
	f.space, f.within, f.order, f.lease = k, archivepb.KeyspaceEnd{}, order{}, 0
	return ""
}

func (f *reader) endKeyspace(e *archivepb.KeyspaceEnd) string {
	switch {
	case e.Versions != f.within.Versions || e.Leases != f.within.Leases:
		return fmt.Sprintf("the keyspace %s does not hold as much as it says", f.space.Name)
	case e.Compacted < -1 || e.Compacted > f.space.Revision:
		return fmt.Sprintf("the keyspace %s cannot be compacted at %d", f.space.Name, e.Compacted)
	}
	f.total.Keyspaces++
	f.total.Versions += e.Versions
	f.total.Leases += e.Leases
	return ""
}

func (f *reader) leases(l *archivepb.Leases) string {
	for _, rec := range l.Leases {
		if uint64(rec.GetId()) <= f.lease || rec.GetTtl() < 1 {
			return fmt.Sprintf("there cannot be a lease %x of %d s there", rec.GetId(), rec.GetTtl())
		}
		f.lease = uint64(rec.GetId())
		f.within.Leases++
	}
	return ""
}

func (f *reader) versions(at int64, payload []byte) error {
	err := EachVersion(payload, func(v *Version) error {
		if !f.order.next(v) || int64(v.Revision) > f.space.Revision {
			return &Damaged{at, fmt.Sprintf("version %d of %q cannot be there", v.Revision, v.Key)}
		}
		f.within.Versions++
		if f.v.Version == nil {
			return nil
		}
		rec, err := eval.DecodeRecord(v.Revision, v.Record)
		if err != nil {
			return err
		}
		return f.v.Version(v, &rec)
	})
	if errors.Is(err, errVersions) {
		return &Damaged{at, err.Error()}
	}
	return err
}

// tail reads what is behind the last block.
func (f *reader) tail() (Summary, error) {
	at := f.at
	zeros, err := f.take(int(padding(at)))
	if err != nil {
		return Summary{}, err
	}
	_, _ = f.sum.Write(zeros)
	if bytes.Count(zeros, []byte{0}) != len(zeros) {
		return Summary{}, &Damaged{at, "there should be zeros"}
	}
	at = f.at
	sum, err := f.take(sha256.Size)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Bytes: f.at, SHA256: [sha256.Size]byte(sum)}
	if !bytes.Equal(f.sum.Sum(nil), sum) {
		return Summary{}, &Damaged{at, "the checksum of the whole file is another"}
	}
	if _, err := io.ReadFull(f.r, f.buf[:1]); !errors.Is(err, io.EOF) {
		if err != nil {
			return Summary{}, err
		}
		return Summary{}, &Damaged{f.at, "it goes on where it should end"}
	}
	return s, nil
}

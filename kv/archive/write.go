package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
)

// Writer writes a file to a stream. Its methods are called in the order in which blocks come; after an error nothing more is to be
// written.
type Writer struct {
	w   io.Writer
	sum hash.Hash
	at  int64

	within *archivepb.KeyspaceEnd // what was written of the present keyspace
	total  archivepb.Ending
}

// NewWriter begins a file.
func NewWriter(w io.Writer, b *archivepb.Beginning) (*Writer, error) {
	f := &Writer{w: w, sum: sha256.New()}
	if err := f.write([]byte(magic)); err != nil {
		return nil, err
	}
	return f, f.message(Beginning, b)
}

// Keyspace begins a keyspace.
func (f *Writer) Keyspace(k *archivepb.Keyspace) error {
	f.within = &archivepb.KeyspaceEnd{}
	return f.message(Keyspace, k)
}

// Versions writes the payload of an Encoder with so many versions.
func (f *Writer) Versions(payload []byte, count uint64) error {
	f.within.Versions += count
	return f.block(Versions, payload)
}

// Leases writes some leases.
func (f *Writer) Leases(leases []*kvpb.LeaseRecord) error {
	f.within.Leases += uint64(len(leases))
	return f.message(Leases, &archivepb.Leases{Leases: leases})
}

// EndKeyspace ends the keyspace that was begun last.
func (f *Writer) EndKeyspace(compacted base.Revision) error {
	f.within.Compacted = int64(compacted)
	f.total.Keyspaces++
	f.total.Versions += f.within.Versions
	f.total.Leases += f.within.Leases
	return f.message(KeyspaceEnd, f.within)
}

// Close ends the file. Whoever reads it knows then that it is whole.
func (f *Writer) Close() error {
	if err := f.message(Ending, &f.total); err != nil {
		return err
	}
	if err := f.write(make([]byte, padding(f.at))); err != nil {
		return err
	}
	_, err := f.w.Write(f.sum.Sum(nil))
	return err
}

// padding is how many zeros follow so many bytes.
func padding(at int64) int64 { return (sector - at%sector) % sector }

func (f *Writer) message(k Kind, m proto.Message) error {
	payload, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return f.block(k, payload)
}

func (f *Writer) block(k Kind, payload []byte) error {
	if len(payload) > base.ArchiveBlockBytes {
		return fmt.Errorf("archive: a block of %d bytes is above the bound", len(payload))
	}
	h := appendHeader(make([]byte, 0, headerLen), f.at, k, payload)
	if err := f.write(h); err != nil {
		return err
	}
	return f.write(payload)
}

func (f *Writer) write(b []byte) error {
	_, _ = f.sum.Write(b) // a hash does not fail
	n, err := f.w.Write(b)
	f.at += int64(n)
	return err
}

// appendHeader appends the header of a block that begins at an offset.
func appendHeader(dst []byte, at int64, k Kind, payload []byte) []byte {
	dst = append(dst, byte(k))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return binary.BigEndian.AppendUint64(dst, checksum(at, k, payload))
}

func checksum(at int64, k Kind, payload []byte) uint64 {
	var b [13]byte
	binary.BigEndian.PutUint64(b[:], uint64(at))
	b[8] = byte(k)
	binary.BigEndian.PutUint32(b[9:], uint32(len(payload)))
	h := xxhash.New()
	_, _ = h.Write(b[:]) // a hash does not fail
	_, _ = h.Write(payload)
	return h.Sum64()
}

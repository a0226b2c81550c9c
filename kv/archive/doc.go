// Package archive is the file that a snapshot of the clients' data is: written and read as a stream, in blocks, each of which says by
// itself whether it is what was written.
//
//	magic                    16 bytes
//	blocks                   Beginning, then for each keyspace: Keyspace, Leases…, Versions…, KeyspaceEnd; at last Ending
//	zeros                    until the file's length is a multiple of 512
//	SHA-256                  32 bytes, of all before
//
// A block is
//
//	kind      1 byte
//	length    4 bytes, the highest first, of the payload
//	checksum  8 bytes, xxhash64 of the block's offset in the file, its kind, its length and its payload
//	payload
//
// The offset has a block that is lost, doubled or at another's place be found at once. The length and the sum at the end are those
// of a file of etcd's: its client takes a snapshot for whole if its length is one of such a file.
//
// The package reads and writes no keys but as versions of a client's: it knows no ranges and no store.
package archive

import (
	"fmt"

	"github.com/cairndb/cairn/internal/base"
)

const (
	magic = "cairn snapshot 1"

	headerLen = 1 + 4 + 8
	sector    = 512 // bytes
)

// Kind is what a block holds.
type Kind uint8

// The kinds, in the order in which they come.
const (
	Beginning Kind = iota + 1
	Keyspace
	Leases
	Versions
	KeyspaceEnd
	Ending
)

func (k Kind) String() string {
	switch k {
	case Beginning:
		return "the beginning"
	case Keyspace:
		return "a keyspace"
	case Versions:
		return "versions"
	case Leases:
		return "leases"
	case KeyspaceEnd:
		return "a keyspace's end"
	case Ending:
		return "the ending"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Damaged says that a file is not what was written, and where.
type Damaged struct {
	At  int64 // the offset of the block, or of what should be there
	Why string
}

func (e *Damaged) Error() string {
	return fmt.Sprintf("the snapshot is damaged at byte %d: %s", e.At, e.Why)
}

// Foreign says that a file was never a snapshot of Cairn's.
type Foreign struct{ Why string }

func (e *Foreign) Error() string { return "this is no snapshot of Cairn's: " + e.Why }

// Version is one version of a key.
type Version struct {
	Key      []byte
	Revision base.Revision
	Record   []byte // as eval.AppendRecord makes it
}

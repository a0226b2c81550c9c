package eval

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// Refused says whether an error of this package is the command's outcome, the same on every replica: nothing was
// written. Any other error means that the engine failed or that what is stored is damaged.
func Refused(err error) bool {
	switch err {
	case ErrOutOfSpan, rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCFutureRev, rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCLeaseNotFound:
		return true
	}
	return false
}

// ErrOutOfSpan: the command touches keys that the range does not hold. Nothing happened. The caller, who knows the
// descriptor, makes a base.RangeMoved of it.
var ErrOutOfSpan = errors.New("the command touches keys outside of the range")

// Counters are a range's revisions, part of its replicated state (keys.RangeCounters).
type Counters struct {
	Revision base.Revision // of the last write
	// Compacted is the lowest revision that can still be read; below 0 nothing was ever compacted.
	Compacted base.Revision
}

// FirstCounters are the counters of a range that nothing was written to. As in etcd, the first write of a single
// keyspace gets revision 2, and revision 0 can be compacted, once; in a sharded one time decides what the first gets.
func FirstCounters() Counters { return Counters{Revision: 1, Compacted: -1} }

const (
	countersFormat = 1
	countersLen    = 1 + 8 + 8
)

// Marshal encodes the counters: a format byte, then two numbers of eight bytes, the highest first.
func (c Counters) Marshal() []byte {
	b := make([]byte, 1, countersLen)
	b[0] = countersFormat
	b = binary.BigEndian.AppendUint64(b, uint64(c.Revision))
	return binary.BigEndian.AppendUint64(b, uint64(c.Compacted))
}

// Unmarshal is the inverse of Marshal. On damage c is unchanged and the error a *base.Corruption.
func (c *Counters) Unmarshal(b []byte) error {
	if len(b) != countersLen || b[0] != countersFormat {
		return &base.Corruption{Where: "counters", Cause: fmt.Errorf("%d bytes in an unknown format", len(b))}
	}
	got := Counters{
		Revision:  base.Revision(binary.BigEndian.Uint64(b[1:])),
		Compacted: base.Revision(binary.BigEndian.Uint64(b[9:])),
	}
	if got.Revision < 1 || got.Compacted < -1 || got.Compacted > got.Revision {
		return &base.Corruption{Where: "counters", Cause: fmt.Errorf("revision %d, compacted %d", got.Revision, got.Compacted)}
	}
	*c = got
	return nil
}

// Env is the range that a command or a read is evaluated in.
type Env struct {
	Range      base.RangeID // whose leases are meant; a command without any does not need it
	Keyspace   base.KeyspaceID
	Start, End []byte // the range's span of user keys; an empty End is the end of the keyspace

	// Counters are as of the reader. A write that changed something raises Revision, a compaction Compacted.
	Counters Counters

	// NowMicros is the command's: what a sharded keyspace's revisions are made from. Apply takes it from the command.
	NowMicros int64

	// WantResponse is false where nobody waits for the answer: what only the response needs is then not read.
	WantResponse bool

	// Events, if set, gets what is changed, in the order of the changes: of each key that a command wrote what it holds in the end.
	// With WantPrev each comes with the version before; a put may then cost a look into the engine.
	Events   *[]Event
	WantPrev bool
}

// Event is one change of one key. Its bytes are those of the command or copies: they stay valid and are not written to.
type Event struct {
	Key []byte
	// Record is the version that was written. Record.Sub orders the changes of one revision.
	Record Record
	Prev   *Record // the version before, if it is wanted and there was one
}

// NextRevision is the revision of the command's writes, if it writes.
func (e *Env) NextRevision() base.Revision {
	next := e.Counters.Revision + 1
	if !e.Keyspace.Single() {
		next = max(next, base.Revision(e.NowMicros))
	}
	return next
}

package watch

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// StreamID names a stream of a client, or whoever else takes what its watches get: in one order.
type StreamID uint64

// Spec is what a client asks for.
type Spec struct {
	Keyspace base.KeyspaceID
	// Start, End are [Start, End) of keys; an empty End is the end of the keyspace. One key is [key, key+"\x00").
	Start, End []byte
	From       base.Revision // 0: what is written from now on
	PrevKV     bool          // with the version before, if that is not compacted
	NoPut      bool
	NoDelete   bool
	Progress   bool // tell how far it is when nothing was sent for base.WatchProgressInterval
	Fragment   bool // a response that is too large may be cut
}

// Event is one change of one key. All watches that get it share it; nobody changes it.
type Event struct {
	Key      []byte
	Revision base.Revision
	Delete   bool
	Wire     []byte // mvccpb.Event without the version before, encoded once
	WithPrev []byte // the same with the version before, if there was one; nil: it was not looked up
}

// Applied is what a replica of this node has shown lately. In what a range's replica shows one follows another.
type Applied struct {
	Range      base.RangeID
	Descriptor *metapb.RangeDescriptor // as it is after
	From       base.Revision           // Events are all that was written from here, which is above what was shown before, ...
	Next       base.Revision           // ... up to here, without this. A From above the last Next is a gap: a snapshot was taken in
	Prev       bool                    // every event that has a version before has WithPrev
	Events     []*Event                // by revision, and within one as they were written
	Compacted  base.Revision           // the lowest that can be read
}

// Want is which ranges' replicas the hub wants to hear of from now on (Applied), and whether with the version before. The first
// Applied after it comes at once, be there events or not; it tells where the replica stands. A range of which there is no replica
// here may be wanted as well: its Applied come when there is one.
type Want struct {
	Range        base.RangeID
	Events, Prev bool
}

// AskKind is what is to be asked.
type AskKind uint8

// The kinds.
const (
	Pull  AskKind = iota + 1 // changes of [Start, End) from From on, of whichever range holds Start: a rangepb.ChangesRequest
	Close                    // raise the ranges of Quiet, each with one entry; a range that cannot be is left out
	Now                      // a revision of the span's ranges such that whatever was answered before the question is not above it
)

// Ask is one thing to be asked. It is answered once, unless it is cancelled. What it names is not changed.
type Ask struct {
	Kind       AskKind
	ID         uint64
	Keyspace   base.KeyspaceID
	Start, End []byte
	From       base.Revision // of Pull; 0: no events are wanted, only which range holds Start, and a Next above its present revision
	Prev       bool
	Wait       bool          // if there is nothing, wait for it (base.WatchPollTime at most), or until the range holds only a part of [Start, End)
	Known      base.Revision // with Wait: answer also when the range is above this revision
	Quiet      []Quiet       // of Close
}

// Quiet is what is to be closed: the range that holds Key is raised to the present, and at least to Above, whatever the clock of whoever
// raises it says: another range of the keyspace has come to that.
type Quiet struct {
	Key   []byte
	Above base.Revision // what waits for the range is at it or below; what is written there later is above
}

// Page answers a Pull: all changes of [Start, End), the part of what was asked that one range holds, from the asked revision up to Next,
// without Next.
type Page struct {
	Range      base.RangeID
	Start, End []byte
	Next       base.Revision
	Events     []*Event
	Compacted  base.Revision // above the asked revision: it is compacted
}

// Answer answers an Ask.
type Answer struct {
	Page     *Page
	Revision base.Revision // of Now
	Err      error         // base.KeyspaceDropped ends the streams of the keyspace; after any other it is asked again after a pause
}

// OutKind is what is to be sent.
type OutKind uint8

// The kinds.
const (
	Created  OutKind = iota + 1
	Events           // of one watch, at most base.WatchResponseBytes unless one revision is larger; Fragment: the rest of the revision follows
	Progress         // Watch is -1: of all watches of the stream
	Canceled         // the watch has ended; Watch is -1: it was never created, which etcd answers as created and canceled in one
)

// Out is one response to one stream.
type Out struct {
	Kind      OutKind
	Stream    StreamID
	Watch     int64
	Revision  base.Revision // of the header
	Events    []*Event
	Prev      bool // Event.WithPrev is what the watch wants, where there is one
	Fragment  bool
	Compacted base.Revision // of Canceled: below it nothing can be watched
	Reason    string        // of Canceled
	Bytes     int           // about its size on the wire: what Sent is told
}

// End says that a stream is served no longer, as its keyspace was dropped; nothing more is said of it.
type End struct {
	Stream StreamID
	Err    error
}

// Effects is what a step wants.
type Effects struct {
	Out    []Out
	Ends   []End
	Asks   []Ask
	Cancel []uint64     // asks whose answers are not wanted any more
	Wants  []Want       // changes
	Wake   base.Instant // step again then; 0: not by itself
}

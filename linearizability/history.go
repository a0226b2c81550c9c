package linearizability

import (
	"time"

	"google.golang.org/protobuf/proto"
)

// Outcome is what a client knows of its request.
type Outcome uint8

// The outcomes. The zero value is the careful one: of a request that nobody heard of again, nothing is known.
const (
	Unknown Outcome = iota // it may have happened, may still happen, or never
	OK                     // it was answered
	Failed                 // it certainly had no effect and never will
)

// String implements fmt.Stringer.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Failed:
		return "failed"
	default:
		return "unknown"
	}
}

// Op is one request of one client and what became of it. Request and Response are messages of etcd's KV service: Range, Put,
// DeleteRange, Txn, Compaction; of its Lease service; a watch with all that it got (followpb); or, of a workload that watches nodes, of
// Cairn's own: ListNodes, ListRanges, Ask. They are not changed after they were handed over.
type Op struct {
	Client   int    // a client has one request at a time; after an unknown outcome its next one is another process to a model
	Keyspace uint64 // keys and revisions of different keyspaces have nothing to do with each other
	Request  proto.Message
	// Invoked and Returned are places in the order of all events of the run: a counter, no clock. Returned is 0 if no
	// answer came; the request may then take effect at any time after Invoked.
	Invoked, Returned int64
	// Began and Ended are when it was invoked and when it returned, be it with an answer or without, on the driver's clock, which begins
	// with the run: what a lease is held against. 0: the history has no clock.
	Began, Ended time.Duration
	Outcome      Outcome
	Response     proto.Message // of an OK one, nil else
	Err          string        // of one that is not OK: what the client was told
	// Place is where a driver that can look inside saw a write take effect, in the order of all writes of its keyspace; -1:
	// it never did; 0: the driver cannot tell. A hint for a search, and no more: an order that explains the answers without
	// it is as good.
	Place int64
	// Final marks a read of the closing phase: after the faults, when every request must succeed.
	Final bool
}

// History is what the clients of one run did, in the order in which they invoked it. The zero value is empty and ready.
// It is not safe for concurrent use.
type History struct {
	Ops []*Op
	// Clock, if not nil, is the driver's.
	Clock func() time.Duration
	clock int64
}

// Invoke notes that a client sends a request, and returns the operation to be ended by Return.
func (h *History) Invoke(client int, keyspace uint64, req proto.Message) *Op {
	h.clock++
	op := &Op{Client: client, Keyspace: keyspace, Request: req, Invoked: h.clock}
	if h.Clock != nil {
		op.Began = h.Clock()
	}
	h.Ops = append(h.Ops, op)
	return op
}

// Return notes how an operation ended. A response belongs to OK alone.
func (h *History) Return(op *Op, outcome Outcome, resp proto.Message, errText string) {
	h.clock++
	op.Returned, op.Outcome, op.Response, op.Err = h.clock, outcome, resp, errText
	if h.Clock != nil {
		op.Ended = h.Clock()
	}
	if outcome == Unknown {
		op.Returned = 0
	}
}

// Violation is one thing in a history that must not be.
type Violation struct {
	Checker string // its name
	What    string // what was seen and what should have been, in words, with keys and revisions
	Ops     []*Op  // the operations that show it, the fewest that do
}

// Checker holds a finished history against one property. A checker that cannot decide in its bounds reports that as a
// violation: what was not decided was not shown.
type Checker struct {
	Name  string
	Check func(*History) []Violation
}

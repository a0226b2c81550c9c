package linearizability

import (
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
)

// Workload makes the requests of all clients of one run in one keyspace. It is stepped: a driver asks for a client's next
// request, carries it out, and tells how it ended. It starts nothing, waits for nothing and draws from the given source
// alone, so that a run can be replayed. It is not safe for concurrent use: a driver with many clients holds a lock.
type Workload interface {
	// Setup returns requests to be made one after the other before the clients begin; each must succeed.
	Setup() []proto.Message
	// Next returns a client's next request; nil if it has none for now. A client has one at a time.
	Next(client int, r *base.Rand) proto.Message
	// Ended tells what became of it. A client that follows an operation up (reads, then compares and sets) does so in its
	// next Next.
	Ended(op *Op)
	// Final returns the reads of the closing phase: after faults have healed and clients have ended. Each must succeed.
	Final() []proto.Message
	// Checkers hold the history of this workload's keyspace (Setup's, the clients' and Final's operations).
	Checkers() []Checker
}

// Kind is one workload by name: New makes one for a run. Prefix begins each of its keys, so that several can share a
// keyspace; size is a hint at how many keys to use, 0 for the workload's own choice.
type Kind struct {
	Name string
	// About is one line: what the workload does and which properties it would show broken.
	About string
	New   func(prefix string, size int) Workload
	// Cut is of a workload for a keyspace of many ranges: the key at which it may be cut beside one of the workload's, so that
	// what belongs into one range stays in one. Nil: the keyspace is to have one range.
	Cut func(key []byte) []byte
	// Watches is of a workload that asks for nodes and ranges and asks single nodes (ListNodes, ListRanges, Ask), and writes nothing.
	// Its driver must be able to carry these out.
	Watches bool
	// Follows and Leases are of a workload that watches what others write (followpb), and of one whose clients have leases, for which its
	// history needs the driver's clock. Its driver must be able to carry these out.
	Follows, Leases bool
}

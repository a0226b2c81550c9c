package placement

import (
	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Decider decides for the ranges of one index range. It is not safe for concurrent use.
type Decider struct{ cfg Config }

// New makes a Decider that knows nothing. It decides nothing before it was told the nodes, and base.DecideGrace has passed since
// its first Step.
func New(cfg Config) *Decider { return &Decider{cfg: cfg} }

// Learn takes in a descriptor as the index lists it; an older one than is known of the range changes nothing.
func (d *Decider) Learn(m *metapb.RangeDescriptor) {}

// Forget takes out a range that the index lists no more, or that another index range lists now.
func (d *Decider) Forget(id base.RangeID) {}

// SetNodes takes in all nodes' records, and what is known of them beside (node/health); a node that is not among them is forgotten.
func (d *Decider) SetNodes(records []*metapb.NodeRecord, health []*metapb.NodeHealth) {}

// SetPolicies takes in all policies that are stored.
func (d *Decider) SetPolicies(records []*metapb.PolicyRecord) {}

// SetOperations takes in all operations that are stored; now is by the wall clock, which they count by.
func (d *Decider) SetOperations(ops []*metapb.Operation, nowUnixMicros int64) {}

// Step plans if it is time to, and returns what is to be sent now and what is to be logged. It is called whenever Wake is
// reached, and may be called at any time.
func (d *Decider) Step(now base.Instant) ([]Action, []Event) { return nil, nil }

// Wake is when Step has something to do again if nothing happens before.
func (d *Decider) Wake() base.Instant { return base.Never }

// Reserved takes in what a node answered to a Reserve; err: it could not be asked, or did not answer.
func (d *Decider) Reserved(id base.RangeID, node base.NodeID, seq uint64, m *rangepb.Reservation, err error, now base.Instant) {
}

// Directed takes in what the range's leader answered to a Direct; err: nobody was found that leads it, or it did not answer.
// by is the node that answered.
func (d *Decider) Directed(id base.RangeID, seq uint64, by base.NodeID, m *rangepb.DirectiveAnswer, err error, now base.Instant) {
}

// Reported takes in what a node reports of the ranges that it leads; err: it could not be asked, or did not answer.
func (d *Decider) Reported(node base.NodeID, m *rangepb.Report, err error, now base.Instant) {}

// UnderWay are the decisions on their way, by range.
func (d *Decider) UnderWay() []Entry { return nil }

// Withheld is what should be done and is not, and why, as of the last pass.
func (d *Decider) Withheld() []allocator.Withheld { return nil }

// Explain says what would be decided for a range now, and why, and what is under way with it; nil: it is not known here.
func (d *Decider) Explain(id base.RangeID) *metapb.Explanation { return nil }

// SafeToStop says what speaks against stopping a set of nodes at once, as far as the ranges go that this decides for. Ranges is how
// many were looked at.
func (d *Decider) SafeToStop(nodes []base.NodeID) (findings []Finding, ranges int) { return nil, 0 }

// CanDecommission says what speaks against taking a set of nodes out for good.
func (d *Decider) CanDecommission(nodes []base.NodeID) (findings []Finding, ranges int) { return nil, 0 }

// Finding is one thing that speaks against something.
type Finding struct {
	Range    base.RangeID // 0: of no one range
	Keyspace base.KeyspaceID
	What     string
	Next     string // what to do
}

// Policies is what is to be held to, with every default filled in, by the policies that are stored.
func Policies(records []*metapb.PolicyRecord) allocator.Policy { return allocator.Policy{} }

package change

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// A range has three voters. Cairn's own ranges have five once five nodes are there: without them nothing else can be
// found or repaired.
const (
	voters          = 3
	votersOfCairn   = 5
	nodesForFive    = 5
	lastOwnKeyspace = base.KeyspaceSys
)

// Node is what the rule below knows of a node.
type Node struct {
	Record *metapb.NodeRecord
	Up     bool
	Load   int // replicas that it holds
}

// UpReplicate says where the range's voters are to be, by a small rule:
//
//   - voters stay where they are, also on a node that is down for a while;
//   - seats that are free go to active nodes that are up: first to those that hold a learner already (so that a change
//     begun is a change finished), then to those whose locality is most unlike that of the others, then to the least
//     loaded, then by node id;
//   - a node that has left or was replaced gives up its seat when another node can take it;
//   - with fewer nodes than seats, an even number above two is not filled up to: it would tolerate no more failures.
func UpReplicate(d *metapb.RangeDescriptor, nodes []Node) Goal {
	seats := wantedSeats(base.KeyspaceID(d.GetKeyspaceId()), nodes)
	var cands []candidate
	for _, n := range nodes {
		if class, ok := classify(d, n); ok {
			cands = append(cands, candidate{Node: n, class: class})
		}
	}
	for _, r := range d.GetReplicas() { // a voter on a node that nobody has a record of stays, as one that is down
		if isVoter(r) && !slices.ContainsFunc(nodes, func(n Node) bool { return n.Record.GetNodeId() == r.NodeId }) {
			cands = append(cands, candidate{Node: Node{Record: &metapb.NodeRecord{NodeId: r.NodeId}}, class: voterDown})
		}
	}
	staying := 0
	for _, c := range cands {
		if c.class <= voterDown {
			staying++
		}
	}
	n := min(seats, len(cands))
	if n > 2 && n%2 == 0 {
		n = max(n-1, min(seats, staying))
	}
	return choose(cands, n)
}

func wantedSeats(ks base.KeyspaceID, nodes []Node) int {
	members := 0
	for _, n := range nodes {
		if !gone(n.Record.GetState()) {
			members++
		}
	}
	if ks <= lastOwnKeyspace && members >= nodesForFive {
		return votersOfCairn
	}
	return voters
}

// class is how good a claim a node has to a seat; lower is better.
type class int

const (
	voterUp class = iota
	voterDown
	learnerUp
	fresh
	voterGone
)

type candidate struct {
	Node
	class
}

func classify(d *metapb.RangeDescriptor, n Node) (class, bool) {
	r := desc.ReplicaOn(d, base.NodeID(n.Record.GetNodeId()))
	state := n.Record.GetState()
	able := n.Up && state == metapb.NodeState_NODE_STATE_ACTIVE
	switch {
	case r != nil && isVoter(r) && gone(state):
		return voterGone, true
	case r != nil && isVoter(r) && n.Up:
		return voterUp, true
	case r != nil && isVoter(r):
		return voterDown, true
	case r != nil && able:
		return learnerUp, true
	case able:
		return fresh, true
	}
	return 0, false
}

// isVoter says whether the replica votes and is to go on voting.
func isVoter(r *metapb.Replica) bool {
	inNew, _ := desc.Votes(r.Role)
	return inNew
}

func gone(s metapb.NodeState) bool {
	return s == metapb.NodeState_NODE_STATE_LEFT || s == metapb.NodeState_NODE_STATE_REPLACED
}

// choose takes n candidates, one after the other, each the best beside those taken before.
func choose(cands []candidate, n int) Goal {
	var taken []candidate
	for len(taken) < n {
		best := 0
		for i := range cands {
			if less(cands[i], cands[best], taken) {
				best = i
			}
		}
		taken = append(taken, cands[best])
		cands = slices.Delete(cands, best, best+1)
	}
	var g Goal
	for _, c := range taken {
		g.Voters = append(g.Voters, base.NodeID(c.Record.NodeId))
	}
	slices.Sort(g.Voters)
	return g
}

func less(a, b candidate, taken []candidate) bool {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(likeness(a, taken), likeness(b, taken)),
		cmp.Compare(a.Load, b.Load),
		cmp.Compare(a.Record.NodeId, b.Record.NodeId),
	) < 0
}

// likeness counts the outermost locality tiers that a node shares with others.
func likeness(c candidate, others []candidate) (n int) {
	for _, o := range others {
		mine, theirs := c.Record.Locality, o.Record.Locality
		for i := 0; i < min(len(mine), len(theirs)); i++ {
			if mine[i].Key != theirs[i].Key || mine[i].Value != theirs[i].Value {
				break
			}
			n++
		}
	}
	return n
}

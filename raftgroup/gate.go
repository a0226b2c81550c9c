package raftgroup

import (
	"go.etcd.io/raft/v3/quorum"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup/support"
)

// Supports says what support this node has: the newest token of another node's support for it, and until when on this
// node's clock it certainly lasts. A Loop asks it in a step, readers ask it between steps.
type Supports interface {
	Support(base.NodeID) (support.Token, base.Instant)
	// Asks says whether this node asks for support. While its disk completes nothing, it does not.
	Asks() bool
}

// Gate is a leader's lease as readers see it: who promised what to it. While its Until lies in the future, no other replica
// of the range can be elected, and what the leader has applied is all that was ever acknowledged. It is immutable.
type Gate struct {
	Range   base.RangeID
	Replica base.ReplicaID
	Term    uint64
	voters  quorum.JointConfig
	forts   map[uint64]Fort // by replica; the leader's own is not among them
}

// Fort is one replica's promise, for as long as its node's support under the token lasts.
type Fort struct {
	Node  base.NodeID
	Token support.Token
}

// Until is the end of the lease on this node's clock: the latest time until which a quorum (of both halves of a joint
// configuration) holds back its votes. Never, if the leader alone is a quorum.
func (g *Gate) Until(s Supports) base.Instant {
	return base.Instant(g.voters.CommittedIndex(gateTimes{g, s}))
}

// Forts lists the promises, for people; those whose token is no longer the node's newest count for nothing.
func (g *Gate) Forts() map[uint64]Fort { return g.forts }

// gateTimes gives the times of the replicas to raft's mathematics, which takes the one that a quorum has reached.
type gateTimes struct {
	g *Gate
	s Supports
}

// AckedIndex implements quorum.AckedIndexer.
func (t gateTimes) AckedIndex(id uint64) (quorum.Index, bool) {
	if id == uint64(t.g.Replica) {
		return quorum.Index(base.Never), true
	}
	f, ok := t.g.forts[id]
	if !ok {
		return 0, false
	}
	token, until := t.s.Support(f.Node)
	if token != f.Token && !mutant.Is(mutant.LeaseOfOldToken) || until < 0 {
		return 0, false
	}
	return quorum.Index(until), true
}

// gateOf is the lease of a leader by its applied configuration.
func (g *group) gate() *Gate {
	cs := ConfState(g.log.desc)
	gt := &Gate{Range: g.id, Replica: g.replica, Term: g.term, forts: make(map[uint64]Fort, len(g.lease.forts))}
	for i, ids := range [][]uint64{cs.Voters, cs.VotersOutgoing} {
		if len(ids) == 0 {
			continue
		}
		gt.voters[i] = make(quorum.MajorityConfig, len(ids))
		for _, id := range ids {
			gt.voters[i][id] = struct{}{}
		}
	}
	for id, f := range g.lease.forts {
		gt.forts[uint64(id)] = f
	}
	return gt
}

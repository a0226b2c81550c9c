package placement

import (
	"fmt"
	"sync"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// admission is what makes several deciders safe together: each asks the node that is to take a replica, which counts them all.
// The rule is meta/placement's; here it is told how the node is.
type admission struct {
	room func() room
	now  func() base.Instant

	mu       sync.Mutex
	promised *placement.Reservations
}

// room is how a node is that is asked to take a replica.
type room struct {
	placement.Room
	coming   []base.RangeID // snapshots that come in now
	strained string         // why it takes what is urgent alone; empty: it takes the rest, too
}

func newAdmission(room func() room, now func() base.Instant) *admission {
	return &admission{room: room, now: now, promised: placement.NewReservations()}
}

func (a *admission) reserve(req *rangepb.Reserve) *rangepb.Reservation {
	r := a.room() // before the lock: it asks the disk
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, id := range r.coming {
		if id != base.RangeID(req.RangeId) && !a.promised.Promised(id, now) {
			r.Snapshots++
		}
	}
	if r.Against == "" && !req.Urgent {
		r.Against = r.strained
	}
	return a.promised.Reserve(req, r.Room, now)
}

// room says how this node is now.
func (p *Placement) room() room {
	r := room{coming: p.cfg.Store.Receiving()}
	load := p.cfg.Load()
	r.DiskBytes, r.DiskUsed = int64(load.GetDiskBytes()), int64(load.GetDiskUsed())
	p.mu.Lock()
	r.Moves = p.stored.policy.MovesPerNode
	policies := p.stored.policies
	p.mu.Unlock()
	r.strained = placement.Strained(policies, load)
	if r.Against = p.cfg.Unfit(); r.Against != "" {
		return r
	}
	for _, n := range p.cfg.Nodes() {
		if base.NodeID(n.NodeId) == p.cfg.Node {
			r.Against = against(n)
		}
	}
	return r
}

// against says why a node takes no replica, by its record; empty: it does.
func against(n *metapb.NodeRecord) string {
	switch {
	case n.Cordoned:
		return "it is cordoned"
	case n.Draining:
		return "it is draining"
	case n.State == metapb.NodeState_NODE_STATE_ACTIVE || n.State == metapb.NodeState_NODE_STATE_UNSPECIFIED:
		return ""
	case n.State == metapb.NodeState_NODE_STATE_SUSPECT:
		return "it is suspect: " + n.Reason
	}
	return fmt.Sprintf("it is %s", stateName(n.State))
}

func stateName(s metapb.NodeState) string {
	switch s {
	case metapb.NodeState_NODE_STATE_JOINING:
		return "joining"
	case metapb.NodeState_NODE_STATE_FAILED:
		return "failed"
	case metapb.NodeState_NODE_STATE_LEAVING:
		return "leaving"
	case metapb.NodeState_NODE_STATE_LEFT:
		return "gone from the cluster"
	case metapb.NodeState_NODE_STATE_REPLACED:
		return "replaced"
	}
	return s.String()
}

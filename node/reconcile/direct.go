package reconcile

import (
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/raftgroup"
)

// Reports are told what this node's reconciler learns of the ranges that the node leads: node/placement has them. They do not block.
type Reports interface {
	// Replicas says which nodes' replicas are down or have not caught up, and why nothing is to be decided for the range now.
	Replicas(id base.RangeID, behind []base.NodeID, busy string)
	Sized(id base.RangeID, bytes int64)
	// Rates are the requests per second of the ranges in use.
	Rates(map[base.RangeID]float64)
}

// Direct takes a directive for a range that this node leads, and answers how far it is. The steps are taken by the loop: a
// directive that is renewed costs no more than a look at it.
func (r *Reconciler) Direct(id base.RangeID, d *rangepb.Directive) *rangepb.DirectiveAnswer {
	view := r.cfg.Store.View(id)
	if view == nil {
		return &rangepb.DirectiveAnswer{Refused: "no replica of it is here any more"}
	}
	r.mu.Lock()
	f := r.follow[id]
	if f == nil {
		f = &change.Follower{}
		r.follow[id] = f
	}
	now := r.cfg.Store.Now()
	refused := f.Direct(d, view.Descriptor, now)
	answer := f.Answer(d, view.Descriptor, refused, now)
	if refused == "" && !answer.Done {
		r.due[id] = struct{}{}
	}
	r.mu.Unlock()
	if refused == "" && !answer.Done {
		r.Wake()
	}
	answer.BytesSent, answer.BytesTotal = r.cfg.Store.Sending(id)
	return answer
}

// next is the step to take with a range that this node leads: towards where a neighbour is that it is to be merged with, else where
// a directive wants it, else out of a joint configuration.
func (r *Reconciler) next(st *raftgroup.Status, o *observed, now base.Instant) (step change.Step, done bool, busy string) {
	seen := change.Observe(st, o.down)
	r.mu.Lock()
	defer r.mu.Unlock()
	if w, ok := r.wanted[st.Range]; ok {
		if now < w.until {
			step, done = change.Next(st.Descriptor, seen, w.goal)
			return step, done, "its replicas are brought to where its neighbour's are, for a merge"
		}
		delete(r.wanted, st.Range)
	}
	f := r.follow[st.Range]
	if f == nil {
		step, done = change.LeaveJoint(st.Descriptor, seen)
		return step, done, ""
	}
	if f.Over(st.Descriptor, now) {
		delete(r.follow, st.Range)
	}
	step, done = f.Next(st.Descriptor, seen, now)
	return step, done, ""
}

// behind are the nodes whose replicas the leader waits for, or does not hear.
func behind(st *raftgroup.Status, o *observed) (nodes []base.NodeID) {
	return change.Behind(st.Descriptor, change.Observe(st, o.down))
}

// lag keeps ranges in mind of which a replica is behind: nobody tells when it has caught up.
func (r *Reconciler) lag(id base.RangeID, is bool) {
	if is {
		r.lagging[id] = struct{}{}
	} else {
		delete(r.lagging, id)
	}
}

// late are some of the ranges of which a replica was behind when they were last looked at: all of them in turn.
func (r *Reconciler) late() (ids []base.RangeID) {
	for id := range r.lagging { // in no order, so that each comes to its turn
		if len(ids) == base.LaggingLooks {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

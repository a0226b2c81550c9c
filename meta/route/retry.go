package route

import (
	"errors"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
)

// Own is what the node that asks has of a range itself. The zero value is one that has nothing of any.
type Own struct {
	Node base.NodeID
	// Has says that it has a replica with its first snapshot. One that waits for that answers nothing, and what it has heard counts
	// for nothing: it may have been removed since, and know of a leader of long ago.
	Has    bool
	Leader base.NodeID // as that replica knows it; 0: it knows of none
}

// Order lists the nodes to try for a range, each once: the own one if it has a replica (it answers at once and may know the
// leader), then those whose replica may lead, learners last. The own node is not asked for a replica that it does not have,
// unless the descriptor names no other: then it is the whole answer, and the asker is to refuse itself as any node would.
func Order(d *metapb.RangeDescriptor, own Own) []base.NodeID {
	out := make([]base.NodeID, 0, len(d.GetReplicas()))
	if own.Has && desc.ReplicaOn(d, own.Node) != nil {
		out = append(out, own.Node)
	}
	for _, learners := range []bool{false, true} {
		for _, r := range d.GetReplicas() {
			n := base.NodeID(r.NodeId)
			if (r.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER) == learners && n != own.Node && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	if len(out) == 0 {
		out = append(out, own.Node)
	}
	return out
}

// Retry says what to do after a request failed. It is a value: After returns the next one. The zero value is a request
// that was not tried yet. Only what certainly did not happen is tried again.
type Retry struct {
	tries  int           // that failed
	turn   int           // of these, those after which it is the next node's turn
	direct int           // of these, in a row, after which the request was sent on without a pause
	pause  time.Duration // before the last try that had one
	hint   base.NodeID   // where the last refuser said to go on; 0: it did not
	busy   bool          // the last refuser was too busy: that says nothing against it
}

// Target is the node of a range to try now: the one that the last refuser named, the leader that the own replica knows, or the
// range's nodes in turn. The own replica may be wrong for long, and takes turns with the others. If the target is the own node and
// that has no replica, the try has failed already, as with any node that has none: with a base.RangeMoved.
func (r Retry) Target(d *metapb.RangeDescriptor, own Own) base.NodeID {
	switch {
	case r.hint != 0:
		return r.hint
	case own.Has && own.Leader != 0 && (r.busy || r.turn%(len(d.GetReplicas())+1) == 0):
		return own.Leader
	}
	nodes := Order(d, own)
	return nodes[r.turn%len(nodes)]
}

// Try is what to do next.
type Try struct {
	GiveUp bool
	// Wait is how long to wait, unless what is lacking (a leader, a descriptor) becomes known before. 0: go on at once.
	Wait time.Duration
	// Doubt says that who was asked does not lead the range, and knows nobody who does. That is so in every election; but it is so
	// for ever where all of a range's nodes have left since its descriptor was heard of, or cannot be reached. Cache.Doubt tells
	// the one from the other.
	Doubt bool
}

// After says what to do after err. The errors are those of base, and NoRange; any other is the command's own answer.
func (r Retry) After(err error) (Retry, Try) {
	var (
		ambiguous *base.Ambiguous
		notLeader *base.NotLeader
		moved     *base.RangeMoved
		throttled *base.Throttled
		noRange   *NoRange
	)
	r.busy = false
	if r.tries++; r.tries >= base.RetryTries {
		return r, Try{GiveUp: true}
	}
	switch {
	case mutant.Is(mutant.BlindRetry) && errors.As(err, &ambiguous):
		return r.wait(0)
	case errors.As(err, &ambiguous): // first: it may wrap another
		return r, Try{GiveUp: true}
	case errors.As(err, &notLeader):
		next := Try{}
		if notLeader.HintNode == 0 {
			r, next = r.nextTurn().wait(0)
		} else {
			r, next = r.follow(notLeader.HintNode)
		}
		next.Doubt = next.Wait > 0
		return r, next
	case errors.As(err, &moved):
		if len(moved.Descriptors) == 0 {
			return r.nextTurn().wait(0)
		}
		return r.nextTurn().follow(0)
	case errors.As(err, &throttled):
		r = r.nextTurn()
		r.busy = true
		return r.wait(throttled.RetryAfter)
	case errors.As(err, &noRange):
		return r.wait(0)
	}
	return r, Try{GiveUp: true}
}

// nextTurn goes on from a node that has no more to say.
func (r Retry) nextTurn() Retry {
	r.turn++
	r.hint = 0
	return r
}

// follow goes on at once where the refuser said, unless that has gone in a circle for long enough.
func (r Retry) follow(node base.NodeID) (Retry, Try) {
	if r.direct >= base.RetryHints {
		return r.nextTurn().wait(0)
	}
	r.direct++
	r.hint = node
	return r, Try{}
}

// wait waits twice as long as last time, and at least what was asked for.
func (r Retry) wait(least time.Duration) (Retry, Try) {
	r.direct = 0
	r.pause = max(base.RetryMin, min(2*r.pause, base.RetryMax))
	return r, Try{Wait: max(r.pause, least)}
}

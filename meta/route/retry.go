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

// Order lists the nodes to try for a range, each once: the one that is said to lead, this node if it has a replica (it
// answers at once and may know the leader), then those whose replica may lead, learners last.
func Order(d *metapb.RangeDescriptor, hint, self base.NodeID) []base.NodeID {
	var out []base.NodeID
	add := func(n base.NodeID) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if hint != 0 {
		add(hint)
	}
	if desc.ReplicaOn(d, self) != nil {
		add(self)
	}
	for _, learners := range []bool{false, true} {
		for _, r := range d.GetReplicas() {
			if (r.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER) == learners {
				add(base.NodeID(r.NodeId))
			}
		}
	}
	return out
}

// Retry says what to do after a request failed. It is a value: After returns the next one. The zero value is a request
// that was not tried yet. Only what certainly did not happen is tried again.
type Retry struct {
	tries  int           // that failed
	direct int           // of these, in a row, after which the request was sent on without a pause
	pause  time.Duration // before the last try that had one
}

// Try is what to do next.
type Try struct {
	GiveUp bool
	// Wait is how long to wait, unless what is lacking (a leader, a descriptor) becomes known before. 0: go on at once.
	Wait time.Duration
	// Node is where to go on, if the refuser knew. 0: see Order.
	Node base.NodeID
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
	if r.tries++; r.tries >= base.RetryTries {
		return r, Try{GiveUp: true}
	}
	switch {
	case mutant.Is(mutant.BlindRetry) && errors.As(err, &ambiguous):
		return r.wait(0)
	case errors.As(err, &ambiguous): // first: it may wrap another
		return r, Try{GiveUp: true}
	case errors.As(err, &notLeader):
		if notLeader.HintNode == 0 {
			return r.wait(0)
		}
		return r.follow(notLeader.HintNode)
	case errors.As(err, &moved):
		if len(moved.Descriptors) == 0 {
			return r.wait(0)
		}
		return r.follow(0)
	case errors.As(err, &throttled):
		return r.wait(throttled.RetryAfter)
	case errors.As(err, &noRange):
		return r.wait(0)
	}
	return r, Try{GiveUp: true}
}

// follow goes on at once where the refuser said, unless that has gone in a circle for long enough.
func (r Retry) follow(node base.NodeID) (Retry, Try) {
	if r.direct >= base.RetryHints {
		return r.wait(0)
	}
	r.direct++
	return r, Try{Node: node}
}

// wait waits twice as long as last time, and at least what was asked for.
func (r Retry) wait(least time.Duration) (Retry, Try) {
	r.direct = 0
	r.pause = max(base.RetryMin, min(2*r.pause, base.RetryMax))
	return r, Try{Wait: max(r.pause, least)}
}

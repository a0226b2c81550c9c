// Package liveness says who is well: what a node's record may become (this file), and when (the table, which the leader of `sys`
// steps with the heartbeats of all nodes). It is pure: records, heartbeats and time go in, changed records and reasons come out.
//
// joining → active ⇄ suspect → failed → (announced again, under a higher epoch) active; active → leaving → left. A record also says
// whether the node is cordoned or draining, in whichever state it is. Every change raises the record's generation, so that of two
// that were made of the same record one does not stand. One that takes away what the node was told before (failed, left, replaced)
// raises its epoch: a node that hears of a higher epoch than it knows serves nothing until it has announced itself again.
package liveness

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// Event is something that changes a node's record.
type Event uint8

// The events. Those of the first line come from the node and the table, the others from people and what works for them.
const (
	Announced    Event = iota // the node has started, or has heard that it was held to be failed
	Suspected                 // it may be gone
	Cleared                   // it is well after all
	Failed                    // it was suspect for too long
	Replaced                  // another store takes its address over
	Left                      // it was leaving, and holds nothing any more
	Cordon                    // it is to take nothing new
	Uncordon                  // it may again, and may lead again
	Drain                     // it is to lead nothing, and take nothing new
	Undrain                   // it may lead again; the cordon stays until somebody takes it back
	Leave                     // what it holds is to be moved away
	Recommission              // it is to stay after all
	Removed                   // it is dead, and can never come back
	events
)

// verbs are the events as they are told: "n3 cannot be …".
var verbs = [events]string{
	"announced", "suspected", "cleared", "held to be failed", "replaced", "said to have left",
	"cordoned", "uncordoned", "drained", "undrained", "decommissioned", "recommissioned", "removed",
}

func (e Event) String() string { return verbs[e] }

// after is the state that an event leads to from s; ok is false if it cannot happen there. What is so already may happen again, for
// whoever does not know whether it went through.
func (e Event) after(s metapb.NodeState) (to metapb.NodeState, ok bool) {
	const (
		joining  = metapb.NodeState_NODE_STATE_JOINING
		active   = metapb.NodeState_NODE_STATE_ACTIVE
		suspect  = metapb.NodeState_NODE_STATE_SUSPECT
		failed   = metapb.NodeState_NODE_STATE_FAILED
		leaving  = metapb.NodeState_NODE_STATE_LEAVING
		left     = metapb.NodeState_NODE_STATE_LEFT
		replaced = metapb.NodeState_NODE_STATE_REPLACED
	)
	from := func(states ...metapb.NodeState) bool {
		for _, f := range states {
			if f == s {
				return true
			}
		}
		return false
	}
	switch e {
	case Announced:
		if s == leaving {
			return leaving, true
		}
		return active, from(joining, active, suspect, failed)
	case Suspected:
		return suspect, from(active, suspect)
	case Cleared:
		return active, from(active, suspect)
	case Failed:
		return failed, from(suspect, failed)
	case Replaced:
		return replaced, from(joining, active, suspect, failed, leaving, replaced)
	case Left:
		return left, from(leaving, left)
	case Cordon, Uncordon, Drain, Undrain:
		return s, from(joining, active, suspect, failed, leaving)
	case Leave:
		return leaving, from(active, suspect, leaving)
	case Recommission:
		return active, from(active, leaving)
	case Removed:
		return left, from(joining, suspect, failed, leaving, left)
	}
	return s, false
}

// fences says whether the node loses what it was told before.
func fences(s metapb.NodeState) bool {
	switch s {
	case metapb.NodeState_NODE_STATE_FAILED, metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED:
		return true
	}
	return false
}

// Gone says whether a node can never come back under its record.
func Gone(s metapb.NodeState) bool {
	return s == metapb.NodeState_NODE_STATE_LEFT || s == metapb.NodeState_NODE_STATE_REPLACED
}

// Illegal: the event cannot happen to the node as it is.
type Illegal struct {
	Node  base.NodeID
	State metapb.NodeState
	Event Event
}

func (e *Illegal) Error() string {
	possible := "nothing more can become of it"
	if list := Possible(e.State); len(list) > 0 {
		words := make([]string, len(list))
		for i, p := range list {
			words[i] = p.String()
		}
		possible = "it can be " + strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s cannot be %s: it %s; %s", e.Node, e.Event, stateWords(e.State), possible)
}

func stateWords(s metapb.NodeState) string {
	switch s {
	case metapb.NodeState_NODE_STATE_LEFT:
		return "has left"
	case metapb.NodeState_NODE_STATE_REPLACED:
		return "was replaced by another store at its address"
	}
	return "is " + StateName(s)
}

// StateName is a state as it is shown.
func StateName(s metapb.NodeState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_STATE_"))
}

// Possible are the events that a person can bring about in a state.
func Possible(s metapb.NodeState) (out []Event) {
	for e := Cordon; e < events; e++ {
		to, ok := e.after(s)
		if moves := e >= Leave; ok && (!moves || to != s) {
			out = append(out, e)
		}
	}
	return out
}

// Apply returns the record after an event, with the reason and the time if its state is another. What is so already comes back as it
// is. An event that cannot happen is *Illegal. r is not changed.
func Apply(r *metapb.NodeRecord, e Event, reason string, unixMicros int64) (*metapb.NodeRecord, error) {
	to, ok := e.after(r.State)
	if !ok {
		return nil, &Illegal{Node: base.NodeID(r.NodeId), State: r.State, Event: e}
	}
	out := proto.CloneOf(r)
	switch e {
	case Cordon:
		out.Cordoned = true
	case Uncordon:
		out.Cordoned, out.Draining = false, false
	case Drain:
		out.Cordoned, out.Draining = true, true
	case Undrain:
		out.Draining = false
	}
	if to != r.State {
		out.State, out.Reason, out.SinceUnixMicros = to, reason, unixMicros
		if fences(to) && !mutant.Is(mutant.EpochNotRaised) {
			out.Epoch++
		}
	}
	if proto.Equal(out, r) {
		return r, nil
	}
	out.Generation++
	return out, nil
}

// Announce is what an announcement makes of a node's record: what the node says of itself, in the state that it comes to, with all
// that others have decided about it. The record comes back as it is if there is nothing new in it. A start that is suspect stays so:
// that it can speak to somebody does not mean that others hear it, and it would come and go with each of its announcements.
func Announce(r, said *metapb.NodeRecord, reason string, unixMicros int64) (*metapb.NodeRecord, error) {
	own := proto.CloneOf(r)
	own.Address, own.Locality, own.Version, own.Incarnation = said.Address, said.Locality, said.Version, said.Incarnation
	own.Attributes, own.DiskBytes, own.Cpus = said.Attributes, said.DiskBytes, said.Cpus
	out, err := own, error(nil)
	if r.State != metapb.NodeState_NODE_STATE_SUSPECT || said.Incarnation > r.Incarnation {
		out, err = Apply(own, Announced, reason, unixMicros)
	}
	switch {
	case err != nil:
		return nil, err
	case out != own:
		return out, nil
	case proto.Equal(own, r):
		return r, nil
	}
	own.Generation++
	return own, nil
}

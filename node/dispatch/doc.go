// Package dispatch brings a request to the replica that can serve it, here or on another node, and the answer back.
//
// A write goes to the leader's node, which proposes it and answers when it is applied there. A linearizable read is
// served by a replica on this node if there is one: Raft's ReadIndex tells it how far it must have applied, with one
// question to the leader for all the reads of a pass; otherwise the read goes to a node that has a replica. Requests
// and answers between two nodes travel in frames: what comes while a frame is being sent makes the next one.
//
// What may be tried again. A request that was certainly not carried out (no leader, wrong range, a frame that never
// left) is sent again until the caller's context ends. A write that was sent and not answered is base.Ambiguous and
// is never sent again here. A read has no effect, and is.
package dispatch

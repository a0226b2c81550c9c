// Package raftgroup runs the Raft groups of a node as pure steps: events in, effects out.
//
// A Loop holds many groups, each a raft.RawNode, and owns them outright. Step delivers what has happened (messages,
// proposals, reads, what became durable, what was applied, time), asks each group that was touched what it wants done,
// and merges that into one Effects value: log appends of all groups as one batch, entries to apply, messages to send.
// A Loop has no goroutine, lock, clock, disk or global random number: the same events give the same effects, byte for
// byte, and the simulator and the shell of a node drive the same code.
//
// What Raft asks of its caller is divided between the two sides. The Loop keeps, for each group, which of Raft's
// answers wait for which batch to be durable, and for which entries to be applied; the driver's duties are numbered at
// Effects.
//
// Elections. Only a leader is ticked. A follower's timer is the Loop's own, drawn from the Loop's seed: when nothing was
// heard of a leader for long enough, the replica forgets the leader, which lets it grant votes, and campaigns. Raft's own
// random numbers are never used. PreVote and CheckQuorum are on.
//
// Reads. A linearizable read asks Raft for a read index; all reads of a step share one question, and a bounded number of
// questions are under way for each group. A read is answered when the local replica has applied that index. A leader
// asks only after it has applied an entry of its own term: before that it does not know what was committed.
//
// Lives of replicas. A ReplicaID is never used twice. What is addressed to a replica with a lower id than the one here,
// or than the tombstone, is dropped; a replica that was removed is told so by those that know (TooOld) and destroys
// itself, leaving a tombstone.
package raftgroup

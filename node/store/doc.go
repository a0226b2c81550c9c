// Package store is the shell around a node's loops: one store directory, the W loops whose ranges live in it, and
// the goroutines that carry out what the loops ask for.
//
//	                 events                       effects
//	transport ─┐                              ┌─► messages: one frame per node and pass
//	requests  ─┼─► mailbox ─► worker: Step ───┼─► appends:  one batch, one sync per pass ─► syncer ─► Durable
//	timers    ─┘      ▲                       ├─► applies:  one unsynced batch ─► applier ─► Applied, outcomes
//	                  └── Durable, Applied ◄──┴─► reads, failures ─► waiters
//
// There are three goroutines a loop: the worker steps it and never waits for the disk; the syncer waits for the log;
// the applier evaluates committed commands. Everything that decides is in raftgroup and meta/apply; this package
// moves their effects to the disk, to other nodes and to those who wait.
//
// Order. Within a loop, batches of appends are committed to the engine in the order of their sequence number, and
// reported durable in that order. A truncation or an applied index is written to the same log of the same engine
// after what it rests on, so that every crash, which keeps a prefix of that log, keeps both or neither.
//
// Failure. An error of the engine is final: the store stops itself, keeps what is on disk, and reports through
// Config.OnFatal. Nothing is answered after that; waiters get base.Ambiguous.
package store

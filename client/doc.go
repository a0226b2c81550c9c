// Package client is Cairn's client for Go programs.
//
//	c, err := client.New(client.Config{Endpoints: []string{"10.0.0.1:7400", "10.0.0.2:7400"}})
//	…
//	defer c.Close()
//	revision, err := c.Put(ctx, "shards/17", []byte("node 3"))
//
// It speaks etcd's KV service and Cairn's own Cluster service. Unlike a client of etcd's it goes straight to the node that leads
// a key's range. It keeps a bounded cache of descriptors, which the nodes fill and heal: each request says which range its
// sender took the key to be in, and the answer says what is newer. Nothing correct rests on the cache, since every node serves
// every request and passes on what another one leads. So a cold client's first request for a range goes to any node, and from
// there to the leader; the next one goes to the leader. After a split, a move or the loss of a leader it is the same.
//
// # Keyspaces, revisions
//
// A Client is a KV, of the keyspace that its Config names (`default` if none); Client.Keyspace gives the KV of another. In a
// single keyspace revisions count 1, 2, 3, … as etcd's do. In a sharded one they are microseconds since the cluster was made,
// or more: they can be compared between ranges, and do not follow each other without gaps. Reads are linearizable unless they
// ask not to be.
//
// # Limits
//
// A write is at most 1.5 MiB (1536 KiB), a transaction at most 128 operations, all in one range. An answer to GetRange comes in
// one message: give a Limit, or use Scan, which holds about 1 MiB whatever it walks over. A call whose context has no deadline
// takes at most Config.RequestTimeout; a Scan takes as long as it takes.
//
// # Errors
//
// What happened to a write is one of three things, and the error says which:
//
//   - *Ambiguous: it may or may not have been carried out, and may still be. The client never sends such a write again. Read,
//     and decide; or make the write a transaction that compares first, so that a second time does nothing.
//   - *Unavailable: it certainly was not carried out, and no node could do so within its time. The client has tried, with
//     pauses, until then.
//   - any other error: it was refused, and nothing happened. ErrCompacted, ErrFutureRevision, *NoKeyspace, *SeveralRanges (it
//     names the ranges) and *Throttled (it says when to come back; the client has waited and tried until its time was over)
//     can be told apart; others are etcd's errors (rpctypes.EtcdError) or a gRPC status.
//
// A read has no effect: the client sends it again, elsewhere, until its context ends, and it is never Ambiguous. If the
// context ended a call, errors.Is finds context.DeadlineExceeded or context.Canceled in its error too.
//
// # Concurrency
//
// All methods of Client and KV may be called from any goroutine at any time. There is one connection to each node, opened when
// it is first needed. A KV is a small value; copy it freely. What is handed in (values, requests) may not be changed until the
// call has returned; what is handed out belongs to the caller.
package client

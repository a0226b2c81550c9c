// Package eval gives commands their meaning: (reader, command) → (writes, response, events), as pure code that every
// replica runs in log order and that comes to the same bytes everywhere. What a client sees is what etcd 3.7 shows.
//
// A write is evaluated when it is applied. Pass.Apply looks at the whole command first (are its keys in the range,
// which way do its comparisons go, may each operation of that way be carried out) and writes only when nothing can
// refuse it any more: a refused command writes nothing and takes no revision. All writes of a command share one
// revision, the one after the range's last; a command that changed nothing takes none. An operation of a transaction
// sees what the operations before it wrote, but comparisons, nested ones too, see the state before the transaction.
//
// A read names a revision or means the newest. Every version of a key is kept (kv/keys has the layout, Record the
// value) until a compaction lets it go: the command sets the mark at once, and CompactStep removes in the background
// what no read can ask for any more.
//
// Refusals are the errors of etcd's rpctypes, so that code and text are etcd's; ErrOutOfSpan is for the caller, who
// knows the descriptor. Any other error means that the engine failed or that stored bytes are damaged: the batch is
// then to be dropped, for it may hold part of the command.
//
// Where etcd itself is at odds with its documentation, what it does counts, because clients have come to rely on it:
//   - a sort by anything but the key without an order ascends, but over the first limit+1 keys only;
//   - keys_only leaves the lease out, unless the order is by value;
//   - an interval of a delete that reaches to the end of the keyspace ("\x00") does not count as overlapping a put of
//     the same transaction, and a later sibling's delete does not either: the operations run in order, and what a
//     key holds in the end is its one version at that revision;
//   - a negative revision means the newest in a read, and a compacted one in a transaction.
//
// In one place etcd stops the server and this package refuses with ErrGRPCKeyNotFound: a put with ignore_value or
// ignore_lease of a key that the same transaction has deleted.
package eval

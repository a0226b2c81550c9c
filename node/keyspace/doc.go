// Package keyspace makes, finds and drops keyspaces, and cuts their ranges by hand.
//
// What there is stands in `sys`: one record a keyspace, and two counters from which the ids of keyspaces and ranges come, which
// are never used twice. Making and dropping take several steps on several nodes. Each step is idempotent, and the record says
// where the work stands, so whoever asks for the same again goes on with it, on whatever node.
//
//   - Create: an id, the record (creating) with the first range's descriptor, that range's replicas on the nodes that it lists,
//     each of which looks the record up before; once a leader answers, the record is active.
//   - Drop: the record (dropping), from which on no name leads there; the replicas of each range that the index knows; the
//     index's entries; the record. A replica on a node that was away finds out from the index and the records, as one does that
//     was removed from its range (node/reconcile).
package keyspace

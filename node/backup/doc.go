// Package backup writes a snapshot of the clients' data of a whole cluster to a stream (save.go), and makes the store of a new cluster
// of one (restore.go). What the file is, says kv/archive.
//
// A snapshot holds every keyspace that clients have, `default` and those that were made, each as it was at one revision: all versions
// that a read could see from the compaction mark on, and the leases. It holds nothing of Cairn's own: no nodes, no policies, no
// operations, no bounds of ranges. A cluster that is made of it has one node, and each keyspace as one range; others join it, and
// what is large is cut up, as in any new cluster.
//
// Revisions, versions and leases' ids are what they were, so that clients that remember one may go on. Revisions of sharded keyspaces
// count from when the first cluster was made, and go on doing so. A lease has its whole TTL again, from when the new cluster has a leader.
package backup

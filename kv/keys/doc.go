// Package keys lays out the engine's key space. Every key is ordered by plain byte comparison.
//
//	0x01 …                                      the store: identity, incarnation, address book, consent
//	0x02 'l' <range> …                          per range, unreplicated: HardState, truncated state, raft log
//	0x02 'r' <range>                            the id of the range's replica on this node
//	0x02 't' <range>                            tombstone: replicas with lower ids may not exist here again
//	0x03 <range> …                              per range, replicated: descriptor, applied index, counters, leases of clients
//	0x04 <keyspace> <key> ^<revision>           replicated data, every version, the newest first
//
// Ranges and keyspaces are eight bytes, the highest first. A user's key is escaped (0x00 becomes 0x00 0xFF) and ends
// with 0x00 0x01, so that it orders as its bytes do whatever follows. The revision is eight bytes of its complement.
// What lies before the revision is the key's prefix (Split): bloom filters are built on it.
//
// The replica ids and the tombstones lie apart from the rest of a range's unreplicated state, so that the ids of all
// replicas of a store are read with one short scan, and deleting a replica's state leaves its tombstone.
package keys

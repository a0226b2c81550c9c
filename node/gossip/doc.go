// Package gossip spreads what each node says of itself: its address, its version, its record, its load. It goes over the
// support class of the transport, a few hundred bytes now and then, also between nodes that share no range, and while no range
// has a leader. So a node of which one other knows the address is soon known to all, wherever it moved.
//
// A node owns its entry, and numbers it: by its start (the incarnation), and within that by a counter. The newest number wins,
// so it does not matter by which way or how often an entry comes. Others pass entries on as they are.
//
// What is said, and what is answered to it:
//
//	the sum over all versions, and what is news here  →  if the sum differs: a digest of versions
//	a digest                                          →  entries that it lacks, and the names of those that are wanted here
//	names of wanted entries                           →  those entries
//	entries                                           →  nothing
//
// So two nodes that know the same send one small frame every few seconds, and no chain of answers is longer than three. A frame
// is bounded: what does not fit is found missing again by a later sum. A lost frame costs a round.
//
// A node speaks with few others: those at distances 1, 2, 4 … on the ring of node ids, so that each has a logarithm of streams
// and all hear of each other within as many steps; and with any other that it knows, drawn anew, whenever one of those cannot be
// reached. Those who speak to it are answered. When it reaches nobody, or hears nothing, the owner of the package is asked
// to look for addresses elsewhere (Config.Seek).
//
// Nothing correct rests on gossip: loads are hints, records are ordered by their own generation (node's book), and whoever
// connects to an address finds out whether the node that it means is there. What another cluster says does not arrive: the
// transport lets nobody in who is of another.
package gossip

// Package join is the way into a cluster: how a node that has an empty store comes to belong to one.
//
// There are two sides. Entry is the newcomer's: it makes a cluster when an operator says so (Init), makes one
// together with others when a number of nodes is expected, or asks its way through the addresses of --join until
// a member lets it in. Registrar is the member's: it gives node ids and keeps the node records in `sys`.
//
// # One cluster, not two
//
// A cluster is founded by one node alone, in one durable write of its own store. What must not happen is that two
// nodes that were meant for one cluster found two. So a candidate first asks every node that it can see for its
// consent, and a node
//
//   - has at most one consent given at a time, and writes it down before it says so;
//   - is itself bound by its own consent: it founds only while its own consent is to itself;
//   - takes a consent back for the sake of a better candidate only after the former candidate, asked by it, has
//     itself consented to the better one, and so can found no more.
//
// Candidates are ordered: an operator's init goes before --bootstrap-expect, then the lower address. All nodes
// come to the same order, so with all expected nodes reachable exactly one candidate gets every consent.
//
// Under faults: a crash loses nothing that was said, for it was written down first; a node that cannot be reached
// delays the founding and never doubles it; a candidate whose store is lost keeps its consents, and the nodes that
// gave them say so and name the way out. Two operators who each init a node that cannot see the other make two
// clusters: nobody can prevent that, and the first node that sees both refuses to choose.
//
// # Names in DNS
//
// What --join leads to is looked up in every round anew, and different nodes may be told different things: an old answer, a part
// of the records, nothing. None of the rules above rests on the list. A candidate needs the consent of at least as many stores as
// are expected, its own counted, each told from the others by its uuid; a store has one consent to give. So two clusters need two
// sets of stores that have none in common, which is twice the expected number: as long as fewer stores than that are started
// with --bootstrap-expect N, at most one cluster is made, whatever DNS says to whom. (The same holds for a list of addresses: N
// should be more than half of them.) What DNS hides delays. That is why a name does not go with N = 1, where the first lookup that
// fails would make a cluster, and why nodes that come later are started without --bootstrap-expect.
//
// An address that a name led to may be anybody's by now. So a node that finds two clusters through names waits and looks again,
// where addresses that were given are refused; and a member does not stop for it.
//
// # One id, one store, one address
//
// A member gives ids by one transaction on `sys`: it compares the node counter, and writes the counter and the
// record. Every change that concerns addresses writes the counter too, so that they are all in one order. A store
// that asks twice gets the same id twice. An address that is to be recorded is first asked who answers there.
package join

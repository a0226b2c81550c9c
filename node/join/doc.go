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
// # One id, one store, one address
//
// A member gives ids by one transaction on `sys`: it compares the node counter, and writes the counter and the
// record. Every change that concerns addresses writes the counter too, so that they are all in one order. A store
// that asks twice gets the same id twice. An address that is to be recorded is first asked who answers there.
package join

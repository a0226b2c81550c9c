package allocator

// How it works, where its ideas are from, and why it comes to rest.
//
// # Overview
//
// A Snapshot is told of nodes, ranges, the policy and of decisions that are taken up or over. Decide looks at what has changed since it
// was last asked, or at a part of it if that is much, sorts each range into a bucket by the first goal that wants something of it, and
// serves the buckets in the order of the goals until it has as many decisions as it may make, the moves allowed at once are used up, or
// it has compared as many places as one pass may. Then it evens out replicas, and leaders, from the fullest node down. What it could not
// do stays in its bucket with the reason, which Withheld counts; it is looked at again by the passes that follow, each of which goes on
// where the one before it stopped.
//
// Each goal is two functions: whether it wants anything, which is cheap and asked for every range; and what is to be done, or why
// nothing can be. Explain asks the same functions and lists every node that they compared.
//
//	allocator.go           the vocabulary
//	policy.go              defaults, and what makes no sense
//	snapshot.go ranges.go  what is known, dense and incremental
//	ledger.go              what is under way
//	topology.go            classes of nodes; constraints and distances as one order of sets ("worth")
//	news.go                what has changed, and is sorted
//	pass.go                one call of Decide; whether the way of a decision is safe
//	place.go               choosing a node
//	guard.go               many that fail together
//	goal_*.go              the goals, in the order of Goal
//	means.go               shares of nodes, and how uneven they are
//	explain.go safe.go     questions that people ask
//
// # Sources
//
// The order of repair before balance, replacing the range with the least margin first, and diversity of localities tier by tier are
// CockroachDB's (pkg/kv/kvserver/allocator); its planners, one for each range's leader, see one range each and balance against each
// other, which this one does not: it sees all ranges of an index range, so it can take the fullest node and choose the range that
// suits it. Filters that give the reason and not a bool, repair apart from balance, leaders that leave a slow node before its
// replicas, and the influence of what is under way on the loads (the ledger) are those of TiKV's PD (pkg/schedule). Slowing and
// stopping by the share of nodes of a zone that fail is what Kubernetes' node lifecycle controller does with evictions. That a move must
// lessen a sum of squares is the usual potential of load balancing; Kafka's Cruise Control has the same lexicographic goals.
//
// # Why it comes to rest
//
// If nothing changes but by its own decisions, a range's voters only become better by this order, of which the first that differs
// counts: fewer that are left behind, fewer lost, fewer on nodes that leave, nearer to the number asked for, fewer constraints missed
// (required before preferred), fewer pairs that share an outer tier, then an inner one. No goal takes a decision that makes an earlier
// one worse; there are finitely many sets of nodes; so those goals end. Balance changes none of that, and lessens one sum over the
// whole snapshot (means.go) with every decision, of replicas or of leaders, by more than half a piece squared: so it ends too. The
// laws in laws_test.go look at both, under any sequence of changes.
//
// A disk that is almost full gives replicas away whatever the sum says: nothing comes to it meanwhile, and each that goes makes it
// emptier by what is known, so that ends first.
//
// Three more things keep it from moving what a moment later would be moved back. Balance begins at the policy's imbalance, and then goes
// on to a quarter of it. A range that was moved for balance is not among the next eighth of all ranges that are; and a replica that has
// come somewhere stays, as far as balance goes, until all has been at rest once. And a node below its share that takes as much as it
// may is waited for, by those that would else give to a node that is above its own.
//
// # Under faults
//
// Whoever is told of old facts decides by them: the generation in each decision has the range refuse it if it has changed. A new decider
// knows nothing of what another has begun, but for what descriptors show, which the first goal ends. Two deciders that move to one
// node are held by that node's reservations. A snapshot that does not know a node takes its replicas for lost, and counts it among
// those that fail: so nodes are put before ranges.

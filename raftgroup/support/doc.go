// Package support is what nodes promise each other: a supporter S promises a requester R that until a time on S's own
// clock it neither votes nor campaigns against R where it said so; R knows of a time on R's own clock until which the
// promise certainly holds. Leases of ranges rest on it (docs/rfc/0001-leases.md).
//
// The one assumption: on every node the clock runs at a rate within MaxDrift of true time. Steps and skew between nodes
// do not matter, for no time of one node is ever compared with a time of another.
//
// Names. A node's incarnation counts its starts and is on disk before its first word. S keeps an epoch for each R, in
// memory. The pair of S's incarnation and that epoch is the Token of S's present support for R: tokens only grow.
//
// Requester and Supporter are values that are stepped: the time comes in as an argument, and what is to be sent goes out.
// Neither starts anything or waits for anything; a node has one of each, and one goroutine at a time uses them.
//
// # Why a promise is kept at least as long as R relies on it
//
// R notes its time t when it sends a request that asks for D. S receives it at its time u and promises until u + D. R takes
// an answer to mean support until t + D·(1 − 2·MaxDrift). In true time, S received after R sent; S's promise lasts D by S's
// clock, hence at least D/(1 + MaxDrift) of true time; R relies on it for D·(1 − 2·MaxDrift) by its clock, hence at most
// D·(1 − 2·MaxDrift)/(1 − MaxDrift), which is less:
//
//	(1 − 2m)(1 + m) = 1 − m − 2m² < 1 − m
//
// - A lost, delayed or doubled request prolongs a promise, or nothing. A lost or delayed answer leaves R with an earlier
// time. An answer to a request that R has forgotten is ignored.
//
// - S withdraws only after its clock has passed its last promise. The token then grows; what R was told under the old one
// had ended by then, and what was fortified under it no longer counts.
//
// - S restarts: its incarnation, and with it its token, is new, and it knows none of its promises. Until its clock has run
// for MaxDuration since the start it is Silent: it neither votes nor campaigns anywhere. No promise is longer than that.
//
// - R restarts: the process that relied on the promises is gone. S hears of the new incarnation and ends them at once,
// under a new token. A request of the old incarnation that comes later is ignored.
//
// - R or S is paused: clocks count on. R looks at its clock after each read that it makes under a lease.
//
// # Why at most one replica of a range holds a lease at a time
//
// (The range's side is package raftgroup: gate.go and lease.go for the leader, fortify.go for followers.) A leader at term T
// asks its followers to fortify it. A follower S does so if it follows that leader at T and its node supports the leader's
// node R now; it answers with the token of that support. From then on it drops requests for its vote and does not campaign,
// until its node withdraws that support, or R's replica says that it leads no more, or a later term has a leader, or the
// leader itself asks a replica to campaign in its place. The lease lasts, on R's clock, until the latest time until which a
// quorum supports R under the tokens with which its replicas fortified R at T; the leader's own replica counts as for ever. In
// a joint configuration that is so of both halves. A read looks at the lease, reads what is applied, and looks again.
//
// Let L, on node R, hold a lease at T at a moment, and let another replica have been elected at a later term before it. Its
// votes came from a quorum of a configuration that meets L's applied one: consecutive configurations, simple or joint, have
// quorums that intersect, and nobody is more than one configuration ahead of a leader. So some S is in both quorums.
//
//   - S is L itself. It voted, and had stepped down before: the gate that readers look at is closed before the step's messages
//     leave, the vote among them, also if it is an older one than L was about to show. A read that looks at the lease after that
//     finds no lease.
//   - S was fortified for (T, R) under the token that the lease counts, and voted because its node had withdrawn that
//     support: its promises had ended by then, and with them all that R relied on under that token (above).
//   - S voted because R's replica had said that it leads no more at T. It says so after it has stepped down, when the gate is
//     closed, and it never leads at T again: a term is won once. That this word may come late, twice or never changes nothing:
//     it is about that term alone.
//   - S voted because it knew of a leader of a term after T. That leader was elected earlier, by this same argument not while
//     L held its lease.
//   - S had restarted since. Its token has another incarnation, so that the lease counts S only as long as R knows of no newer
//     token and its time lasts; until it is over S is silent, since no promise is longer than MaxDuration. A node's first
//     process has no promises before it, and a replica that was made by this process was promised for by no other.
//   - S had never fortified (T, R), or under a token that is no longer S's newest: then the lease did not count it.
//   - S voted in an election that a leader itself asked for (a transfer). L gave its lease up for the whole of T, and closed
//     the gate, before it asked; a request of an earlier term is ignored, for the replica that is asked campaigns at the term
//     after its own.
//
// L's own restart ends its gate with its process. A pause of R stops no clock. Clocks are compared with nothing but
// themselves.
//
// # Why nobody is bound for ever
//
// A fortified follower has no timer: as long as the nodes support each other, it waits for the word that its leader leads no
// more. Whoever stops leading owes that word to each follower that it asked for a promise, and whose answer may have been lost,
// and says it until it is heard; so does a leader whose range has lost a replica owe it to that one. A promise
// that comes later finds a replica that does not lead at that term, or none, and is owed the word then. The word counts also if
// its sender was removed from the range since. And a follower that holds a vote back asks whether its leader still leads.
//
// # Why a read under a lease is new enough
//
// What was acknowledged before L was elected is in L's log, and is applied when an entry of T is: before that the gate is
// closed. What is acknowledged while L leads, L has applied. But a follower may have applied, and shown to its own readers
// (who asked L for the index), an entry that L has committed and not applied yet. So L tells its readers what is committed
// before the messages leave that tell the followers, and a read under the lease also waits until that is applied. The
// simulator found that this was missing from the design, at the first run with leases.
package support

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
package support

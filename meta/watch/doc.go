// Package watch is all watches of a node as one stepped value, the Hub: what is applied and what was asked for goes in, what is
// to be sent and asked comes out. A watch is a span and a revision, and whatever happens to the ranges that hold the span, it
// goes on from that revision (RFC 5).
//
// # Parts
//
// A source is a range that is watched here: fed by the range's replica of this node (Applied), or else by a pull that waits at another's. A
// cursor is a place in a span, with the watches that are there; each of its parts lies in one source and has a next revision. A part that
// is attached takes what its source gets, through the source's index; one that is astray pulls, or looks for its range. A
// stream whose reader is slow parks its watches: of these nothing is kept but their next.
//
// # Why no event is lost or doubled
//
// What holds at any time: a source is complete below its next, for its span; a part has everything below its next, delivered or
// held; a cursor has delivered everything below the smallest next of its parts; a watch was sent everything below its own next, from where it
// began, and nothing at or above it. next only grows, and whatever is below a watch's next is never sent to it again. So:
//
//   - Attaching asks that the part lies in the source's span and is not behind it, or that the source's tail has what lies
//     between. If the part is ahead, the source skips what the part has.
//   - Feeding a source first cuts off what its range has lost: that goes on from where the source was before, as the pass that split
//     the range may show only a piece of what was written there. Then it feeds. Only then the span grows, and the tail
//     begins anew: a range that took its neighbour over does not have what that one wrote before.
//   - A span is believed only of a replica that is as far as the source: what lags tells of the past.
//   - A gap in what a replica shows (a snapshot, versions before that were not looked up, a full mailbox) is pulled by the source
//     for all, and what is shown meanwhile is kept behind it.
//   - A page is complete for the part that it names, up to its Next; another range's id in it means that the part lies there now.
//   - A pull below the compaction's mark ends each watch that lacks something there. One that begins at or above it goes on.
//   - A watch is parked with the first revision that was not sent. It comes back by the live cursor if that is not ahead of it, or
//     by another, with those of its stream that were parked at the same revision of the same span.
//   - Progress names the smallest place of a stream's watches, less one, in the same order as events.
//
// Within a revision events are in the order of writing as long as they come from one range; of a transaction whose keys
// were cut into two ranges since, the left ones come first.
//
// # Bounds
//
// Tails, what a cursor holds back, pulls at once, what waits in a stream and what a step does are bounded by constants of
// internal/base. An idle watch of a key of its own takes about half a kilobyte (BenchmarkIdle). Created and Canceled are
// always sent: whoever reads a client's requests stops while too much waits to be sent to it.
package watch

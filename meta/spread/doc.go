// Package spread reads keys of several ranges of one keyspace as they were at one moment. A Read is stepped: it says what is to
// be asked of which range, and is told the answers; node/dispatch drives it with goroutines, the simulator with events.
//
// The protocol, for a read of the newest state:
//
//  1. Latch. The leaders of all ranges of the span are asked, at once, to keep their range as it is: what is proposed there from
//     then on waits. A leader grants it when all that was proposed before is applied, and says at which revision the range is then
//     and what its span is (raftgroup/latch.go).
//  2. Raise. When the granted spans cover the read's, R is the largest of the revisions. Each leader is asked to propose, through
//     its latch, that the range's revision be raised to R. It does so if the latch has held since it was granted, in the same term;
//     the latch ends with that, and what waited follows in the log. The writers of a range are held up for about one round trip.
//  3. Read. When all of these are applied, every range is read at R, in whatever time that takes: it is what all of them held at
//     one moment, and reads the same for ever.
//
// If a raise fails, or is not answered, all begins again; the raises that were made are harmless.
//
// Why that is one moment. Let t be the moment at which the reader has the last grant, and look at one range, whose raise was
// applied: it is entry k of its log, proposed by the leader of term T after t. The grant says that this leader had applied its log
// up to an index g. Between g and k its log holds raises through other latches and Raft's own empty entries, for nothing else was
// let through, and nobody else appends at term T. The raise is committed, so this is the log, for ever, whoever led or leads: no
// clock and no lease is asked. So:
//
//   - What stands up to g is in what is read: R is not below the range's revision at g.
//   - What stands behind k is not: the raise leaves the range at R at least, and revisions only grow.
//   - A write up to g was known to be committed at the grant, so before t. One behind k was committed after it had been proposed,
//     so after t. Nobody is told of a write before it is committed, and nobody reads it.
//
// So each write has a moment at which it takes effect (when a leader first knows that it is committed), the read takes effect at t,
// and what is read is what took effect before t, in all ranges. With reads and writes of one range, which are linearizable by the
// same moments, that is one order with real time: strictly serializable. A write that was answered before the read was asked for
// took effect before t, and one that was asked for after the answer, after it.
//
// Why a second read at R finds the same. What is behind k lies above R, in this range and in what is cut off it later (a split's
// right part goes on at the left's revision, a merge at the larger). Compaction may take it; then the read says so.
//
// Faults. A leader that is deposed may grant a latch, and its raise is never committed. A leader that is lost between grant and
// raise: its successor knows of no latch, and refuses. A latch that ran out: refused, though nothing may have been written. A raise
// that was proposed and whose answer was lost: it may be applied; begin again. A range that is split before it grants: the span
// of the grant shows it, and the rest is latched too; after it, it cannot be: the split waits. A reader that dies: its latches run
// out after base.LatchDuration. No answer is ever wrong by any of these, only late. In a cluster whose clocks differ R may be
// ahead of a leader's own clock; revisions grow from there one by one, as ever.
//
// A read at a given revision needs no latch: what is there at a revision stays. A range that has not come to the revision is
// raised to it first, if the revision is not in the future.
package spread

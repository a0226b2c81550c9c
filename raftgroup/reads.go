package raftgroup

import (
	"encoding/binary"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// reads are the linearizable reads that wait in a group: those for which no question was asked yet, and the questions
// (rounds) under way. All reads that came before a question was asked share its answer.
type reads struct {
	waiting []ReadID
	since   base.Instant // when the oldest of waiting came
	rounds  []round
}

type round struct {
	seq   uint64
	ids   []ReadID
	at    base.Instant // when it was asked
	index uint64       // the answer; 0: none yet
}

// roundContext makes the question's name unique over replicas and over their starts: an answer to another's question,
// or to one of a former life, must not be taken for this one's.
func (l *Loop) roundContext(g *group, seq uint64) []byte {
	b := make([]byte, 0, 24)
	b = binary.BigEndian.AppendUint64(b, uint64(g.replica))
	b = binary.BigEndian.AppendUint64(b, uint64(l.cfg.Incarnation))
	return binary.BigEndian.AppendUint64(b, seq)
}

// read takes a read in. Where no leader is known it is refused at once: somebody else may know one.
func (l *Loop) read(r *Read) {
	g := l.group(r.Range)
	switch {
	case g == nil:
		l.readDone(r.ID, &base.RangeMoved{Range: r.Range})
		return
	case g.lead == 0:
		l.readDone(r.ID, g.notLeader())
		return
	}
	if n := len(g.reads.rounds); mutant.Is(mutant.ReadJoinsRound) && n > 0 {
		g.reads.rounds[n-1].ids = append(g.reads.rounds[n-1].ids, r.ID)
		return
	}
	if len(g.reads.waiting) == 0 {
		g.reads.since = l.now
	}
	g.reads.waiting = append(g.reads.waiting, r.ID)
	l.touch(g)
}

// startRounds asks for a read index on behalf of all that wait. A leader with a valid lease needs no question.
func (l *Loop) startRounds(g *group) {
	rs := &g.reads
	if len(rs.waiting) > 0 && l.leased(g) {
		l.reads++
		rs.rounds = append(rs.rounds, round{seq: l.reads, ids: rs.waiting, at: rs.since, index: g.log.hard.GetCommit()})
		rs.waiting = nil
		l.finishReads(g)
		l.retimeReads(g)
		return
	}
	if len(rs.waiting) == 0 || g.open() >= base.ReadRounds || g.role == raft.StateLeader && !g.ownTermApplied() {
		l.retimeReads(g)
		return
	}
	l.reads++
	rs.rounds = append(rs.rounds, round{seq: l.reads, ids: rs.waiting, at: rs.since})
	rs.waiting = nil
	g.rn.ReadIndex(l.roundContext(g, l.reads))
	l.retimeReads(g)
}

// answerRead answers another replica's question under this leader's lease: what is committed here is all
// that anybody can have seen.
func (l *Loop) answerRead(g *group, m *Message) {
	l.emitMessage(g, &raftpb.Message{
		Type: raftpb.MsgReadIndexResp.Enum(), From: new(uint64(g.replica)), To: new(uint64(m.FromReplica)), Term: new(g.term),
		Index: new(g.log.hard.GetCommit()), Entries: m.Raft.GetEntries(),
	})
}

// A leader counts its questions from one in each leadership, and a follower's answer to a heartbeat says up to which it was asked. One
// that was cold goes on at its term and counts from one again: an answer to it as it was before, late, would confirm what was
// never asked, and Raft would fail on one that it does not have. So heartbeats are signed with the life of the group.

// sign puts the group's life before the question in a heartbeat.
func (g *group) sign(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgHeartbeat && len(m.GetContext()) > 0 && !mutant.Is(mutant.LateAnswerCounts) {
		m.Context = append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(m.Context)), g.life), m.Context...)
	}
}

// verify takes the life from an answer, and the question too if it was another's.
func (g *group) verify(m *raftpb.Message) {
	c := m.GetContext()
	switch {
	case len(c) == 0 || mutant.Is(mutant.LateAnswerCounts):
	case len(c) > 8 && binary.BigEndian.Uint64(c) == g.life:
		m.Context = c[8:]
	default:
		m.Context = nil
	}
}

// open counts the questions without an answer.
func (g *group) open() int {
	n := 0
	for i := range g.reads.rounds {
		if g.reads.rounds[i].index == 0 {
			n++
		}
	}
	return n
}

// readState takes Raft's answer to a question of this replica.
func (l *Loop) readState(g *group, rs *raft.ReadState) {
	if len(rs.RequestCtx) != 24 || binary.BigEndian.Uint64(rs.RequestCtx) != uint64(g.replica) ||
		binary.BigEndian.Uint64(rs.RequestCtx[8:]) != uint64(l.cfg.Incarnation) {
		return
	}
	seq := binary.BigEndian.Uint64(rs.RequestCtx[16:])
	for i := range g.reads.rounds {
		if g.reads.rounds[i].seq == seq {
			g.reads.rounds[i].index = rs.Index
		}
	}
	l.finishReads(g)
	if len(g.reads.waiting) > 0 {
		l.touch(g)
	}
}

// finishReads answers the rounds whose index is applied.
func (l *Loop) finishReads(g *group) {
	rounds := g.reads.rounds[:0]
	for _, r := range g.reads.rounds {
		if r.index == 0 || r.index > g.applied && !mutant.Is(mutant.ReadBeforeApplied) {
			rounds = append(rounds, r)
			continue
		}
		for _, id := range r.ids {
			l.readDone(id, nil)
		}
	}
	clear(g.reads.rounds[len(rounds):])
	g.reads.rounds = rounds
}

// failRounds ends the questions that will get no answer, because the leader or the term changed. The reads have had no
// effect, and may be asked again.
func (l *Loop) failRounds(g *group) {
	if mutant.Is(mutant.StaleLeaderServes) {
		for i := range g.reads.rounds {
			g.reads.rounds[i].index = g.applied
		}
		l.finishReads(g)
	}
	l.endReads(g, func(r *round) bool { return r.index == 0 }, g.lead == 0)
}

// patience is how long a question may take. One without an answer is given up after an election's time: the answer was
// lost, or the leader is. One whose answer is not applied yet is kept for as long as anybody waits, so that the reads of
// a replica that lags for long are bounded too.
func (l *Loop) patience(r *round) time.Duration {
	if r.index == 0 {
		return l.cfg.electionTimeout()
	}
	return base.RequestTimeout
}

// expireReads ends what was asked too long ago.
func (l *Loop) expireReads(g *group) {
	which := func(r *round) bool { return l.now.Sub(r.at) >= l.patience(r) }
	l.endReads(g, which, l.now.Sub(g.reads.since) >= l.cfg.electionTimeout())
	l.retimeReads(g)
}

func (l *Loop) endReads(g *group, which func(*round) bool, waiting bool) {
	rounds := g.reads.rounds[:0]
	for _, r := range g.reads.rounds {
		if !which(&r) {
			rounds = append(rounds, r)
			continue
		}
		for _, id := range r.ids {
			l.readDone(id, g.notLeader())
		}
	}
	clear(g.reads.rounds[len(rounds):])
	g.reads.rounds = rounds
	if waiting {
		for _, id := range g.reads.waiting {
			l.readDone(id, g.notLeader())
		}
		g.reads.waiting = nil
	}
}

// retimeReads sets the deadline of the read that is given up first.
func (l *Loop) retimeReads(g *group) {
	at := base.Never
	for i := range g.reads.rounds {
		r := &g.reads.rounds[i]
		at = min(at, r.at.Add(l.patience(r)))
	}
	if len(g.reads.waiting) > 0 {
		at = min(at, g.reads.since.Add(l.cfg.electionTimeout()))
	}
	if at != base.Never {
		// Deadlines are rounded up to a tick, so that a steady stream of reads does not move the heap each time.
		tick := base.Instant(l.cfg.TickInterval)
		at = (at/tick + 1) * tick
	}
	if at != g.readsAt {
		g.readsAt = at
		l.retime(g)
	}
}

func (l *Loop) readDone(id ReadID, err error) {
	l.eff.ReadsReady = append(l.eff.ReadsReady, ReadReady{id, err})
}

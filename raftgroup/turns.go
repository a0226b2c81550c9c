package raftgroup

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Where many ranges have no leader at once (a cluster that starts, a node that led many), all of them would campaign together,
// on every node: each message would come so late that its candidate has tried again, and nothing would ever be decided. So
// few of a loop's replicas are candidates at a time, and the others take turns: elections are as quick as there is room for.

// stand has a replica campaign, or queue for its turn. The ranges that everything else needs do not queue.
func (l *Loop) stand(g *group) {
	if l.candidates >= base.CandidatesPerLoop && g.id > base.RangeSys {
		g.electAt = base.Never
		if !g.queued {
			g.queued = true
			l.queue = append(l.queue, g)
		}
		l.retime(g)
		return
	}
	if l.campaign(g) {
		l.candidates++
		g.standing = true
	}
	g.tries++
	retry := l.cfg.retry(g.tries)
	g.standAt = l.now.Add(retry + time.Duration(l.rand.Int63n(int64(retry))))
	// One that is not heard makes room for the others before it tries again.
	g.electAt = min(g.standAt, l.now.Add(l.cfg.retry(1)))
	l.retime(g)
}

// stood ends a candidacy: it was decided, or has lasted long enough.
func (l *Loop) stood(g *group) (before bool) {
	if before = g.standing; before {
		g.standing = false
		l.candidates--
	}
	return before
}

// takeTurns lets those who queue stand, as long as there is room.
func (l *Loop) takeTurns() {
	n := 0
	for ; n < len(l.queue) && l.candidates < base.CandidatesPerLoop; n++ {
		g := l.queue[n]
		g.queued = false
		if l.groups[g.id] == g && !g.leading {
			l.electionDue(g) // it may have found a leader meanwhile
			l.retime(g)
		}
	}
	l.queue = base.Without(l.queue, n)
}

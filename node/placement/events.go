package placement

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/meta/placement"
)

// log writes what became of a decision, with its reason, so that the log alone says why a replica is where it is.
func (r *runner) log(e *placement.Event) {
	r.p.events[e.Kind].Add(1)
	log := r.p.cfg.Logger.With("index", r.index.id)
	if e.Range != 0 {
		log = log.With("range", e.Range, "generation", uint64(e.Generation))
	}
	switch e.Kind {
	case placement.Decided:
		log.Info("decided: "+e.What, "reason", e.Reason, "compared", compared(e.Scores))
	case placement.Directed:
		log.Debug("the range's leader follows: "+e.What, "reason", e.Reason)
	case placement.Done:
		log.Info("done: "+e.What, "took", e.Took)
	case placement.GivenUp:
		log.Info("given up: "+e.What, "reason", e.Reason, "took", e.Took)
	case placement.Withdrawn:
		log.Debug("withdrawn: "+e.What, "took", e.Took)
	case placement.Held:
		log.Warn("what should be done is not: "+e.What, "reason", e.Reason)
	case placement.Freed:
		log.Info("no longer held up: "+e.What, "reason", e.Reason)
	}
}

// Counts is what this node decided since its start, and what it has on its way now.
type Counts struct {
	Decided, Done, GivenUp, Held uint64
	UnderWay                     int // decisions, of the index ranges that this node leads
	Withheld                     int // what should be done and is not
}

// Counts reads them.
func (p *Placement) Counts() Counts {
	of := func(k placement.EventKind) uint64 { return p.events[k].Load() }
	c := Counts{Decided: of(placement.Decided), Done: of(placement.Done), GivenUp: of(placement.GivenUp), Held: of(placement.Held)}
	for _, r := range p.all() {
		c.UnderWay += int(r.size.Load())
		c.Withheld += int(r.withheld.Load())
	}
	return c
}

// compared is the places that a decision looked at, the best first, as the planner ordered them.
func compared(scores []allocator.Score) string {
	var b strings.Builder
	for i, s := range scores {
		if i == loggedScores {
			fmt.Fprintf(&b, " and %d more", len(scores)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if s.Against != "" {
			fmt.Fprintf(&b, "%s not: %s", s.Node, s.Against)
		} else {
			fmt.Fprintf(&b, "%s %.3f", s.Node, s.Score)
		}
	}
	return b.String()
}

// loggedScores is how many places a log line holds.
const loggedScores = 5

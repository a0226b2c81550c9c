package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// leases: at any moment of true time at most one node holds a valid lease of a range. It is asked after everything that
// happens to a node: nobody comes to hold one without that.
func (r *rules) leases(p *process) {
	for _, info := range r.w.ranges {
		_, ok := p.store.Lease(info.id)
		r.goesOn(p, info.id, ok)
		if !ok {
			continue
		}
		r.w.count("leases held against the others")
		r.stalled(p, info.id)
		if r.holders[info.id] == p.n.id {
			continue
		}
		r.holders[info.id] = p.n.id
		r.w.count("leases that changed hands")
		for _, o := range r.w.nodes {
			if o == p.n || o.process == nil || o.process.doomed {
				continue
			}
			if _, both := o.process.store.Lease(info.id); both {
				r.w.violate("one lease a range", "%s and %s both hold a valid lease of %s", o.id, p.n.id, info.id)
			}
		}
	}
}

// goneOnFor is how long a leader may go on without a lease, while its process runs: an election's time-out twice, for one that
// nobody supports yet, and what a transfer may take that fails.
const goneOnFor = 5 * time.Second

// without is since when a node leads a range without a lease, and when it last did anything.
type without struct{ since, last time.Duration }

// goesOn: a leader that no quorum supports steps down.
func (r *rules) goesOn(p *process, id base.RangeID, leased bool) {
	k := nodeRange{p.n.id, id}
	st, ok := p.store.State(id)
	// Where nothing but support is lost, and was from the process's start, it leads as in a cluster that knows nothing of it.
	net, nodes := r.w.net, len(r.w.nodes)
	mute := !net.speaks(p.n.i, nodes, classSupport) && net.speaks(p.n.i, nodes, classRaft)
	if !ok || leased || mute || st.Role != raftgroup.Leader {
		delete(r.without, k)
		return
	}
	w, known := r.without[k]
	if !known || r.w.now-w.last > 500*time.Millisecond { // or it was paused
		w.since = r.w.now
	}
	w.last = r.w.now
	r.without[k] = w
	if full, ok := p.hand.Status(id); ok && (full.LeaseLeft > 0 || full.LeaseForEver) {
		delete(r.without, k) // a cold leader shows readers nothing
		return
	}
	if w.since+goneOnFor < r.w.now {
		r.w.violate("a leader has a lease", "%s leads %s at term %d, and has had no lease for %s", p.n.id, id, st.Term, r.w.now-w.since)
	}
}

// stalledFor is how long after its disk got stuck a node may hold leases: what the disk is given, what it was promised
// then as an idle node, and the slowest clock.
const stalledFor = 2*base.SupportIdleDuration + base.SupportIdleInterval + 100*time.Millisecond

// stalled: a node whose disk completes nothing leads nothing.
func (r *rules) stalled(p *process, id base.RangeID) {
	if st, ok := p.hand.Status(id); ok && st.LeaseForEver {
		return // nobody else could
	}
	if s := p.n.slow; s.stalls > 0 && r.w.now-s.since > stalledFor {
		r.w.violate("a stalled disk leads nothing", "%s holds a lease of %s, and its disk has completed nothing for %s", p.n.id, id, r.w.now-s.since)
	}
}

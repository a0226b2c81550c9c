package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// leases: at any moment of true time at most one node holds a valid lease of a range. It is asked after everything that
// happens to a node: nobody comes to hold one without that.
func (r *rules) leases(p *process) {
	for _, info := range r.w.ranges {
		if _, ok := p.store.Lease(info.id); !ok {
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

// stalledFor is how long after its disk got stuck a node may hold leases: what the disk is given, what it was promised
// then as an idle node, and the slowest clock.
const stalledFor = 2*3*base.SupportDuration + 4*base.SupportInterval + 100*time.Millisecond

// stalled: a node whose disk completes nothing leads nothing.
func (r *rules) stalled(p *process, id base.RangeID) {
	st, ok := p.hand.Status(id)
	if ok && len(st.Descriptor.GetReplicas()) == 1 {
		return // nobody else could
	}
	if s := p.n.slow; s.stalls > 0 && r.w.now-s.since > stalledFor {
		r.w.violate("a stalled disk leads nothing", "%s holds a lease of %s, and its disk has completed nothing for %s", p.n.id, id, r.w.now-s.since)
	}
}

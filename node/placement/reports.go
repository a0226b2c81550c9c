package placement

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// Reports is what this node says of the ranges that it leads to those that decide for them: a journal of changes, in memory. Each
// change gets the next version; of one range only the newest counts. Whoever asks says up to which version he knows, and is told
// the ranges that have another since; so a thousand idle ranges say nothing, and cost nothing. Reports are hints: what is lost with
// the process is told anew, for the next one has another incarnation.
//
// Its methods may be called from any goroutine and do not block, but for Report, which may read the sizes of ranges.
type Reports struct {
	incarnation base.Incarnation
	look        func(base.RangeID) (*metapb.RangeDescriptor, int64, bool)

	mu      sync.Mutex
	version uint64
	led     map[base.RangeID]led
	ended   map[base.RangeID]ended
	log     []logged // by version; one that is not its range's newest is dead
	floor   uint64   // of what ended up to this version, not all is known any more
	rated   map[base.RangeID]struct{}
}

// led is what was last told of a range that this node leads.
type led struct {
	version    uint64
	keyspace   base.KeyspaceID
	generation base.Generation
	bytes      int64 // unknownSize before somebody has asked
	rate       float64
	behind     []base.NodeID
	busy       string
}

// ended is a range that this node led.
type ended struct {
	version uint64
	index   base.KeyspaceID
}

type logged struct {
	version uint64
	id      base.RangeID
}

const unknownSize = -1

// NewReports makes an empty journal. look is how a range is here and about how many bytes it has; false: it is not known. Versions
// begin above 0, which is that of who knows nothing.
func NewReports(inc base.Incarnation, look func(base.RangeID) (*metapb.RangeDescriptor, int64, bool)) *Reports {
	return &Reports{
		incarnation: inc, look: look, version: 1, led: make(map[base.RangeID]led), ended: make(map[base.RangeID]ended),
		rated: make(map[base.RangeID]struct{}),
	}
}

// Changed takes note of a replica whose role or descriptor is another.
func (r *Reports) Changed(c raftgroup.StateChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, is := r.led[c.Range]
	switch {
	case c.Destroyed || c.Role != raftgroup.Leader:
		if is {
			r.end(c.Range, l)
		}
	case c.Descriptor == nil:
	case !is:
		l = led{bytes: unknownSize}
		fallthrough
	case l.generation != base.Generation(c.Descriptor.Generation):
		if is && l.bytes != unknownSize {
			l.bytes = unknownSize // it may have been cut
		}
		l.keyspace, l.generation = base.KeyspaceID(c.Descriptor.KeyspaceId), base.Generation(c.Descriptor.Generation)
		r.put(c.Range, l)
	}
}

// Sized takes note of how large a range is.
func (r *Reports) Sized(id base.RangeID, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.led[id]
	switch {
	case !ok:
	case l.bytes == unknownSize: // its version was not told yet
		l.bytes = bytes
		r.led[id] = l
	case differs(float64(l.bytes), float64(bytes), base.ReportBytes):
		l.bytes = bytes
		r.put(id, l)
	}
}

// Replicas takes note of the nodes whose replicas of a range are not where the leader is, and of why nothing is to be decided for it.
func (r *Reports) Replicas(id base.RangeID, behind []base.NodeID, busy string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.led[id]; ok && (!slices.Equal(l.behind, behind) || l.busy != busy) {
		l.behind, l.busy = behind, busy
		r.put(id, l)
	}
}

// Rates takes note of how busy the ranges are that are in use: those that are not named are not.
func (r *Reports) Rates(of map[base.RangeID]float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.rated {
		if _, in := of[id]; !in {
			r.rate(id, 0)
		}
	}
	for id, rate := range of {
		r.rate(id, rate)
	}
}

func (r *Reports) rate(id base.RangeID, rate float64) {
	if rate < base.ReportRate {
		rate = 0
	}
	l, ok := r.led[id]
	if rate == 0 || !ok {
		delete(r.rated, id)
	} else {
		r.rated[id] = struct{}{}
	}
	if ok && differs(l.rate, rate, base.ReportRate) {
		l.rate = rate
		r.put(id, l)
	}
}

// differs says whether a figure is another by more than noise.
func differs(old, now, least float64) bool {
	return math.Abs(now-old) >= max(least, base.ReportShare*old)
}

// put gives a range that is led the next version.
func (r *Reports) put(id base.RangeID, l led) {
	r.version++
	l.version = r.version
	r.led[id] = l
	delete(r.ended, id)
	r.note(id)
}

// end takes a range out. What ended is remembered for a while; then whoever does not know of it is told everything anew.
func (r *Reports) end(id base.RangeID, l led) {
	delete(r.led, id)
	delete(r.rated, id)
	r.version++
	r.ended[id] = ended{r.version, indexOf(l.keyspace)}
	r.note(id)
	if len(r.ended) <= base.ReportEnded {
		return
	}
	clear(r.ended)
	r.floor, r.log = r.version, r.log[:0]
	for id, l := range r.led { // behind the floor, so that who is told everything in pages is not told to begin again
		r.version++
		l.version = r.version
		r.led[id] = l
		r.log = append(r.log, logged{r.version, id})
	}
}

// note writes into the log, and drops what is dead there once that is most of it.
func (r *Reports) note(id base.RangeID) {
	r.log = append(r.log, logged{r.version, id})
	if len(r.log) > 2*(len(r.led)+len(r.ended))+base.ReportPage {
		r.log = slices.DeleteFunc(r.log, func(e logged) bool { return !r.alive(e) })
	}
}

func (r *Reports) alive(e logged) bool {
	return r.led[e.id].version == e.version || r.ended[e.id].version == e.version
}

// Report answers with what has changed since the version that the asker names: at most a page of it, and then says so.
func (r *Reports) Report(req *rangepb.ReportRequest) *rangepb.Report {
	after, all := req.After, false
	r.mu.Lock()
	defer r.mu.Unlock()
	if after == 0 || base.Incarnation(req.Incarnation) != r.incarnation || after < r.floor || after > r.version {
		after, all = 0, true
	}
	page, upTo, more := r.page(after, base.KeyspaceID(req.KeyspaceId))
	r.mu.Unlock()
	fresh := r.lookAt(page)
	r.mu.Lock()
	out := &rangepb.Report{Version: upTo, Incarnation: uint64(r.incarnation), All: all, More: more}
	for _, id := range page {
		l, is := r.led[id]
		now, looked := fresh[id]
		if is && looked && l.bytes == unknownSize {
			l.bytes = now.bytes
			r.led[id] = l // of the version that is told now
		}
		switch {
		case is:
			out.Ranges = append(out.Ranges, l.report(id, now.descriptor))
		case !all:
			out.Ended = append(out.Ended, uint64(id))
		}
	}
	return out
}

// page are the ranges of an index whose newest version is behind one, and up to which that is known then.
func (r *Reports) page(after uint64, index base.KeyspaceID) (ids []base.RangeID, upTo uint64, more bool) {
	at, _ := slices.BinarySearchFunc(r.log, after+1, func(e logged, v uint64) int { return cmp.Compare(e.version, v) })
	for _, e := range r.log[at:] {
		if len(ids) >= base.ReportPage {
			return ids, upTo, true
		}
		upTo = e.version
		l, is := r.led[e.id]
		switch {
		case is && l.version == e.version && indexOf(l.keyspace) == index,
			!is && r.ended[e.id].version == e.version && r.ended[e.id].index == index:
			ids = append(ids, e.id)
		}
	}
	return ids, r.version, false
}

// looked is how a range is at the moment.
type looked struct {
	descriptor *metapb.RangeDescriptor
	bytes      int64
}

// lookAt looks at the ranges in a page that are led anew, or are others than they were: of those nobody has told their sizes.
func (r *Reports) lookAt(page []base.RangeID) map[base.RangeID]looked {
	var wanted []base.RangeID
	r.mu.Lock()
	for _, id := range page {
		if l, ok := r.led[id]; ok && l.bytes == unknownSize {
			wanted = append(wanted, id)
		}
	}
	r.mu.Unlock()
	out := make(map[base.RangeID]looked, len(wanted))
	for _, id := range wanted {
		if d, bytes, ok := r.look(id); ok {
			out[id] = looked{d, bytes}
		}
	}
	return out
}

// report is what is told of a range. Of its descriptor that is which one it is, unless it is at hand: the index has it.
func (l *led) report(id base.RangeID, d *metapb.RangeDescriptor) *rangepb.RangeReport {
	if d == nil {
		d = &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(l.keyspace), Generation: uint64(l.generation)}
	}
	out := &rangepb.RangeReport{Descriptor_: d, Bytes: uint64(max(0, l.bytes)), RequestsPerSecond: l.rate, Busy: l.busy}
	for _, n := range l.behind {
		out.Behind = append(out.Behind, uint64(n))
	}
	return out
}

// indexOf is the keyspace whose leaders decide for the ranges of another: its index, and root's for root itself.
func indexOf(ks base.KeyspaceID) base.KeyspaceID {
	if index, ok := route.IndexKeyspace(ks); ok {
		return index
	}
	return base.KeyspaceRoot
}

package store

import (
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/load"
	"github.com/cairndb/cairn/raftgroup"
)

// This file counts what is served of each range here: the reads, and the commands that were proposed here and have been
// applied. A request costs one addition to a counter of its range. Only of a hot range that this node leads the keys of some
// requests are looked at, at most base.LoadTouchesPerSecond; only ranges in use have a tally, and Loads takes it away again.

// tally is what is served of one range.
type tally struct {
	requests atomic.Uint64
	due      atomic.Uint64 // the request whose keys are looked at next; noTouch while none is wanted, or while one is looked at

	mu      sync.Mutex
	meter   *load.Meter
	counted uint64                  // of requests, by the meter
	of      *metapb.RangeDescriptor // what is measured: nil before the first look
	led     bool                    // by this node, at the last look
}

const noTouch = math.MaxUint64

// tallies are those of the ranges in use. One that its replica no longer has is taken out by the next look.
type tallies struct {
	mu sync.Mutex
	of map[base.RangeID]*tally
}

// tally is the one of a replica, begun if there is none.
func (s *Store) tally(id base.RangeID, r *replica) *tally {
	if t := r.load.Load(); t != nil {
		return t
	}
	t := &tally{}
	t.restart(s, id)
	t.due.Store(noTouch)
	if !r.load.CompareAndSwap(nil, t) {
		if other := r.load.Load(); other != nil {
			return other
		}
		return t // it went cold in this moment: one request is not counted
	}
	s.loads.mu.Lock()
	s.loads.of[id] = t
	s.loads.mu.Unlock()
	return t
}

// restart has it measure from nothing.
func (t *tally) restart(s *Store, id base.RangeID) {
	seed := uint64(s.cfg.Incarnation)<<32 ^ uint64(id)
	t.meter, t.counted = load.NewMeter(s.Now(), base.NewRand(seed)), t.requests.Load()
}

// served counts a read.
func (s *Store) served(id base.RangeID, r *replica, req, resp proto.Message) {
	t := s.tally(id, r)
	if n, due := t.requests.Add(1), t.due.Load(); n >= due && t.due.CompareAndSwap(due, noTouch) {
		span, ok := load.OfRead(req, resp)
		t.touch(span, ok)
	}
}

// carriedOut counts commands of this node's among entries that were applied.
func (s *Store) carriedOut(id base.RangeID, r *replica, entries []*raftpb.Entry, n int) {
	t := s.tally(id, r)
	if upTo, due := t.requests.Add(uint64(n)), t.due.Load(); upTo >= due && t.due.CompareAndSwap(due, noTouch) {
		t.touch(s.own(entries, (upTo-due)%uint64(n)))
	}
}

// own is the keys of this node's command among entries that so many others of its follow.
func (s *Store) own(entries []*raftpb.Entry, follow uint64) (load.Span, bool) {
	for _, e := range slices.Backward(entries) {
		if e.GetType() != raftpb.EntryNormal {
			continue
		}
		id, body, ok := raftgroup.DecodeProposal(e.GetData())
		if !ok || id.Node != s.node {
			continue
		}
		if follow == 0 {
			return load.OfCommand(body)
		}
		follow--
	}
	return load.Span{}, false
}

// touch looks at the keys of a request, if it has any, and says which one is looked at next. It has taken due.
func (t *tally) touch(span load.Span, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ok {
		t.meter.Touch(span)
	}
	if t.meter.Hot() {
		t.due.Store(t.requests.Load() + t.meter.Gap())
	}
}

// Rate is how many requests of a range are served here in a second, forgetting with base.LoadHalfLife; 0 if it is not in use. It
// begins at 0 when the range is split, or gets another leader: a range is idle only if its rate has been low for a while.
// Reads that a follower serves are counted there, for they are not the leader's work, and not here.
func (s *Store) Rate(id base.RangeID) float64 {
	r := s.replica(id)
	if r == nil {
		return 0
	}
	t := r.load.Load()
	if t == nil {
		return 0
	}
	return t.rate()
}

func (t *tally) rate() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.meter.Rate()
}

// RequestRate is how many requests of the ranges that this node leads are served here in a second, all together.
func (s *Store) RequestRate() (rate float64) {
	s.loads.mu.Lock()
	tallies := slices.Collect(maps.Values(s.loads.of))
	s.loads.mu.Unlock()
	for _, t := range tallies {
		t.mu.Lock()
		if t.led {
			rate += t.meter.Rate()
		}
		t.mu.Unlock()
	}
	return rate
}

// Hot is a range that was hot for a while, and what its load comes to.
type Hot struct {
	Descriptor *metapb.RangeDescriptor // as it was measured
	load.Verdict
}

// Loads looks at the ranges in use, and returns those that this node leads, that may be split, and that have been served threshold
// requests a second for a while: for each a verdict, once in a window. With threshold 0 rates are kept and nothing is hot. It is
// called once in base.LoadInterval.
func (s *Store) Loads(threshold float64) (hot []Hot) {
	s.loads.mu.Lock()
	ids := make([]base.RangeID, 0, len(s.loads.of))
	for id := range s.loads.of {
		ids = append(ids, id)
	}
	s.loads.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		s.loads.mu.Lock()
		t := s.loads.of[id]
		s.loads.mu.Unlock()
		r := s.replica(id)
		if r == nil || r.load.Load() != t {
			s.dropTally(id, t)
			continue
		}
		st, ok := s.State(id)
		var d *metapb.RangeDescriptor
		if view := r.view.Load(); view != nil {
			d = view.Descriptor
		}
		v := t.look(s, id, d, ok && st.Role == raftgroup.Leader, threshold)
		if v.Windows > 0 {
			hot = append(hot, Hot{d, v})
		}
		if v.Rate < base.LoadIdle && r.load.CompareAndSwap(t, nil) {
			s.dropTally(id, t)
		}
	}
	return hot
}

// Rates are those of the ranges that are in use here.
func (s *Store) Rates() map[base.RangeID]float64 {
	s.loads.mu.Lock()
	of := maps.Clone(s.loads.of)
	s.loads.mu.Unlock()
	out := make(map[base.RangeID]float64, len(of))
	for id, t := range of {
		out[id] = t.rate()
	}
	return out
}

func (s *Store) dropTally(id base.RangeID, t *tally) {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if s.loads.of[id] == t {
		delete(s.loads.of, id)
	}
}

// look measures what came since the last look. Another span is another range, and a leader that is new has another load. A cold
// replica, which may still be read as it is, has no descriptor at hand.
func (t *tally) look(s *Store, id base.RangeID, d *metapb.RangeDescriptor, led bool, threshold float64) load.Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d != nil && t.of != nil && (led && !t.led || !desc.SameSpan(t.of, d)) {
		t.restart(s, id)
	}
	t.of, t.led = d, led
	if d == nil || !led || !base.KeyspaceID(d.KeyspaceId).Splits() {
		threshold = 0
	}
	wasHot := t.meter.Hot()
	n := t.requests.Load()
	v := t.meter.Look(s.Now(), n-t.counted, threshold)
	t.counted = n
	switch {
	case !t.meter.Hot():
		t.due.Store(noTouch)
	case !wasHot:
		t.due.Store(n + t.meter.Gap())
	}
	return v
}

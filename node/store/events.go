package store

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/raftgroup"
)

// What is applied is told to whoever watches (Config.OnEvents), for each range by the one goroutine that applies it, so that what is
// told is in order: it tells between two passes where a replica stands, and after a pass what that has shown. A replica that goes cold
// stays told of, and is not made warm for it; nothing happens to it.

// teller is what an applier tells. All but asked is the applier's own.
type teller struct {
	of    map[base.RangeID]*told
	asked []asked // under the applier's lock
}

// asked has the teller look at a range: what is wanted of it has changed, or its replica is another.
type asked struct {
	id   base.RangeID
	want *watch.Want
}

// told is how far a range was told of.
type told struct {
	prev       bool // with the versions before
	here       bool // a replica was told of, and how it is
	next       base.Revision
	compacted  base.Revision
	generation base.Generation

	// In a pass: what was written, and whether the range's span has changed.
	events      []*watch.Event
	applied     bool
	cut, merged bool
}

// Watch says whether a range's events are wanted. That holds until it says otherwise, be there a replica of the range now or not. If
// there is one, or as soon as there is, it is told where the replica stands; what it shows from then on is told. When the replica
// ends OnGone is told, after all events.
func (s *Store) Watch(w watch.Want) { s.worker(w.Range).applier.ask(asked{w.Range, &w}) }

// replaced has it told that a range has another replica here, or none, if anybody watches it.
func (s *Store) replaced(id base.RangeID) {
	if a := s.worker(id).applier; a.watched.Load() > 0 {
		a.ask(asked{id: id})
	}
	s.polls.look(s, id)
}

func (a *applier) ask(q asked) {
	a.mu.Lock()
	a.teller.asked = append(a.teller.asked, q)
	a.mu.Unlock()
	a.cond.Broadcast()
}

// answer looks at the ranges that it was asked to look at.
func (a *applier) answer(all []asked) {
	for _, q := range all {
		t := a.teller.of[q.id]
		switch {
		case q.want == nil && t == nil:
			continue
		case q.want != nil && !q.want.Events:
			delete(a.teller.of, q.id)
		case q.want != nil && t == nil:
			t = &told{prev: q.want.Prev}
			if a.teller.of == nil {
				a.teller.of = map[base.RangeID]*told{}
			}
			a.teller.of[q.id] = t
		case q.want != nil:
			t.prev = q.want.Prev
		}
		// Before it is looked at: a replica that comes later finds that it is watched.
		a.watched.Store(int64(len(a.teller.of)))
		if t != nil && (q.want == nil || q.want.Events) {
			a.stands(q.id, t)
		}
	}
}

// stands tells where the replica of a range stands.
func (a *applier) stands(id base.RangeID, t *told) {
	var v *apply.View
	if r := a.s.replica(id); r != nil {
		v = a.s.viewOf(id, r)
	}
	if v == nil {
		if t.here {
			t.here = false
			a.s.cfg.OnGone(id)
		}
		return
	}
	t.here, t.next, t.compacted, t.generation = true, v.Counters.Revision+1, v.Counters.Compacted, desc.Generation(v.Descriptor)
	a.s.cfg.OnEvents(watch.Applied{Range: id, Descriptor: v.Descriptor, From: t.next, Next: t.next, Prev: t.prev, Compacted: t.compacted})
}

// wants has a replica's state machine tell what it writes, if that is wanted.
func (a *applier) wants(id base.RangeID, sm *apply.Replica) {
	t := a.teller.of[id]
	sm.WantEvents(t != nil, t != nil && t.prev)
}

// tell tells what a pass has shown. A range may have been applied more than once in it.
func (a *applier) tell(queue []raftgroup.Apply, results []apply.Result) {
	if len(a.teller.of) == 0 {
		return
	}
	for i := range queue {
		if t := a.teller.of[queue[i].Range]; t != nil {
			t.applied = true
			t.events = append(t.events, results[i].Events...)
			t.cut, t.merged = t.cut || len(results[i].Splits) > 0, t.merged || len(results[i].Merges) > 0
			results[i].Events = nil // a result is kept, and would keep them
		}
	}
	for i := range queue {
		if t := a.teller.of[queue[i].Range]; t != nil && t.applied {
			a.tellOf(queue[i].Range, t)
		}
	}
}

// tellOf tells of one range. What a split took away is another's to tell. A range that took its neighbour over says nothing of what
// both wrote before: that is in the engine, and shows as a gap.
func (a *applier) tellOf(id base.RangeID, t *told) {
	events, cut, merged := t.events, t.cut, t.merged
	t.events, t.applied, t.cut, t.merged = nil, false, false, false
	r := a.s.replica(id)
	if r == nil {
		return
	}
	v := a.s.viewOf(id, r)
	if v == nil || !t.here {
		return
	}
	next := v.Counters.Revision + 1
	ap := watch.Applied{
		Range: id, Descriptor: v.Descriptor, From: t.next, Next: next, Prev: t.prev, Events: events, Compacted: v.Counters.Compacted,
	}
	switch {
	case merged:
		ap.From, ap.Events = next, nil
	case cut:
		ks := base.KeyspaceID(v.Descriptor.KeyspaceId)
		ap.Events = slices.DeleteFunc(events, func(ev *watch.Event) bool { return !desc.Contains(v.Descriptor, ks, ev.Key) })
	case next == t.next && ap.Compacted == t.compacted && t.generation == desc.Generation(v.Descriptor):
		return
	}
	t.next, t.compacted, t.generation = next, ap.Compacted, desc.Generation(v.Descriptor)
	a.s.cfg.OnEvents(ap)
}

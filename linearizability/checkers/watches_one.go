package checkers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cairndb/cairn/linearizability"
)

// one is a single watch that is held against what was written.
type one struct {
	*watches
	*followed
	from    int64               // nothing below belongs to it; 0: it is not known yet
	last    int64               // the highest revision of an event
	open    bool                // the last response was a fragment of revision last
	told    int64               // the highest revision of a notification
	taken   map[change]bool     // what it got, of the workload's keys
	current map[change]struct{} // of revision last, of all keys: for what comes twice
	wrong   map[string]bool     // ways of being wrong that were told: one of each is enough
}

// change names one change of one key.
type change struct {
	key string
	rev int64
}

func (o *one) complain(way, format string, args ...any) {
	if !o.wrong[way] {
		o.wrong[way] = true
		o.add(way+": "+fmt.Sprintf(format, args...), o.op)
	}
}

// follow holds one watch against what was written.
func (w *watches) follow(f *followed) {
	o := &one{watches: w, followed: f, from: f.req.StartRevision, taken: map[change]bool{}, current: map[change]struct{}{}, wrong: map[string]bool{}}
	for i := range f.msgs {
		switch m := &f.msgs[i]; m.Kind {
		case linearizability.Created:
			o.created(i, m)
		case linearizability.Events:
			o.response(m)
		case linearizability.Progress:
			if o.open {
				o.complain("not atomic", "a notification of revision %d comes within revision %d", m.Revision, o.last)
			}
			o.told = max(o.told, m.Revision)
		case linearizability.Compacted:
			o.ended(m)
		}
	}
	o.missing()
	if u := f.req.UntilRevision; f.op.Final && u > 0 && f.resp.Next <= u && f.resp.Compacted == 0 {
		o.complain("not live", "all is well again, and it did not come to revision %d within its time: it is at %d%s", u, f.resp.Next, reasonOf(f))
	}
}

func reasonOf(f *followed) string {
	if f.resp.Reason == "" {
		return ""
	}
	return ": " + f.resp.Reason
}

func (o *one) created(i int, m *linearizability.FollowMessage) {
	if i > 0 {
		o.complain("created twice", "at revision %d", m.Revision)
	}
	if o.from == 0 {
		o.from = m.Revision + 1
	}
}

// response takes in a response with events.
func (o *one) response(m *linearizability.FollowMessage) {
	for i := range m.Events {
		e := &m.Events[i]
		o.order(e, i == 0)
		o.event(e)
	}
	if len(m.Events) > 0 && m.Revision < o.last {
		o.complain("header behind", "a response at revision %d has an event of revision %d", m.Revision, o.last)
	}
	if m.Fragment && !o.req.Fragment {
		o.complain("not asked for", "a fragment")
	}
	o.open = m.Fragment
}

// order looks at an event's revision: first says that it begins a response.
func (o *one) order(e *linearizability.FollowEvent, first bool) {
	c := change{e.Key, e.Revision}
	switch _, twice := o.current[c]; {
	case e.Revision < o.from:
		o.complain("not resumable", "it begins at revision %d, and gets %v", o.from, e)
	case twice || o.taken[c]:
		o.complain("not unique", "%v comes twice", e)
	case e.Revision <= o.told:
		o.complain("progress too early", "%v comes behind a notification of revision %d", e, o.told)
	case e.Revision < o.last:
		o.complain("not ordered", "%v comes behind revision %d", e, o.last)
	case e.Revision == o.last && first && !o.open:
		o.complain("not atomic", "%v comes in another response than what came of its revision before", e)
	}
	if e.Revision > o.last {
		o.last = e.Revision
		clear(o.current)
	}
	o.current[c] = struct{}{}
}

// event looks at what an event says.
func (o *one) event(e *linearizability.FollowEvent) {
	switch {
	case !o.holds(e.Key):
		o.complain("not of its span", "%v", e)
	case o.filtered(e.Deleted):
		o.complain("not filtered", "%v", e)
	case e.Prev != nil && !o.req.PrevKv:
		o.complain("not asked for", "the version before of %v", e)
	}
	if !strings.HasPrefix(e.Key, o.prefix) {
		return
	}
	o.taken[change{e.Key, e.Revision}] = true
	i, ok := o.version(e.Key, e.Revision)
	if !ok {
		return // gather took all events in
	}
	v := o.versions[e.Key][i]
	if v.deleted != e.Deleted || !e.Deleted && v.value != e.Value {
		o.add(fmt.Sprintf("wrong: it gets %v, and it is %s", e, v), v.op, o.op)
	}
	if !e.Deleted && (e.Version == 1) != (e.Create == e.Revision) {
		o.complain("wrong", "%v is version %d, created at %d", e, e.Version, e.Create)
	}
	o.before(e, i)
}

func (v seenVersion) String() string {
	if v.deleted {
		return fmt.Sprintf("a deletion at %d", v.rev)
	}
	return fmt.Sprintf("%q at %d", v.value, v.rev)
}

// before holds the version before against what was before: the key's i-th change is the event's.
func (o *one) before(e *linearizability.FollowEvent, i int) {
	if !o.req.PrevKv {
		return
	}
	var was *seenVersion
	if i > 0 {
		was = &o.versions[e.Key][i-1]
	}
	fresh := !e.Deleted && e.Version == 1
	switch {
	case e.Prev != nil && fresh:
		o.complain("prev_kv", "%v is new, and comes with a version before", e)
	case e.Prev != nil && e.Prev.Revision >= e.Revision:
		o.complain("prev_kv", "%v comes with a version from after it", e)
	case e.Prev != nil && (was == nil || was.rev != e.Prev.Revision || was.deleted || was.value != e.Prev.Value):
		o.complain("prev_kv", "%v, and before it there was %v", e, was)
	case e.Prev != nil || o.compacted(e.Revision, o.op): // the version before may be forgotten
	case !fresh:
		o.complain("prev_kv", "%v comes without the version before", e)
	case was != nil && !was.deleted && !o.mayErase(e.Key, 0, o.op):
		o.complain("prev_kv", "%v is said to be new, and before it there was %v", e, was)
	}
}

// ended looks at the end of a watch whose history is gone.
func (o *one) ended(m *linearizability.FollowMessage) {
	at := max(o.from, o.last, o.told+1)
	switch {
	case !o.compacted(m.Revision, o.op):
		o.complain("not compacted", "it is told that history before revision %d is gone, and nobody asked for that", m.Revision)
	case at >= m.Revision && o.from > 0:
		o.complain("not compacted", "it is told that history before revision %d is gone, and it is at %d", m.Revision, at)
	}
}

// missing finds what the watch should have got, up to where it came.
func (o *one) missing() {
	end := max(o.last, o.told)
	if o.open {
		end = max(o.last-1, o.told) // the rest of it did not come
	}
	if o.from == 0 || end < o.from {
		return
	}
	first, _ := slices.BinarySearch(o.keys, string(o.req.Key))
	for _, key := range o.keys[first:] {
		if !o.holds(key) {
			break
		}
		i, _ := o.version(key, o.from)
		for _, v := range o.versions[key][i:] {
			if v.rev > end {
				break
			}
			if !o.filtered(v.deleted) && !o.taken[change{key, v.rev}] {
				way := "not reliable"
				if v.rev > o.last {
					way = "progress too early"
				}
				o.wrongWith(way, v, "it came to revision %d from %d, and did not get %q: %v", end, o.from, key, v)
			}
		}
	}
}

// wrongWith complains with who wrote what is missing.
func (o *one) wrongWith(way string, v seenVersion, format string, args ...any) {
	if !o.wrong[way] {
		o.wrong[way] = true
		o.add(way+": "+fmt.Sprintf(format, args...), v.op, o.op)
	}
}

// holds says whether a key belongs to the watch's span.
func (o *one) holds(key string) bool {
	end := spanEnd(o.req.Key, o.req.RangeEnd)
	return key >= string(o.req.Key) && (end == "" || key < end)
}

func (o *one) filtered(deleted bool) bool {
	return deleted && o.req.NoDelete || !deleted && o.req.NoPut
}

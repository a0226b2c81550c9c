package watch

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// tail is what a source remembers: all events of its range from first on, up to where the source is. It is cut at its beginning, by
// whole revisions, and begins anew where the range grows: it lacks what the part that came had before.
type tail struct {
	events []*Event
	bytes  int
	first  base.Revision
	prev   base.Revision // from here on the events are with the version before
}

func (e *Event) size() int { return base.WatchEventBytes + max(len(e.Wire), len(e.WithPrev)) }

func (t *tail) push(e *Event) {
	t.events = append(t.events, e)
	t.bytes += e.size()
}

// trim keeps at most that many bytes.
func (t *tail) trim(most int) {
	n, bytes := 0, t.bytes
	for n < len(t.events) && bytes > most {
		for r := t.events[n].Revision; n < len(t.events) && t.events[n].Revision == r; n++ {
			bytes -= t.events[n].size()
		}
	}
	if n > 0 {
		t.first = t.events[n-1].Revision + 1
		t.events, t.bytes = base.Without(t.events, n), bytes
	}
}

// reset forgets what was before a revision.
func (t *tail) reset(at base.Revision) {
	*t = tail{first: at, prev: max(t.prev, at)}
}

// has says whether everything from a revision on is there.
func (t *tail) has(from base.Revision, prev bool) bool {
	return from >= t.first && (!prev || from >= t.prev)
}

// from is what is there from a revision on.
func (t *tail) from(r base.Revision) []*Event {
	i, _ := slices.BinarySearchFunc(t.events, r, func(e *Event, r base.Revision) int { return cmp.Compare(e.Revision, r) })
	return t.events[i:]
}

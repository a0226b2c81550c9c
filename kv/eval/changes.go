package eval

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// ChangesRequest asks for what was written in a span from a revision on.
type ChangesRequest struct {
	Start, End []byte // [Start, End), within the range; an empty End is the end of the keyspace
	From       base.Revision
	FromSub    uint32 // of the revision From only what has this Record.Sub or a higher one
	// MostBytes is about how much a page holds (EventBytes). One revision is on it whole, whatever its size, unless Cut lets the page
	// end within it; at least one change is.
	MostBytes int
	Cut       bool
	// Prev wants the version before, if a read at the revision before could show it.
	Prev bool
}

// ChangesPage is all that was written from the asked revision on, up to Next without it.
type ChangesPage struct {
	Events []Event // by revision, and within one as they were written
	Next   base.Revision
	// NextSub is not 0 if the page ended within the revision Next: what has a lower Record.Sub is on it.
	NextSub uint32
}

// EventBytes is what an event counts on a page: its keys and values, and what comes with them in memory.
func EventBytes(ev *Event) int {
	n := len(ev.Key) + len(ev.Record.Value) + pairOverhead
	if ev.Prev != nil {
		n += len(ev.Key) + len(ev.Prev.Value) + pairOverhead
	}
	return n
}

// Changes returns a page of changes. Its Next is the one after the range's revision if nothing was left out. A From below the
// compaction's mark is refused as compacted: what was overwritten there may be gone. See Range for what the reader must hold.
//
// Versions are stored by key and not by revision, so a page is one walk over the whole span: blocks that hold nothing new enough are
// left out by the engine, and once the page is full so are those that hold nothing old enough; of what else is too new nothing but the
// key is looked at. Keys that are written in the order of time cost what is on the page; others make larger pages worth it.
func Changes(r engine.Reader, env *Env, req ChangesRequest) (ChangesPage, error) {
	switch {
	case bytes.Compare(req.Start, env.Start) < 0, len(env.End) > 0 && (len(req.End) == 0 || bytes.Compare(req.End, env.End) > 0):
		return ChangesPage{}, ErrOutOfSpan
	case req.From < env.Counters.Compacted:
		return ChangesPage{}, rpctypes.ErrGRPCCompacted
	case req.From > env.Counters.Revision || len(req.End) > 0 && bytes.Compare(req.Start, req.End) >= 0:
		return ChangesPage{Next: max(req.From, env.Counters.Revision+1)}, nil
	}
	g := gathering{
		from: position{max(req.From, 1), req.FromSub}, most: max(1, req.MostBytes), cutAt: 2 * max(1, req.MostBytes), within: req.Cut,
		next: position{env.Counters.Revision + 1, 0},
	}
	span := keys.DataSpan(env.Keyspace, req.Start, req.End)
	g.below = g.next.rev
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, MinRevision: g.from.rev, BelowRevision: &g.below})
	if err != nil {
		return ChangesPage{}, err
	}
	err = g.walk(it)
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return ChangesPage{}, err
	}
	g.cut()
	if req.Prev {
		err = g.lookBack(r, env)
		g.cut()
	}
	out := ChangesPage{Events: g.events, Next: g.next.rev, NextSub: g.next.sub}
	out.whole(g.from.rev)
	return out, err
}

// whole has a page that ends within a revision end before that one, if nothing of it is on the page and the page does not begin in it.
func (p *ChangesPage) whole(from base.Revision) {
	if n := len(p.Events); p.Next != from && (n == 0 || p.Events[n-1].Record.Mod != p.Next) {
		p.NextSub = 0
	}
}

// position is a place in the order of all changes.
type position struct {
	rev base.Revision
	sub uint32
}

func (p position) compare(o position) int {
	if c := cmp.Compare(p.rev, o.rev); c != 0 {
		return c
	}
	return cmp.Compare(p.sub, o.sub)
}

func (e *Event) position() position { return position{e.Record.Mod, e.Record.Sub} }

// gathering is the lowest changes of a span, while they are looked for.
type gathering struct {
	from, next position      // what it holds: next sinks as it overflows
	below      base.Revision // the lowest revision of which nothing is wanted, for the engine
	within     bool          // it may end within a revision
	events     []Event       // their bytes are copies
	bytes      int
	most       int
	cutAt      int    // bytes at which it is ordered and cut
	seek       []byte // scratch
}

func (g *gathering) walk(it engine.Iterator) error {
	tooNew := 0
	for ok := it.First(); ok; {
		prefix, rev, err := splitVersion(it.Key())
		switch {
		case err != nil:
			return err
		case rev < g.from.rev: // and so are the key's other versions
			tooNew, ok = 0, it.NextPrefix()
			continue
		case rev > g.next.rev || rev == g.next.rev && g.next.sub == 0:
			if tooNew++; tooNew <= stepsBeforeSeek {
				ok = it.Next()
				continue
			}
			highest := g.next.rev
			if g.next.sub == 0 {
				highest--
			}
			g.seek = binary.BigEndian.AppendUint64(append(g.seek[:0], prefix...), ^uint64(highest))
			tooNew, ok = 0, it.SeekGE(g.seek)
			continue
		}
		if err := g.add(it, rev); err != nil {
			return err
		}
		tooNew, ok = 0, it.Next()
	}
	return it.Error()
}

// add takes a copy of the version on which the iterator stands, if it is one of those that are wanted.
func (g *gathering) add(it engine.Iterator, rev base.Revision) error {
	k := it.Key()
	v, err := it.Value()
	if err != nil {
		return err
	}
	rec, err := DecodeRecord(rev, v)
	if err != nil {
		return corruptRecord(k, err)
	}
	if at := (position{rev, rec.Sub}); at.compare(g.from) < 0 || at.compare(g.next) >= 0 {
		return nil
	}
	_, key, _, ok := keys.DecodeData(make([]byte, 0, len(k)+len(rec.Value)), k)
	if !ok {
		return corruptRecord(k, errNotData)
	}
	if rec.Value != nil {
		both := append(key, rec.Value...)
		key, rec.Value = both[:len(key):len(key)], both[len(key):]
	}
	g.events = append(g.events, Event{Key: key, Record: rec})
	if g.bytes += EventBytes(&g.events[len(g.events)-1]); g.bytes >= g.cutAt {
		g.cut()
		g.cutAt = g.bytes + g.most // so that a revision larger than a page is not ordered again and again
		if g.below = g.next.rev; g.next.sub > 0 {
			g.below++
		}
	}
	return nil
}

// cut orders what was gathered and drops the highest of it that is more than fits.
func (g *gathering) cut() {
	slices.SortFunc(g.events, func(a, b Event) int {
		if c := a.position().compare(b.position()); c != 0 {
			return c
		}
		return bytes.Compare(a.Key, b.Key)
	})
	n, size, next := fits(g.events, g.most, g.within)
	if g.bytes = size; n < len(g.events) {
		clear(g.events[n:])
		g.events, g.next = g.events[:n], next
	}
}

// fits says how many of ordered events a page holds, how large they are, and where it ends if it does not hold them all. It does not end
// between two events of one position: ranges that are one now may each have written at it.
func fits(events []Event, most int, within bool) (n, size int, next position) {
	begin, before := 0, 0 // where the last part that is not cut begins, and the size before that
	for i := range events {
		ev := &events[i]
		if i == 0 || ev.Record.Mod != events[i-1].Record.Mod || within && ev.Record.Sub != events[i-1].Record.Sub {
			begin, before = i, size
		}
		size += EventBytes(ev)
		if size <= most || begin == 0 {
			continue
		}
		next = events[begin].position()
		if !within {
			next.sub = 0
		}
		return begin, before, next
	}
	return len(events), size, next
}

// Part returns the page that answers a request for what lies on a larger one, of its span or a part of it. It shares its memory.
func (p *ChangesPage) Part(req ChangesRequest) ChangesPage {
	from := position{req.From, req.FromSub}
	i, _ := slices.BinarySearchFunc(p.Events, from, func(ev Event, at position) int { return ev.position().compare(at) })
	most := max(1, req.MostBytes)
	var events []Event
	for size := 0; i < len(p.Events) && (size <= 2*most || p.Events[i].Record.Mod == p.Events[i-1].Record.Mod); i++ {
		ev := &p.Events[i]
		if bytes.Compare(ev.Key, req.Start) < 0 || len(req.End) > 0 && bytes.Compare(ev.Key, req.End) >= 0 {
			continue
		}
		events = append(events, *ev)
		size += EventBytes(ev)
	}
	out := ChangesPage{Events: events, Next: p.Next, NextSub: p.NextSub}
	n, _, next := fits(events, most, req.Cut)
	if n < len(events) {
		out.Events, out.Next, out.NextSub = events[:n], next.rev, next.sub
	} else if i < len(p.Events) {
		out.Next, out.NextSub = p.Events[i].Record.Mod, 0
	}
	out.whole(from.rev)
	return out
}

// lookBack finds what was there before each change: what a read at the revision before it shows. The walk left out blocks with old
// versions only, so they are looked up.
func (g *gathering) lookBack(r engine.Reader, env *Env) error {
	f := finder{r: r}
	for i := range g.events {
		ev := &g.events[i]
		if ev.Record.Version == 1 || ev.Record.Mod-1 < env.Counters.Compacted {
			continue
		}
		rec, ok, err := f.findLive(env.Keyspace, ev.Key, ev.Record.Mod-1)
		if err != nil {
			_ = f.close() // the error is that of the look
			return err
		}
		if ok {
			rec.Value = bytes.Clone(rec.Value)
			ev.Prev = &rec
		}
	}
	return f.close()
}

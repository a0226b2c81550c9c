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
	// MostBytes is about how much a page holds (EventBytes); one revision is on it whole, whatever its size.
	MostBytes int
	// Prev wants the version before, if a read at the revision before could show it.
	Prev bool
}

// EventBytes is what an event counts on a page: its keys and values, and what comes with them in memory.
func EventBytes(ev *Event) int {
	n := len(ev.Key) + len(ev.Record.Value) + pairOverhead
	if ev.Prev != nil {
		n += len(ev.Key) + len(ev.Prev.Value) + pairOverhead
	}
	return n
}

// Changes returns a page of changes: all those of the span with revisions in [req.From, next), ordered by revision and within one as
// they were written. next is the one after the range's revision if nothing was left out. A From below the compaction's mark is
// refused as compacted: what was overwritten there may be gone. See Range for what the reader must hold.
//
// Keys are stored by key and not by revision, so a page is one walk over the whole span: blocks that hold nothing new enough are left
// out by the engine, and of what is too new for the page nothing but the key is looked at. Larger pages make for fewer walks.
func Changes(r engine.Reader, env *Env, req ChangesRequest) (events []Event, next base.Revision, err error) {
	switch {
	case bytes.Compare(req.Start, env.Start) < 0, len(env.End) > 0 && (len(req.End) == 0 || bytes.Compare(req.End, env.End) > 0):
		return nil, 0, ErrOutOfSpan
	case req.From < env.Counters.Compacted:
		return nil, 0, rpctypes.ErrGRPCCompacted
	case req.From > env.Counters.Revision || len(req.End) > 0 && bytes.Compare(req.Start, req.End) >= 0:
		return nil, max(req.From, env.Counters.Revision+1), nil
	}
	p := changesPage{
		from: max(req.From, 1), next: env.Counters.Revision + 1, most: max(1, req.MostBytes), cutAt: 2 * max(1, req.MostBytes),
	}
	span := keys.DataSpan(env.Keyspace, req.Start, req.End)
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, MinRevision: p.from})
	if err != nil {
		return nil, 0, err
	}
	err = p.walk(it)
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, 0, err
	}
	p.cut()
	if req.Prev {
		err = p.lookBack(r, env)
		p.cut()
	}
	return p.events, p.next, err
}

// changesPage gathers the changes of the lowest revisions of a span.
type changesPage struct {
	from, next  base.Revision // what it holds: next sinks as it overflows
	events      []Event       // their bytes are copies
	bytes, most int
	cutAt       int    // bytes at which it is ordered and cut
	seek        []byte // scratch
}

func (p *changesPage) walk(it engine.Iterator) error {
	tooNew := 0
	for ok := it.First(); ok; {
		prefix, rev, err := splitVersion(it.Key())
		switch {
		case err != nil:
			return err
		case rev < p.from: // and so are the key's other versions
			tooNew, ok = 0, it.NextPrefix()
			continue
		case rev >= p.next:
			if tooNew++; tooNew <= stepsBeforeSeek {
				ok = it.Next()
				continue
			}
			p.seek = binary.BigEndian.AppendUint64(append(p.seek[:0], prefix...), ^uint64(p.next-1))
			tooNew, ok = 0, it.SeekGE(p.seek)
			continue
		}
		if err := p.add(it, rev); err != nil {
			return err
		}
		tooNew, ok = 0, it.Next()
	}
	return it.Error()
}

// add takes a copy of the version on which the iterator stands.
func (p *changesPage) add(it engine.Iterator, rev base.Revision) error {
	k := it.Key()
	v, err := it.Value()
	if err != nil {
		return err
	}
	rec, err := DecodeRecord(rev, v)
	if err != nil {
		return corruptRecord(k, err)
	}
	_, key, _, ok := keys.DecodeData(make([]byte, 0, len(k)+len(rec.Value)), k)
	if !ok {
		return corruptRecord(k, errNotData)
	}
	if rec.Value != nil {
		both := append(key, rec.Value...)
		key, rec.Value = both[:len(key):len(key)], both[len(key):]
	}
	p.events = append(p.events, Event{Key: key, Record: rec})
	if p.bytes += EventBytes(&p.events[len(p.events)-1]); p.bytes >= p.cutAt {
		p.cut()
		p.cutAt = p.bytes + p.most // so that a revision larger than a page is not ordered again and again
	}
	return nil
}

// cut orders what was gathered and drops the highest revisions, whole ones, that are more than fits.
func (p *changesPage) cut() {
	slices.SortFunc(p.events, func(a, b Event) int {
		if c := cmp.Compare(a.Record.Mod, b.Record.Mod); c != 0 {
			return c
		}
		return cmp.Compare(a.Record.Sub, b.Record.Sub)
	})
	size, begin, before := 0, 0, 0 // of the events so far; where the last one's revision begins, and the size before that
	for i := range p.events {
		if i == 0 || p.events[i].Record.Mod != p.events[i-1].Record.Mod {
			begin, before = i, size
		}
		size += EventBytes(&p.events[i])
		if size > p.most && begin > 0 {
			p.next = p.events[begin].Record.Mod
			clear(p.events[begin:])
			p.events, size = p.events[:begin], before
			break
		}
	}
	p.bytes = size
}

// lookBack finds what was there before each change: what a read at the revision before it shows. The walk left out blocks with old
// versions only, so they are looked up.
func (p *changesPage) lookBack(r engine.Reader, env *Env) error {
	f := finder{r: r}
	for i := range p.events {
		ev := &p.events[i]
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

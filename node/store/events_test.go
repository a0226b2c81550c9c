package store

import (
	"bytes"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/watch"
)

// listener is told what a store applies, and holds it against what the engine has: what was told, with the gaps that were shown, is
// all there is.
type listener struct {
	t      testing.TB
	s      *Store
	of     map[base.RangeID]*heard
	events int // that were told
	gaps   int
	gone   []base.RangeID
	last   watch.Applied
}

type heard struct {
	next base.Revision
	prev bool
}

func listen(t testing.TB) *listener { return &listener{t: t, of: map[base.RangeID]*heard{}} }

// config has a store tell it.
func (l *listener) config(c Config) Config {
	c.OnEvents, c.OnGone = l.applied, l.ended
	return c
}

// watch wants a range.
func (l *listener) watch(id base.RangeID, prev bool) {
	l.s.Watch(watch.Want{Range: id, Events: true, Prev: prev})
}

func (l *listener) ended(id base.RangeID) {
	if l.of[id] == nil || l.s.View(id) != nil {
		l.t.Errorf("%s has ended: told of before %v, here %v", id, l.of[id] != nil, l.s.View(id) != nil)
	}
	delete(l.of, id)
	l.gone = append(l.gone, id)
}

func (l *listener) applied(ap watch.Applied) {
	l.last = ap
	h := l.of[ap.Range]
	switch {
	case h == nil:
		h = &heard{next: ap.From}
		l.of[ap.Range] = h
		if ap.From != ap.Next || len(ap.Events) > 0 {
			l.t.Errorf("the first that is told of %s is [%d, %d) with %d events", ap.Range, ap.From, ap.Next, len(ap.Events))
		}
	case ap.From < h.next:
		l.t.Errorf("%s: told from %d on, and up to %d before", ap.Range, ap.From, h.next)
	case ap.From > h.next:
		l.gaps++
	}
	v := l.s.View(ap.Range)
	if v == nil || v.Counters.Revision+1 != ap.Next || v.Counters.Compacted != ap.Compacted || !desc.Equal(v.Descriptor, ap.Descriptor) {
		l.t.Errorf("told that %s is at %d, compacted %d, %v; it is %v", ap.Range, ap.Next, ap.Compacted, ap.Descriptor, v)
		return
	}
	l.events += len(ap.Events)
	h.next, h.prev = ap.Next, ap.Prev
	if ap.From < ap.Compacted || ap.From == ap.Next {
		return
	}
	want := l.stored(ap.Range, ap.From, ap.Prev)
	if len(want) != len(ap.Events) {
		l.t.Errorf("%s from %d on: %d events were told, %d are stored", ap.Range, ap.From, len(ap.Events), len(want))
		return
	}
	for i, ev := range ap.Events {
		sum := func(e *watch.Event) []byte {
			if ap.Prev && ev.Revision > ap.Compacted {
				return e.Whole()
			}
			return e.Wire
		}
		if !bytes.Equal(sum(ev), sum(want[i])) || ev.Revision != want[i].Revision || ev.Delete != want[i].Delete || !bytes.Equal(ev.Key, want[i].Key) {
			l.t.Errorf("%s: told %x, stored is %x", ap.Range, ev.Whole(), want[i].Whole())
		}
	}
}

// stored reads all changes of a range from a revision on, in pages.
func (l *listener) stored(id base.RangeID, from base.Revision, prev bool) (all []*watch.Event) {
	d := l.s.View(id).Descriptor
	req := &rangepb.ChangesRequest{KeyspaceId: d.KeyspaceId, Start: d.Start, End: d.End, From: int64(from), MostBytes: 300, PrevKv: prev}
	for {
		resp, err := l.s.Changes(id, req)
		must(l.t, err)
		page, err := watch.DecodePage(resp)
		must(l.t, err)
		all = append(all, page.Events...)
		if resp.Next > resp.Revision {
			return all
		}
		if resp.Next <= req.From {
			l.t.Fatalf("a page from %d on ends at %d", req.From, resp.Next)
		}
		req.From = resp.Next
	}
}

func del(t *testing.T, key, end string) *kvpb.Command {
	return &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: body(t, &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)})}}
}

// What is written in a range, while it is cut, put together and compacted, is told once, in order, and is what is stored.
func TestEventsAreWhatIsStored(t *testing.T) {
	events := 0
	for seed := range uint64(30) {
		n := newSplitNode(t, func(engine.Writer) {})
		r := base.NewRand(seed)
		n.l.watch(leftRange, seed%2 == 0)
		n.l.watch(rightRange, false) // there is none yet
		right := base.RangeID(0)
		for i := range 60 {
			id, key := leftRange, string(rune('a'+r.Int63n(26)))
			if right != 0 && key >= "m" {
				id = right
			}
			switch x := r.Int63n(20); {
			case x < 10:
				must(t, n.propose(id, &kvpb.Command{NowMicros: int64(i) * 10, Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte(key), Value: fmt.Append(nil, i)})}}))
			case x < 13:
				must(t, n.propose(id, del(t, key, "")))
			case x < 15:
				from, to := "a", "m"
				if id == right {
					from, to = "m", "zz"
				}
				must(t, n.propose(id, del(t, from, to)))
			case x < 16:
				at := n.s.View(id).Counters.Revision - base.Revision(r.Int63n(3))
				_ = n.propose(id, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: body(t, &pb.CompactionRequest{Revision: int64(at)})}}) // it may be compacted
			case x < 17:
				must(t, n.propose(id, &kvpb.Command{NowMicros: 1 << 20, Body: &kvpb.Command_RaiseRevision{RaiseRevision: &kvpb.RaiseRevision{Key: []byte(key), Revision: int64(n.s.View(id).Counters.Revision) + 5}}}))
			case x < 18 && right == 0:
				n.split()
				right = rightRange
			case x < 19 && right != 0 && len(n.l.gone) == 0:
				n.merge()
				right = 0
			}
			if len(n.l.gone) > 0 { // an id is never used again
				break
			}
		}
		events += n.l.events
		if v := n.s.View(leftRange); n.l.of[leftRange].next != v.Counters.Revision+1 {
			t.Errorf("told up to %d; it is at %d", n.l.of[leftRange].next, v.Counters.Revision)
		}
	}
	if events < 300 {
		t.Errorf("only %d events were told", events)
	}
}

// A pull from 0 reads nothing: it says which range holds a key, and where that is. One that waits is answered when the range is cut.
func TestChangesTellOfTheRange(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	must(t, n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})}}))
	must(t, n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: body(t, &pb.CompactionRequest{Revision: int64(n.s.View(leftRange).Counters.Revision)})}}))
	v := n.s.View(leftRange)
	req := &rangepb.ChangesRequest{KeyspaceId: v.Descriptor.KeyspaceId, Start: []byte("a")}
	resp, err := n.s.Changes(leftRange, req)
	must(t, err)
	if resp.RangeId != uint64(leftRange) || resp.Next != int64(v.Counters.Revision)+1 || resp.Compacted > 0 || len(resp.Events) > 0 || !bytes.Equal(resp.End, v.Descriptor.End) {
		t.Errorf("from 0: %v of %v", resp, v)
	}
	req.From, req.End = resp.Next, v.Descriptor.End
	if ready(v, req) {
		t.Error("there is nothing, and it does not wait")
	}
	n.split()
	if v = n.s.View(leftRange); !ready(v, req) {
		t.Errorf("the range has become %v, and it waits", v.Descriptor)
	}
}

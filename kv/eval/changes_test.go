package eval_test

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// sameEvents holds events against the model's.
func (r *randomRun) sameEvents(got []eval.Event, want []*mvccpb.Event, prev bool) {
	if len(got) != len(want) {
		r.Fatalf("%d events, want %d:\n%v\n%v", len(got), len(want), got, want)
	}
	for i := range got {
		ev := &mvccpb.Event{Kv: got[i].Record.KeyValue(got[i].Key)}
		if got[i].Record.Tombstone {
			ev.Type = mvccpb.Event_DELETE
		}
		if got[i].Prev != nil {
			ev.PrevKv = got[i].Prev.KeyValue(got[i].Key)
		}
		w := proto.CloneOf(want[i])
		if !prev {
			w.PrevKv = nil
		}
		if !proto.Equal(ev, w) {
			r.Fatalf("event %d is\n%v\nwant\n%v", i, ev, w)
		}
	}
}

// changes reads all changes of a span from a revision on, page by page: together they are what the model knows, and each page holds
// what it says.
func (r *randomRun) changes() {
	req := eval.ChangesRequest{
		From:      base.Revision(rapid.SampledFrom([]int64{r.m.compacted, 0, r.draw.rev(r.m, "from")}).Draw(r.T, "from")),
		MostBytes: rapid.IntRange(0, 700).Draw(r.T, "page bytes"), Cut: rapid.Bool().Draw(r.T, "within revisions"),
		Prev: rapid.Bool().Draw(r.T, "prev"),
	}
	if r.draw.flag("part") {
		req.Start, req.End = r.draw.key(), r.draw.end()
	}
	if bytes.Equal(req.End, []byte{0}) {
		req.End = nil
	}
	if req.From < base.Revision(r.m.compacted) {
		if _, err := eval.Changes(r.e, r.env, req); err != rpctypes.ErrGRPCCompacted {
			r.Fatalf("from %d on, compacted at %d: %v", req.From, r.m.compacted, err)
		}
		return
	}
	want := r.m.changes(req.Start, req.End, int64(req.From), req.Prev)
	var got []eval.Event
	for {
		page, err := eval.Changes(r.e, r.env, req)
		noError(r, err)
		r.page(&req, &page)
		r.part(req, &page)
		got = append(got, page.Events...)
		if req.From, req.FromSub = page.Next, page.NextSub; page.Next > r.env.Counters.Revision {
			break
		}
	}
	r.sameEvents(got, want, true)
}

func (r *randomRun) page(req *eval.ChangesRequest, page *eval.ChangesPage) {
	size := 0
	for i := range page.Events {
		ev := &page.Events[i]
		size += eval.EventBytes(ev)
		within := ev.Record.Mod == page.Next && ev.Record.Sub < page.NextSub
		if ev.Record.Mod < req.From || ev.Record.Mod >= page.Next && !within {
			r.Fatalf("an event at %d.%d on the page [%d.%d, %d.%d)", ev.Record.Mod, ev.Record.Sub, req.From, req.FromSub, page.Next, page.NextSub)
		}
	}
	if page.Next < req.From || page.Next == req.From && req.From <= r.env.Counters.Revision && page.NextSub <= req.FromSub {
		r.Fatalf("a page from %d.%d on ends at %d.%d", req.From, req.FromSub, page.Next, page.NextSub)
	}
	n := len(page.Events)
	whole := n > 0 && (req.Cut && n == 1 || page.Events[0].Record.Mod == page.Events[n-1].Record.Mod && !req.Cut)
	switch {
	case size > req.MostBytes && !whole && n > 0:
		r.Fatalf("%d bytes on a page of %d", size, req.MostBytes)
	case page.NextSub != 0 && !req.Cut:
		r.Fatalf("a page ends at %d.%d", page.Next, page.NextSub)
	case n == 0 && page.Next <= max(req.From-1, r.env.Counters.Revision):
		r.Fatalf("an empty page ends at %d, the range is at %d", page.Next, r.env.Counters.Revision)
	}
}

// part cuts the page, of a part of the span too, from a larger one.
func (r *randomRun) part(req eval.ChangesRequest, page *eval.ChangesPage) {
	larger := req
	larger.MostBytes *= rapid.IntRange(1, 4).Draw(r.T, "larger")
	run, err := eval.Changes(r.e, r.env, larger)
	noError(r, err)
	same := func(got eval.ChangesPage, want *eval.ChangesPage) {
		if !reflect.DeepEqual(got.Events, want.Events) && len(got.Events)+len(want.Events) > 0 || got.Next != want.Next || got.NextSub != want.NextSub {
			r.Fatalf("cut from a larger page\n%v\nwant\n%v", got, *want)
		}
	}
	same(run.Part(req), page)
	later := req
	if later.From, later.FromSub = page.Next, page.NextSub; page.Next >= run.Next {
		return
	}
	if r.draw.flag("narrower") {
		later.Start, later.MostBytes = []byte("b"), 1<<20
		if bytes.Compare(later.Start, req.Start) < 0 || len(req.End) > 0 && bytes.Compare(req.End, later.Start) <= 0 {
			return
		}
	}
	want, err := eval.Changes(r.e, r.env, later)
	noError(r, err)
	if want.Next < run.Next || want.Next == run.Next && want.NextSub < run.NextSub {
		same(run.Part(later), &want)
		return
	}
	want.Events = slices.DeleteFunc(want.Events, func(ev eval.Event) bool {
		return ev.Record.Mod > run.Next || ev.Record.Mod == run.Next && ev.Record.Sub >= run.NextSub
	})
	want.Next, want.NextSub = run.Next, run.NextSub
	if n := len(want.Events); later.From != want.Next && (n == 0 || want.Events[n-1].Record.Mod != want.Next) {
		want.NextSub = 0 // as a page does that has nothing of the revision in which it would end
	}
	same(run.Part(later), &want)
}

// Ranges that were put together may each have written at one revision and place in it: a page does not end between the two.
func TestChangesOfOnePosition(t *testing.T) {
	const ks, rev = base.KeyspaceDefault, 9
	e := engine.NewMem()
	env := newEnv(ks)
	env.Counters.Revision = rev
	written := []string{"a", "b", "c", "d"}
	b := e.NewBatch()
	for i, key := range written {
		rec := eval.Record{Create: rev, Mod: rev, Version: 1, Sub: uint32(i / 2), Value: []byte("v")}
		noError(t, b.Set(keys.Data(nil, ks, []byte(key), rev), eval.AppendRecord(nil, &rec)))
	}
	noError(t, b.CommitNoSync())
	noError(t, b.Close())
	for most := 1; most < 600; most += 40 {
		req := eval.ChangesRequest{From: 1, MostBytes: most, Cut: true}
		var got []string
		for pages := 0; req.From <= rev; pages++ {
			if pages > len(written) {
				t.Fatalf("pages of %d bytes: %q, and at %d.%d still not at the end", most, got, req.From, req.FromSub)
			}
			page, err := eval.Changes(e, env, req)
			noError(t, err)
			for _, ev := range page.Events {
				if ev.Record.Mod == page.Next && ev.Record.Sub >= page.NextSub {
					t.Fatalf("pages of %d bytes: one ends at %d.%d and holds what is there", most, page.Next, page.NextSub)
				}
				got = append(got, string(ev.Key))
			}
			req.From, req.FromSub = page.Next, page.NextSub
		}
		if !slices.Equal(got, written) {
			t.Fatalf("pages of %d bytes: %q", most, got)
		}
	}
}

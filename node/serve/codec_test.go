package serve

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// drawEvent is an event as it is shared, and as protobuf has it: with the version before if prev.
func drawEvent(t *rapid.T, prev bool) (*watch.Event, *mvccpb.Event) {
	ev := &mvccpb.Event{Kv: &mvccpb.KeyValue{
		Key: rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "key"), ModRevision: rapid.Int64Min(1).Draw(t, "revision"),
	}}
	if rapid.Bool().Draw(t, "delete") {
		ev.Type = mvccpb.Event_DELETE
	} else {
		size := rapid.SampledFrom([]int{0, 10, sharedBytes - 10, sharedBytes, 3 * sharedBytes}).Draw(t, "size")
		ev.Kv.Value = bytes.Repeat([]byte{'v'}, size)
	}
	e := &watch.Event{Key: ev.Kv.Key, Revision: base.Revision(ev.Kv.ModRevision), Delete: ev.Type == mvccpb.Event_DELETE}
	e.Wire, _ = proto.Marshal(ev)
	if rapid.Bool().Draw(t, "there was one before") {
		with := proto.CloneOf(ev)
		with.PrevKv = &mvccpb.KeyValue{Key: ev.Kv.Key, ModRevision: 1, Value: []byte("before")}
		e.WithPrev, _ = proto.Marshal(with)
		if prev {
			ev = with
		}
	}
	return e, ev
}

// drawOut is a response, and the one that a client is to get.
func drawOut(t *rapid.T, id int64) (watch.Out, *pb.WatchResponse) {
	o := watch.Out{
		Kind:  rapid.SampledFrom([]watch.OutKind{watch.Created, watch.Events, watch.Events, watch.Events, watch.Progress, watch.Canceled}).Draw(t, "kind"),
		Watch: id, Revision: base.Revision(rapid.Int64Min(0).Draw(t, "header")), Bytes: 100,
	}
	r := &pb.WatchResponse{}
	switch o.Kind {
	case watch.Created:
		r.Created = true
	case watch.Progress:
		o.Watch = rapid.SampledFrom([]int64{id, noWatch}).Draw(t, "of")
	case watch.Canceled:
		o.Watch = rapid.SampledFrom([]int64{id, noWatch}).Draw(t, "of")
		o.Reason = rapid.SampledFrom([]string{"", "mvcc: watcher range is empty"}).Draw(t, "reason")
		o.Compacted = base.Revision(rapid.Int64Min(0).Draw(t, "mark"))
		r.Canceled, r.Created, r.CancelReason, r.CompactRevision = true, o.Watch == noWatch, o.Reason, int64(o.Compacted)
	case watch.Events:
		o.Prev, o.Fragment = rapid.Bool().Draw(t, "prev"), rapid.IntRange(0, 9).Draw(t, "fragment") == 0
		for range rapid.IntRange(1, 4).Draw(t, "events") {
			e, ev := drawEvent(t, o.Prev)
			o.Events, r.Events = append(o.Events, e), append(r.Events, ev)
		}
		r.Fragment = o.Fragment
	}
	r.Header = &pb.ResponseHeader{ClusterId: testOrigin.cluster, MemberId: testOrigin.member, RaftTerm: testTerm, Revision: int64(o.Revision)}
	r.WatchId = o.Watch
	return o, r
}

const testTerm = 7

var testOrigin = origin{cluster: 1<<63 + 5, member: 3, term: func() uint64 { return testTerm }}

// A response is byte for byte what protobuf makes of it, through the codec as it is used.
func TestResponseIsWhatProtobufMakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, want := drawOut(t, rapid.Int64Min(0).Draw(t, "watch"))
		p := newPlan(new(last))
		p.take([]watch.Out{o})
		got, err := newCodec().Marshal(p.encode(testOrigin, 0))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Materialize(), plain) {
			t.Fatalf("%v\nis     %x\nwanted %x", want, got.Materialize(), plain)
		}
	})
}

// Whatever is put together, each watch gets its events in order, at the revision of the last; nothing passes what tells of it; and
// what was cut in fragments is not put together with anything.
func TestPlanKeepsTheOrderOfEachWatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shared := new(last)
		plans := []*plan{newPlan(shared), newPlan(shared)}
		for i := range 4 { // a plan is used again, and finds what the other has made
			p := plans[i%2]
			var outs []watch.Out
			var want []*pb.WatchResponse
			for range rapid.IntRange(1, 20).Draw(t, "outs") {
				if n := len(outs); n > 0 && outs[n-1].Kind == watch.Events && rapid.Bool().Draw(t, "shared") {
					o, r := outs[n-1], proto.CloneOf(want[n-1]) // the same events for another watch, or for the same again
					o.Watch = rapid.Int64Range(0, 2).Draw(t, "watch")
					r.WatchId = o.Watch
					outs, want = append(outs, o), append(want, r)
					continue
				}
				o, r := drawOut(t, rapid.Int64Range(0, 2).Draw(t, "watch"))
				outs, want = append(outs, o), append(want, r)
			}
			checkPlan(t, p, outs, want)
		}
	})
}

// What many streams are sent alike is encoded once: the events of one step, whichever of them come together, and the term with them.
func TestStreamsShareWhatTheyAreSent(t *testing.T) {
	asked := 0
	from := origin{cluster: 1, member: 2, term: func() uint64 { asked++; return testTerm }}
	shared := new(last)
	outs := func(id int64, revs ...base.Revision) (out []watch.Out) {
		for _, rev := range revs {
			out = append(out, watch.Out{Kind: watch.Events, Watch: id, Revision: rev, Events: eventsAt[rev-1 : rev : rev], Bytes: 100})
		}
		return out
	}
	encode := func(outs []watch.Out) (got section, head []byte) {
		p := newPlan(shared)
		p.take(outs)
		if len(p.begin) != 1 {
			t.Fatalf("%d responses", len(p.begin))
		}
		e := p.encode(from, 0)
		return section(e.message[1:]), e.head
	}
	at := func(s section) *byte { return &s[0].ReadOnlyData()[0] }
	a, headA := encode(outs(1, 1, 2))
	b, headB := encode(outs(2, 1, 2))
	if len(a) != 1 || len(b) != 1 || at(a) != at(b) || asked != 1 {
		t.Errorf("the same events are encoded twice, and the term was asked for %d times", asked)
	}
	if bytes.Equal(headA, headB) {
		t.Error("two watches have one head")
	}
	c, _ := encode(outs(1, 2))
	d, _ := encode(outs(2, 1, 2))
	if at(c) == at(a) || bytes.Equal(c[0].ReadOnlyData(), a[0].ReadOnlyData()) {
		t.Error("other events are encoded as those")
	}
	if at(d) == at(a) || !bytes.Equal(d[0].ReadOnlyData(), a[0].ReadOnlyData()) {
		t.Error("more than the last is kept, or the same events differ")
	}
}

// eventsAt has one event at each of the first revisions.
var eventsAt = []*watch.Event{{Key: []byte("k"), Revision: 1, Wire: []byte("one")}, {Key: []byte("k"), Revision: 2, Wire: []byte("two")}}

func checkPlan(t *rapid.T, p *plan, outs []watch.Out, want []*pb.WatchResponse) {
	p.take(outs)
	defer p.forget()
	bytes := 0
	var got []*pb.WatchResponse
	for _, at := range p.begin {
		r := &pb.WatchResponse{}
		if err := proto.Unmarshal(p.encode(testOrigin, at).message.Materialize(), r); err != nil {
			t.Fatal(err)
		}
		got, bytes = append(got, r), bytes+p.bytes[at]
	}
	for i := range outs {
		bytes -= outs[i].Bytes
	}
	if bytes != 0 {
		t.Fatalf("%d bytes are not told of", bytes)
	}
	// Between two that are no events, what a watch gets is the same, whole fragments included.
	type heard struct {
		events   [3][]*mvccpb.Event
		revision [3]int64
	}
	hear := func(responses []*pb.WatchResponse) (out []any) {
		h := heard{}
		for _, r := range responses {
			if len(r.Events) == 0 {
				out = append(out, h, r)
				h = heard{}
				continue
			}
			h.events[r.WatchId] = append(h.events[r.WatchId], r.Events...)
			h.revision[r.WatchId] = r.Header.Revision
		}
		return append(out, h)
	}
	a, b := hear(got), hear(want)
	if len(a) != len(b) {
		t.Fatalf("%d pieces, want %d", len(a), len(b))
	}
	for i := range a {
		switch x := a[i].(type) {
		case heard:
			y := b[i].(heard)
			for w := range x.events {
				if x.revision[w] != y.revision[w] || !proto.Equal(&pb.WatchResponse{Events: x.events[w]}, &pb.WatchResponse{Events: y.events[w]}) {
					t.Fatalf("watch %d: got %v at %d, want %v at %d", w, x.events[w], x.revision[w], y.events[w], y.revision[w])
				}
			}
		case *pb.WatchResponse:
			if !proto.Equal(x, b[i].(*pb.WatchResponse)) {
				t.Fatalf("got %v, want %v", x, b[i])
			}
		}
	}
	fragments := func(rs []*pb.WatchResponse) (n int) {
		for _, r := range rs {
			if r.Fragment {
				n++
			}
		}
		return n
	}
	if fragments(got) != fragments(want) {
		t.Fatalf("%d fragments, want %d", fragments(got), fragments(want))
	}
}

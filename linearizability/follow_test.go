package linearizability

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/followpb"
)

func drawVersion(t *rapid.T, key string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(key), Value: drawBytes(t), ModRevision: rapid.Int64Range(1, 1<<62).Draw(t, "mod"), CreateRevision: rapid.Int64Range(0, 1<<62).Draw(t, "create"),
		Version: rapid.Int64().Draw(t, "version"), Lease: rapid.SampledFrom([]int64{0, 0, 7, -1 << 63}).Draw(t, "lease"),
	}
}

func versionOf(kv *mvccpb.KeyValue) FollowVersion {
	return FollowVersion{Revision: kv.ModRevision, Create: kv.CreateRevision, Version: kv.Version, Lease: kv.Lease, Value: string(kv.Value)}
}

// What a follower is told is what its log says.
func TestFollowLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := NewFollower(0)
		var want []FollowMessage
		for range rapid.IntRange(0, 12).Draw(t, "messages") {
			m := FollowMessage{
				Kind: FollowKind(rapid.IntRange(int(Created), int(Compacted)).Draw(t, "kind")), At: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "at")) * time.Microsecond,
				Revision: rapid.Int64Range(0, 1<<62).Draw(t, "revision"),
			}
			switch m.Kind {
			case Created:
				f.Created(m.At, m.Revision)
			case Progress:
				f.Progress(m.At, m.Revision)
			case Compacted:
				f.Compacted(m.At, m.Revision, "gone")
			default:
				m.Fragment, m.Events = rapid.Bool().Draw(t, "fragment"), []FollowEvent{}
				var events []*mvccpb.Event
				for range rapid.IntRange(0, 4).Draw(t, "events") {
					e := &mvccpb.Event{Kv: drawVersion(t, rapid.StringN(0, 3, 3).Draw(t, "key"))}
					want := FollowEvent{Key: string(e.Kv.Key), FollowVersion: versionOf(e.Kv)}
					if rapid.Bool().Draw(t, "delete") {
						e.Type, want.Deleted = mvccpb.Event_DELETE, true
					}
					if rapid.Bool().Draw(t, "prev") {
						e.PrevKv = drawVersion(t, want.Key)
						prev := versionOf(e.PrevKv)
						want.Prev = &prev
					}
					events, m.Events = append(events, e), append(m.Events, want)
				}
				f.Events(m.At, m.Revision, events, m.Fragment)
			}
			want = append(want, m)
		}
		raw, err := proto.Marshal(f.Response())
		if err != nil {
			t.Fatal(err)
		}
		resp := &followpb.FollowResponse{}
		if err := proto.Unmarshal(raw, resp); err != nil {
			t.Fatal(err)
		}
		got, err := FollowMessages(resp)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d messages of %d: %v", len(got), len(want), err)
		}
		for i := range got {
			if got[i].String() != want[i].String() || fmt.Sprintf("%#v", flat(got[i])) != fmt.Sprintf("%#v", flat(want[i])) {
				t.Fatalf("message %d: %v, want %v", i, got[i], want[i])
			}
		}
	})
}

// flat has no pointers: they print as what they point to.
func flat(m FollowMessage) (out []any) {
	out = append(out, m.Kind, m.At, m.Revision, m.Fragment)
	for _, e := range m.Events {
		out = append(out, e.Key, e.Deleted, e.FollowVersion)
		if e.Prev != nil {
			out = append(out, *e.Prev)
		}
	}
	return out
}

// Where a watch goes on, and when its ends are reached.
func TestFollowNext(t *testing.T) {
	event := func(rev int64) []*mvccpb.Event {
		return []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: rev}}}
	}
	f := NewFollower(0)
	if f.Next() != 0 {
		t.Errorf("before it is created it goes on at %d", f.Next())
	}
	f.Created(0, 7)
	if f.Next() != 8 {
		t.Errorf("from now on at 7 it goes on at %d", f.Next())
	}
	f.Events(0, 9, event(9), true)
	if until := (&followpb.FollowRequest{UntilEvents: 1}); f.Next() != 9 || f.Reached(until) {
		t.Errorf("within 9 it goes on at %d, and has ended: %t", f.Next(), f.Reached(until))
	}
	f.Events(0, 9, event(9), false)
	if until := (&followpb.FollowRequest{UntilRevision: 9}); f.Next() != 10 || !f.Reached(until) {
		t.Errorf("behind 9 it goes on at %d, and has ended: %t", f.Next(), f.Reached(until))
	}
	f.Progress(0, 20)
	if f.Next() != 21 || f.Taken() != 2 || f.Reached(&followpb.FollowRequest{UntilRevision: 21}) {
		t.Errorf("behind 20 it goes on at %d, after %d events", f.Next(), f.Taken())
	}
}

// FuzzFollowMessages: whatever the bytes are, they are read or refused.
func FuzzFollowMessages(f *testing.F) {
	w := NewFollower(3)
	w.Created(5, 3)
	w.Events(9, 4, []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 4}, PrevKv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 2}}}, false)
	f.Add(w.Response().Log)
	f.Fuzz(func(t *testing.T, log []byte) {
		msgs, err := FollowMessages(&followpb.FollowResponse{Keys: [][]byte{[]byte("a")}, Log: log})
		if (err != nil) != (msgs == nil) && len(log) > 0 {
			t.Fatalf("%d messages, and %v", len(msgs), err)
		}
	})
}

// What an event costs in a history.
func BenchmarkFollowLog(b *testing.B) {
	f := NewFollower(1)
	events := []*mvccpb.Event{{}}
	for i := 0; b.Loop(); i++ {
		events[0].Kv = &mvccpb.KeyValue{Key: []byte("w/3/1"), Value: []byte("c12-345678"), ModRevision: int64(i), CreateRevision: int64(i - 40), Version: 9}
		events[0].PrevKv = &mvccpb.KeyValue{Key: []byte("w/3/1"), Value: []byte("c12-345671"), ModRevision: int64(i - 7), CreateRevision: int64(i - 40), Version: 8}
		f.Events(time.Duration(i)*10*time.Microsecond, int64(i), events, false)
	}
	b.ReportMetric(float64(len(f.log))/float64(f.resp.Events), "B/event")
}

package load_test

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/load"
)

// TestRateConverges: whatever the pauses between two counts, a steady stream's rate comes to its own, from below, by half of what
// is missing in each half-life; and it goes to nothing in the same way.
func TestRateConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := base.Instant(rapid.Int64Range(0, 1<<40).Draw(t, "begin"))
		begin := now
		r := load.NewRate(now)
		perMilli := rapid.Uint64Range(1, 1000).Draw(t, "requests in a millisecond")
		stream := float64(perMilli) * 1000
		for range rapid.IntRange(1, 60).Draw(t, "counts") {
			ms := rapid.Int64Range(0, 3000).Draw(t, "pause")
			now = now.Add(time.Duration(ms) * time.Millisecond)
			if lately := r.Add(now, perMilli*uint64(ms)); ms > 0 && math.Abs(lately-stream) > 1e-6*stream {
				t.Fatalf("%v/s lately of a stream of %v/s", lately, stream)
			}
			halfLives := float64(now.Sub(begin)) / float64(base.LoadHalfLife)
			if want := stream * (1 - math.Exp2(-halfLives)); math.Abs(r.PerSecond()-want) > 1e-6*stream {
				t.Fatalf("%v/s after %v half-lives, want %v", r.PerSecond(), halfLives, want)
			}
		}
		peak := r.PerSecond()
		r.Add(now.Add(base.LoadHalfLife), 0)
		if math.Abs(r.PerSecond()-peak/2) > 1e-6*stream {
			t.Fatalf("%v/s a half-life after %v/s", r.PerSecond(), peak)
		}
		r.Add(now.Add(60*base.LoadHalfLife), 0)
		if r.PerSecond() > base.LoadIdle {
			t.Fatalf("%v/s five minutes after the last request", r.PerSecond())
		}
	})
}

// TestRateWithoutTime: requests that are counted at one instant, or by a clock that goes back, are not lost.
func TestRateWithoutTime(t *testing.T) {
	a, b := load.NewRate(1000), load.NewRate(1000)
	a.Add(1000, 70)
	a.Add(900, 20)
	a.Add(base.Instant(time.Second), 10)
	b.Add(base.Instant(time.Second), 100)
	if a.PerSecond() != b.PerSecond() || a.PerSecond() == 0 {
		t.Fatalf("%v/s and %v/s", a.PerSecond(), b.PerSecond())
	}
}

var someKey = rapid.SliceOfN(rapid.ByteRange('a', 'c'), 1, 4)

var someSpan = rapid.Custom(func(t *rapid.T) load.Span {
	s := load.Span{Start: someKey.Draw(t, "start"), Whole: rapid.IntRange(0, 9).Draw(t, "whole") == 0}
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		s.End = []byte{0}
	case 1:
		if end := someKey.Draw(t, "end key"); bytes.Compare(end, s.Start) > 0 {
			s.End = end
		}
	}
	return s
})

// TestCutDivides: a cut that helps lies inside of what was seen, behind the first key and not behind all; its busier half keeps no
// more than it may; and the same requests and seed give the same cut.
func TestCutDivides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		pool := rapid.SliceOfN(someSpan, 1, 12).Draw(t, "requests")
		shown := rapid.SliceOfN(rapid.SampledFrom(pool), base.LoadTouches, 3*base.LoadTouches).Draw(t, "shown")
		find := func() (load.Cut, bool) {
			s := load.NewSample(base.NewRand(seed))
			for _, sp := range shown {
				s.Touch(sp)
			}
			if s.Seen() != uint64(len(shown)) {
				t.Fatalf("%d seen of %d", s.Seen(), len(shown))
			}
			return s.Best()
		}
		cut, helps := find()
		if again, h := find(); h != helps || !reflect.DeepEqual(again, cut) {
			t.Fatalf("%v and then %v", cut, again)
		}
		if sum := cut.Left + cut.Right + cut.Across; cut.Key != nil && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("the shares of %v sum to %v", cut, sum)
		}
		if !helps {
			return
		}
		if busier := max(cut.Left, cut.Right) + cut.Across; busier > base.LoadShare {
			t.Fatalf("the busier half keeps %v of the load", busier)
		}
		before, behind := 0, 0
		for _, sp := range shown {
			if bytes.Compare(sp.Start, cut.Key) < 0 {
				before++
			} else {
				behind++
			}
		}
		if before == 0 || behind == 0 {
			t.Fatalf("%d requests begin before %q, %d do not", before, cut.Key, behind)
		}
	})
}

// TestOneKey: if one key has more than the share that a half may keep, by far, there is no cut.
func TestOneKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hot := someKey.Draw(t, "hot")
		s := load.NewSample(base.NewRand(rapid.Uint64().Draw(t, "seed")))
		other := rapid.SliceOfN(someKey, 1, 5).Draw(t, "others")
		for i := range 10 * base.LoadTouches {
			key := hot
			if i%20 == 0 {
				key = other[i/20%len(other)]
			}
			s.Touch(load.Span{Start: key})
		}
		if cut, helps := s.Best(); helps {
			t.Fatalf("cut: %v", cut)
		}
	})
}

// TestKeysAreBounded: of a long key as much is kept as the bound says, and its cut is good all the same.
func TestKeysAreBounded(t *testing.T) {
	s := load.NewSample(base.NewRand(1))
	long := bytes.Repeat([]byte{'k'}, 100*base.LoadKeyBytes)
	for i := range 2 * base.LoadTouches {
		s.Touch(load.Span{Start: append([]byte{byte('a' + i%2)}, long...)})
	}
	cut, helps := s.Best()
	if !helps || len(cut.Key) != base.LoadKeyBytes || cut.Key[0] != 'b' {
		t.Fatalf("%t, %d bytes, %q", helps, len(cut.Key), cut.Key[:1])
	}
	if n := testing.AllocsPerRun(10_000, func() { s.Touch(load.Span{Start: long}) }); n >= 1 {
		t.Errorf("%v allocations for a touch of a full sample", n)
	}
}

func TestOfRead(t *testing.T) {
	kvs := []*mvccpb.KeyValue{{Key: []byte("b")}, {Key: []byte("c")}}
	for _, c := range []struct {
		name      string
		req, resp proto.Message
		want      load.Span
	}{
		{"one key", &pb.RangeRequest{Key: []byte("a")}, &pb.RangeResponse{}, load.Span{Start: []byte("a")}},
		{"all of a span", &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("x")}, &pb.RangeResponse{Kvs: kvs}, load.Span{Start: []byte("a"), End: []byte("x")}},
		{"up to a limit", &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, Limit: 2}, &pb.RangeResponse{Kvs: kvs, More: true}, load.Span{Start: []byte("a"), End: []byte("c\x00")}},
		{"the last ones", &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("x"), Limit: 2, SortOrder: pb.RangeRequest_DESCEND}, &pb.RangeResponse{Kvs: kvs, More: true}, load.Span{Start: []byte("a"), End: []byte("x")}},
		{"a transaction", &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("m")}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("p")}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("c"), RangeEnd: []byte("d")}}}},
		}, &pb.TxnResponse{}, load.Span{Start: []byte("c"), End: []byte("p\x00"), Whole: true}},
	} {
		if got, ok := load.OfRead(c.req, c.resp); !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if s, ok := load.OfRead(&pb.TxnRequest{}, nil); ok {
		t.Errorf("a transaction without keys: %v", s)
	}
}

func TestOfCommand(t *testing.T) {
	encode := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{put("c"), {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
		Failure: []*pb.RequestOp{put("a"), {Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte{0}}}}},
	}}}}}
	for _, c := range []struct {
		name string
		cmd  *kvpb.Command
		want load.Span
	}{
		{"a put", &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(&pb.PutRequest{Key: []byte("k"), Value: []byte("v")})}}, load.Span{Start: []byte("k")}},
		{"a deletion", &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: encode(&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})}}, load.Span{Start: []byte("k"), End: []byte("l"), Whole: true}},
		{"a transaction of one key", &kvpb.Command{Body: &kvpb.Command_Txn{Txn: encode(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("k")}}, Success: []*pb.RequestOp{put("k")}})}}, load.Span{Start: []byte("k"), Whole: true}},
		{"a nested one", &kvpb.Command{Body: &kvpb.Command_Txn{Txn: encode(nested)}}, load.Span{Start: []byte("a"), End: []byte{0}, Whole: true}},
	} {
		if got, ok := load.OfCommand(encode(c.cmd)); !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for name, data := range map[string][]byte{
		"a split": encode(&kvpb.Command{Body: &kvpb.Command_Split{Split: &kvpb.Split{Key: []byte("k")}}}), "no message": {0xff},
		"no put": encode(&kvpb.Command{Body: &kvpb.Command_Put{Put: []byte{0xff}}}),
	} {
		if s, ok := load.OfCommand(data); ok {
			t.Errorf("%s has keys: %v", name, s)
		}
	}
}

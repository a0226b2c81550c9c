package spread

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// The stories in testdata are dialogues: what a read asks for, each with a number, and what it is answered.
//
//	known               the ranges that the reader knows, one a line: ID START END, "-" for none
//	read KEY END [revision=N] [limit=N]
//	1 grant ID START END REVISION          answers ask 1; all but the last of those that are open print nothing
//	1 ok                                   of a raise, a lift, a pause
//	1 kvs REVISION a b c                   of a part: the keys of it
//	1 several | moved | compacted | future | throttled | ambiguous
//	abandon
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.do(d) })
	})
}

type story struct {
	t     *testing.T
	known []*metapb.RangeDescriptor
	r     *Read
	asks  map[int]Ask
	n     int
}

const space = base.KeyspaceID(100)

func keyOf(s string) []byte {
	if s == "-" {
		return nil
	}
	return []byte(s)
}

func text(k []byte) string {
	if len(k) == 0 {
		return "-"
	}
	return strings.ReplaceAll(string(k), "\x00", "∞")
}

func (s *story) number(w string) int64 {
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *story) rangeOf(f []string) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{RangeId: uint64(s.number(f[0])), KeyspaceId: uint64(space), Start: keyOf(f[1]), End: keyOf(f[2]), Generation: 1}
}

func (s *story) find(key []byte) *metapb.RangeDescriptor {
	for _, d := range s.known {
		if bytes.Compare(d.Start, key) <= 0 && (len(d.End) == 0 || bytes.Compare(key, d.End) < 0) {
			return d
		}
	}
	return nil
}

func (s *story) do(d *datadriven.TestData) string {
	switch d.Cmd {
	case "known":
		s.known = nil
		for line := range strings.Lines(d.Input) {
			s.known = append(s.known, s.rangeOf(strings.Fields(line)))
		}
		return ""
	case "read":
		req := &pb.RangeRequest{Key: []byte(d.CmdArgs[0].Key), RangeEnd: []byte(strings.ReplaceAll(d.CmdArgs[1].Key, "∞", "\x00"))}
		if d.HasArg("revision") {
			d.ScanArgs(s.t, "revision", &req.Revision)
		}
		if d.HasArg("limit") {
			d.ScanArgs(s.t, "limit", &req.Limit)
		}
		s.r, s.asks, s.n = New(space, req, raftgroup.LatchID{Began: 1, Node: 1, Seq: 1}), map[int]Ask{}, 0
	case "abandon":
		return s.show(s.r.Abandon())
	case "answers":
		for line := range strings.Lines(d.Input) {
			s.answer(strings.Fields(line))
		}
	}
	return s.show(s.r.Next(s.find))
}

func (s *story) answer(f []string) {
	n := int(s.number(f[0]))
	a, ok := s.asks[n]
	if !ok {
		s.t.Fatalf("nobody asked %d", n)
	}
	delete(s.asks, n)
	refusals := map[string]error{
		"several": &base.SeveralRanges{}, "compacted": rpctypes.ErrGRPCCompacted, "future": rpctypes.ErrGRPCFutureRev,
		"throttled": &base.Throttled{What: "a latch that has ended"}, "ambiguous": &base.Ambiguous{Cause: errors.New("no answer")},
	}
	x := Answer{Err: refusals[f[1]]}
	switch f[1] {
	case "grant":
		x.Grant = &Grant{Node: base.NodeID(s.number(f[2])), Descriptor: s.rangeOf(f[2:5]), Revision: s.number(f[5])}
	case "kvs":
		x.Response = &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.number(f[2])}, Count: int64(len(f) - 3)}
		for _, k := range f[3:] {
			if a.Request.CountOnly || a.Request.Limit > 0 && int64(len(x.Response.Kvs)) == a.Request.Limit {
				break
			}
			x.Response.Kvs = append(x.Response.Kvs, &mvccpb.KeyValue{Key: []byte(k)})
		}
	}
	s.r.Answer(a, x)
}

// show numbers what is asked for.
func (s *story) show(asks []Ask) string {
	var b strings.Builder
	for _, a := range asks {
		if a.Kind != Free {
			s.n++
			s.asks[s.n] = a
			fmt.Fprintf(&b, "%d ", s.n)
		}
		switch a.Kind {
		case Latch:
			fmt.Fprintf(&b, "latch the range of %s, try %d\n", text(a.Key), a.ID.Try)
		case Raise:
			cmd := a.Command(5)
			fmt.Fprintf(&b, "raise %s to %d, as of %d, try %d\n", base.RangeID(a.Grant.Descriptor.RangeId), cmd.GetRaiseRevision().Revision, cmd.NowMicros, a.ID.Try)
		case Free:
			fmt.Fprintf(&b, "free %s, try %d\n", base.RangeID(a.Grant.Descriptor.RangeId), a.ID.Try)
		case Lift:
			cmd := a.Command(5)
			fmt.Fprintf(&b, "lift the range of %s to %d, as of %d\n", text(a.Key), cmd.GetRaiseRevision().Revision, cmd.NowMicros)
		case Part:
			fmt.Fprintf(&b, "part [%s, %s) at %d", text(a.Request.Key), text(a.Request.RangeEnd), a.Request.Revision)
			if a.Request.Limit > 0 {
				fmt.Fprintf(&b, ", %d keys", a.Request.Limit)
			}
			if a.Request.CountOnly {
				b.WriteString(", counted")
			}
			b.WriteString("\n")
		case Pause:
			fmt.Fprintf(&b, "pause %s\n", a.For)
		}
	}
	if resp, err, done := s.r.Result(); done && err != nil {
		fmt.Fprintf(&b, "failed: %v\n", err)
	} else if done && resp != nil {
		var keys []string
		for _, kv := range resp.Kvs {
			keys = append(keys, string(kv.Key))
		}
		fmt.Fprintf(&b, "at %d: %s of %d, more: %t\n", resp.Header.Revision, strings.Join(keys, " "), resp.Count, resp.More)
	}
	return b.String()
}

// A read gives up after so many tries, and says why; what it held is let go.
func TestGivesUp(t *testing.T) {
	known := []*metapb.RangeDescriptor{{RangeId: 1, End: []byte("m")}, {RangeId: 2, Start: []byte("m")}}
	find := func(key []byte) *metapb.RangeDescriptor { return known[min(1, bytes.Compare(key, []byte("m"))+1)] }
	r := New(space, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}, raftgroup.LatchID{})
	latches, freed := 0, 0
	for {
		for _, a := range r.Next(find) {
			switch a.Kind {
			case Latch:
				latches++
				r.Answer(a, Answer{Grant: &Grant{Node: 1, Descriptor: find(a.Key)}})
			case Raise:
				r.Answer(a, Answer{Err: &base.Ambiguous{Cause: errors.New("no answer")}})
			case Free:
				freed++
			default:
				r.Answer(a, Answer{})
			}
		}
		if _, err, done := r.Result(); done {
			var throttled *base.Throttled
			if !errors.As(err, &throttled) || latches != 2*base.SpreadTries || freed != latches {
				t.Fatalf("%v after %d latches, %d of them let go", err, latches, freed)
			}
			return
		}
	}
}

// A span of more ranges than are read together is refused, and nothing stays held.
func TestTooManyRanges(t *testing.T) {
	var known []*metapb.RangeDescriptor
	for i := range base.SpreadRanges + 2 {
		known = append(known, &metapb.RangeDescriptor{RangeId: uint64(i), Start: fmt.Appendf(nil, "%06d", i), End: fmt.Appendf(nil, "%06d", i+1)})
	}
	find := func(key []byte) *metapb.RangeDescriptor {
		i, found := slices.BinarySearchFunc(known, key, func(d *metapb.RangeDescriptor, key []byte) int { return bytes.Compare(d.Start, key) })
		if !found {
			return nil
		}
		return known[i]
	}
	r := New(space, &pb.RangeRequest{Key: known[0].Start, RangeEnd: []byte{0}}, raftgroup.LatchID{})
	if asks := r.Next(find); len(asks) != 0 {
		t.Errorf("%d things are asked for", len(asks))
	}
	var throttled *base.Throttled
	if _, err, done := r.Result(); !done || !errors.As(err, &throttled) {
		t.Errorf("done: %t, %v", done, err)
	}
}

// A read of one key stays one, whatever sent it here.
func TestOneKey(t *testing.T) {
	find := func([]byte) *metapb.RangeDescriptor { return &metapb.RangeDescriptor{RangeId: 1, End: []byte("m")} }
	r := New(space, &pb.RangeRequest{Key: []byte("a"), Revision: 3}, raftgroup.LatchID{})
	asks := r.Next(find)
	if len(asks) != 1 || string(asks[0].Request.Key) != "a" || string(asks[0].Request.RangeEnd) != "a\x00" {
		t.Fatalf("%v", asks)
	}
	r.Answer(asks[0], Answer{Response: &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 3}, Kvs: []*mvccpb.KeyValue{{Key: []byte("a")}}, Count: 1}})
	if resp, err, done := r.Result(); !done || err != nil || len(resp.Kvs) != 1 {
		t.Errorf("%v %v, done: %t", resp, err, done)
	}
}

package store

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// sentFrames is a transport that keeps what is sent in the support class.
type sentFrames struct {
	frames map[base.NodeID][]*rangepb.SupportFrame
}

func (s *sentFrames) Send(to base.NodeID, c transport.Class, frame []byte) error {
	if c == transport.Support {
		f := &rangepb.SupportFrame{}
		if err := proto.Unmarshal(frame, f); err != nil {
			return err
		}
		s.frames[to] = append(s.frames[to], f)
	}
	return nil
}

func (s *sentFrames) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, transport.ErrUnreachable
}
func (s *sentFrames) Peers() []transport.PeerStatus { return nil }
func (s *sentFrames) Close()                        {}

// supportStore is node 1's store, turned by hand, on a clock that the test sets. It shares a range with nodes 2 and 3.
func supportStore(t testing.TB) (s *Store, h *Hand, sent *sentFrames, now *base.Instant) {
	t.Helper()
	now = new(base.Instant(time.Hour))
	s, err := New(Config{Engine: engine.NewMem(), Node: 1, Incarnation: 7, Seed: 1, Loops: 1, Clock: func() base.Instant { return *now }})
	must(t, err)
	sent = &sentFrames{frames: map[base.NodeID][]*rangepb.SupportFrame{}}
	h, err = s.StartByHand(sent)
	must(t, err)
	t.Cleanup(h.Stop)
	d := &metapb.RangeDescriptor{RangeId: 9}
	for n := uint64(1); n <= 3; n++ {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: n, NodeId: n})
	}
	s.changed(&raftgroup.StateChange{Range: 9, Descriptor: d})
	return s, h, sent, now
}

func supportFrame(t testing.TB, f *rangepb.SupportFrame) []byte { return encode(t, f) }

func TestSupportBetweenNodes(t *testing.T) {
	s, h, sent, now := supportStore(t)
	h.Support()
	if len(sent.frames[2]) != 1 || len(sent.frames[3]) != 1 {
		t.Fatalf("asked %v", sent.frames)
	}
	q := sent.frames[2][0].Request
	if q.Incarnation != 7 || time.Duration(q.DurationNanos) != base.SupportIdleDuration { // it leads nothing
		t.Errorf("asks %v", q)
	}
	answer := &rangepb.SupportAnswer{Incarnation: 7, Seq: q.Seq, TokenIncarnation: 4, TokenEpoch: 2}
	must(t, s.HandleSupport(2, supportFrame(t, &rangepb.SupportFrame{Answer: answer})))
	if st := s.Supports(); len(st) != 2 || st[0].Node != 2 || st[0].Left != base.SupportIdleDuration*9/10 || st[1].Left > 0 {
		t.Errorf("has %+v", st)
	}
	must(t, s.HandleSupport(3, supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 5, Seq: 9, DurationNanos: uint64(base.SupportDuration)}})))
	if a := sent.frames[3][1].Answer; a.GetSeq() != 9 || a.GetIncarnation() != 5 || a.GetTokenIncarnation() != 7 || a.GetTokenEpoch() != 1 {
		t.Errorf("answers %v", a)
	}
	if st := s.Supports(); !st[1].Promised || st[0].Promised {
		t.Errorf("promises %+v", st)
	}
	// Nothing more is heard.
	*now = now.Add(time.Second)
	h.Support()
	if st := s.Supports(); st[0].Left > 0 || st[1].Promised || s.SupportsLost() != 1 {
		t.Errorf("after a second %+v, lost %d", st, s.SupportsLost())
	}
}

// A node whose disk completes nothing asks nobody.
func TestSupportRestsOnTheDisk(t *testing.T) {
	_, h, sent, now := supportStore(t)
	for range 10 {
		*now = now.Add(400 * time.Millisecond)
		h.Support()
	}
	stuck := len(sent.frames[2])
	if stuck > 3 {
		t.Errorf("asked %d times in 4 s, and its disk completed nothing", stuck)
	}
	for range 2 { // the write that was stuck, which says how the disk was long ago, and a new one
		for _, y := range h.Syncs() {
			must(t, h.Synced(y))
		}
		*now = now.Add(100 * time.Millisecond)
		h.Support()
	}
	if len(sent.frames[2]) == stuck {
		t.Error("its disk is well again, and it does not ask")
	}
}

// What makes no sense, or comes from a process that is gone, is refused, and promises nothing.
func TestSupportRefusesNonsense(t *testing.T) {
	s, h, sent, _ := supportStore(t)
	h.Support()
	must(t, s.HandleSupport(2, supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 5, Seq: 1, DurationNanos: 1e6}})))
	answered := len(sent.frames[2])
	for name, raw := range map[string][]byte{
		"bytes":                []byte("\xff\xff"),
		"an older incarnation": supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 4, Seq: 2, DurationNanos: 1e6}}),
		"no incarnation":       supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Seq: 2, DurationNanos: 1e6}}),
		"too long":             supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 5, Seq: 2, DurationNanos: 1 << 62}}),
		"no time":              supportFrame(t, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 5, Seq: 2}}),
	} {
		if err := s.HandleSupport(2, raw); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if len(sent.frames[2]) != answered {
		t.Error("nonsense was answered")
	}
	// Answers that nobody asked for, or meant for another process of this node.
	for _, a := range []*rangepb.SupportAnswer{
		{Incarnation: 7, Seq: 999, TokenIncarnation: 4, TokenEpoch: 2},
		{Incarnation: 6, Seq: sent.frames[3][0].Request.Seq, TokenIncarnation: 4, TokenEpoch: 2},
	} {
		must(t, s.HandleSupport(3, supportFrame(t, &rangepb.SupportFrame{Answer: a})))
	}
	if st := s.Supports(); st[1].Left > 0 {
		t.Errorf("has %+v", st)
	}
}

// Whatever bytes come, nothing panics, and nobody is promised more than the most.
func FuzzSupportFrame(f *testing.F) {
	f.Add(supportFrame(f, &rangepb.SupportFrame{Request: &rangepb.SupportRequest{Incarnation: 5, Seq: 1, DurationNanos: 1e6}}))
	f.Add(supportFrame(f, &rangepb.SupportFrame{Answer: &rangepb.SupportAnswer{Incarnation: 7, Seq: 1, TokenIncarnation: 4, TokenEpoch: 2}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, h, _, now := supportStore(t)
		h.Support()
		_ = s.HandleSupport(2, raw) // refused or not
		*now = now.Add(base.SupportMaxDuration + 1)
		h.Support()
		for _, st := range s.Supports() {
			if st.Promised || st.Left > 0 {
				t.Fatalf("after the longest promise there is still %+v", st)
			}
		}
	})
}

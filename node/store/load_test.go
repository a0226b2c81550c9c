package store

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// second serves a range some puts and as many reads, of keys that grow round the alphabet, within a second; and looks.
func (n *splitNode) second(id base.RangeID, puts int, threshold float64, letters string) []Hot {
	n.t.Helper()
	until := n.now.Add(base.LoadInterval)
	answered := 0
	for i := range puts {
		key := fmt.Appendf(nil, "%c%02d", letters[i%len(letters)], i)
		cmd := &kvpb.Command{Body: &kvpb.Command_Put{Put: body(n.t, &pb.PutRequest{Key: key, Value: []byte("v")})}}
		n.s.Propose(raftgroup.Proposal{Range: id, Data: body(n.t, cmd)}, base.Never, func(_ proto.Message, err error) {
			must(n.t, err)
			answered++
		})
		if i%10 == 9 {
			n.turn()
		}
		if served, err := n.s.ReadLeased(id, &pb.RangeRequest{Key: key}, &pb.RangeResponse{}); !served || err != nil {
			n.t.Fatalf("not served: %v", err)
		}
	}
	n.turn()
	if answered != puts || n.now > until {
		n.t.Fatalf("%d of %d puts answered, %s too late", answered, puts, n.now.Sub(until))
	}
	n.now = until
	return n.s.Loads(threshold)
}

// TestHotRange: a range of a sharded keyspace that is served more than the threshold is said to be hot once in a window, with a key
// that parts both its puts and its reads; cut there, it begins from nothing. What is below the threshold never is.
func TestHotRange(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	for range 20 {
		if hot := n.second(leftRange, 50, 200, "abxy"); hot != nil {
			t.Fatalf("hot with half of the threshold: %v", hot)
		}
	}
	if r := n.s.Rate(leftRange); r < 85 || r > 101 {
		t.Fatalf("%.1f requests/s after 20 s with 100", r)
	}
	var hot []Hot
	seconds := 0
	for ; hot == nil; seconds++ {
		hot = n.second(leftRange, 100, 150, "abxy")
	}
	if len(hot) != 1 || !hot[0].Helps || string(hot[0].Best.Key) <= "b" || string(hot[0].Best.Key) > "y" || hot[0].Windows != 1 {
		t.Fatalf("%+v", hot)
	}
	if least := int((base.LoadWindow) / time.Second); seconds < least {
		t.Fatalf("hot after %d s, want %d at least", seconds, least)
	}
	cmd, err := apply.Split(hot[0].Descriptor, hot[0].Best.Key, rightRange)
	must(t, err)
	must(t, n.propose(leftRange, cmd))
	n.now = n.now.Add(base.LoadInterval)
	n.s.Loads(150)
	if r := n.s.Rate(leftRange); r != 0 {
		t.Fatalf("%.1f requests/s of what is another range now", r)
	}
	quiet := int((base.LoadSettle + base.LoadWindow) / base.LoadInterval)
	for i := range 2 * quiet {
		hot = n.second(leftRange, 100, 50, "ab")
		if hot != nil && i < quiet-1 {
			t.Fatalf("hot again %d s after it was cut", i+1)
		}
		if hot != nil {
			return
		}
	}
	t.Fatal("never hot again")
}

// TestOneHotKey: a window ends with the finding that no cut helps.
func TestOneHotKey(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	found := 0
	for range 30 {
		for _, h := range n.second(leftRange, 1, 0, "a") {
			t.Fatalf("hot without a threshold: %v", h)
		}
	}
	for range 20 {
		until := n.now.Add(base.LoadInterval)
		for range 200 {
			if served, err := n.s.ReadLeased(leftRange, &pb.RangeRequest{Key: []byte("a")}, &pb.RangeResponse{}); !served || err != nil {
				t.Fatalf("not served: %v", err)
			}
		}
		n.turn()
		n.now = until
		for _, h := range n.s.Loads(100) {
			if found++; h.Helps || h.Windows != found {
				t.Fatalf("window %d: %+v", found, h)
			}
		}
	}
	if found < 2 {
		t.Fatalf("%d windows in 20 s", found)
	}
}

// TestSingleKeyspaceStaysWhole: what is one range for ever is never hot, and has a rate.
func TestSingleKeyspaceStaysWhole(t *testing.T) {
	n := newSplitNode(t, func(b engine.Writer) { must(t, CreateReplica(b, FirstDescriptors(1)[3], 1)) })
	for range 15 {
		if hot := n.second(base.RangeDefault, 100, 1, "abxy"); hot != nil {
			t.Fatalf("%+v", hot)
		}
	}
	if r := n.s.Rate(base.RangeDefault); r < 100 {
		t.Fatalf("%.1f requests/s", r)
	}
}

// TestIdleRangesHaveNoTally: what is measured of a range that nobody uses any more is given back, by Loads or when it goes cold.
func TestIdleRangesHaveNoTally(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	n.second(leftRange, 50, 0, "a")
	r := n.s.replica(leftRange)
	if n.s.Rate(leftRange) == 0 || r.load.Load() == nil {
		t.Fatal("it has no rate")
	}
	for range 200 {
		n.now = n.now.Add(base.LoadInterval)
		n.s.Loads(1)
	}
	if r.load.Load() != nil || len(n.s.loads.of) != 0 || n.s.Rate(leftRange) != 0 {
		t.Fatalf("%d tallies after minutes without a request", len(n.s.loads.of))
	}
	must(t, n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})}}))
	if r.load.Load() == nil {
		t.Fatal("it is used again and has no tally")
	}
	for i := 0; r.view.Load() != nil; i++ {
		n.now = n.now.Add(time.Second)
		n.turn()
		if i > 100 {
			t.Fatal("it does not go cold")
		}
	}
	if r.load.Load() != nil {
		t.Fatal("a cold replica has a tally")
	}
	n.s.Loads(1)
	if len(n.s.loads.of) != 0 {
		t.Fatal("and the store knows of it")
	}
	// A cold replica can be read as it is.
	must(t, n.s.Read(leftRange, &pb.RangeRequest{Key: []byte("a")}, &pb.RangeResponse{}))
	for range 200 {
		n.now = n.now.Add(base.LoadInterval)
		n.s.Loads(1)
	}
	if len(n.s.loads.of) != 0 {
		t.Fatal("a range that was read once, cold, is measured for ever")
	}
}

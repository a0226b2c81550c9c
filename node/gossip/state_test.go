package gossip

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// told is a state that has said where it is.
func told(id base.NodeID, inc base.Incarnation) *state {
	s := newState(id, inc)
	s.say(func(e *rangepb.GossipEntry) {
		e.Address, e.Binary = fmt.Sprintf("n%d-%d:1", id, inc), "1.0.0"
		e.Record = &metapb.NodeRecord{NodeId: uint64(id)}
	})
	return s
}

// exchange carries a frame and the answers to it to and fro, and returns how many frames that took.
func exchange(t interface{ Fatalf(string, ...any) }, a, b *state, hurry bool) (frames int) {
	g := a.open(hurry)
	a.told(g)
	for to, from := b, a; g != nil; to, from = from, to {
		if frames++; frames > 4 {
			t.Fatalf("n%d and n%d answer each other for ever", a.self, b.self)
		}
		fits(t, g)
		g, _ = to.receive(g)
	}
	return frames
}

// fits fails on a frame that another node would refuse.
func fits(t interface{ Fatalf(string, ...any) }, g *rangepb.Gossip) {
	if err := check(g); err != nil {
		t.Fatalf("a frame that was said: %v", err)
	}
	if n := proto.Size(g); n > base.GossipFrameBytes+base.GossipEntryBytes+base.GossipDigest*40 {
		t.Fatalf("a frame of %d bytes", n)
	}
}

// sound fails if the sum is not that of the entries.
func (s *state) sound(t interface{ Fatalf(string, ...any) }) {
	sum := uint64(0)
	for _, e := range s.entries {
		sum ^= digest(e.Version)
	}
	if sum != s.sum {
		t.Fatalf("n%d: the sum is %x, and of the entries %x", s.self, s.sum, sum)
	}
	for id := range s.news {
		if s.entries[id] == nil {
			t.Fatalf("n%d has news of n%d, and no entry", s.self, id)
		}
	}
}

func (s *state) quiet() *state {
	clear(s.news)
	return s
}

// Two nodes that know the same say so in one small frame; what one lacks takes three answers, whoever began.
func TestExchange(t *testing.T) {
	a, b := told(1, 1), told(2, 1)
	if n := exchange(t, a, b, false); n > 4 || len(a.entries) != 2 || len(b.entries) != 2 {
		t.Fatalf("%d frames; n1 knows %d, n2 %d", n, len(a.entries), len(b.entries))
	}
	a.quiet()
	b.quiet()
	if n := exchange(t, a, b, false); n != 1 {
		t.Errorf("nothing new took %d frames", n)
	}
	if n := proto.Size(a.open(false)); n > 16 {
		t.Errorf("nothing new took %d bytes", n)
	}
	// News is told unasked, and answered by nobody.
	a.say(func(e *rangepb.GossipEntry) { e.Address = "elsewhere:1" })
	if n := exchange(t, a, b, true); n != 1 || b.entries[1].Address != "elsewhere:1" {
		t.Errorf("news took %d frames; n1 is at %q", n, b.entries[1].Address)
	}
	// What was missed is found by the sum, from either side.
	for _, begins := range []*state{a, b} {
		a.say(func(e *rangepb.GossipEntry) { e.Address = "x" + e.Address })
		a.quiet()
		other := b
		if begins == b {
			other = a
		}
		if exchange(t, begins, other, false); b.entries[1].Address != a.own.Address || a.sum != b.sum {
			t.Errorf("n%d began: n1 is at %q, and n2 knows %q", begins.self, a.own.Address, b.entries[1].Address)
		}
	}
}

// A start of a node goes before all that an earlier one said, and nobody tells a node about itself.
func TestNewestStartCounts(t *testing.T) {
	b, old := told(2, 1), told(1, 1)
	for range 5 {
		old.say(func(e *rangepb.GossipEntry) { e.Address = "x" + e.Address })
	}
	exchange(t, old, b, false)
	again := told(1, 2)
	exchange(t, again, b, false)
	if got := b.entries[1]; got.Address != "n1-2:1" || again.own.Version.Seq != 1 || !proto.Equal(again.entries[1], again.own) {
		t.Errorf("n2 knows %v; n1 is %v", got, again.own)
	}
	exchange(t, old, b, false) // what is still on its way from the old start
	if got := b.entries[1]; got.Address != "n1-2:1" {
		t.Errorf("n2 knows %v", got)
	}
}

// What is gone for ever is not kept, and does not come back by way of those who do not know yet.
func TestGoneNodesAreForgotten(t *testing.T) {
	a, b, c := told(1, 1), told(2, 1), told(3, 1)
	exchange(t, c, a, false)
	exchange(t, c, b, false)
	a.forget(3)
	exchange(t, b, a, false)
	exchange(t, a, b, false)
	if a.entries[3] != nil || b.entries[3] == nil {
		t.Fatal("n3 came back, or was taken from those who do not know that it is gone")
	}
	a.sound(t)
	b.forget(3)
	a.forget(1) // of itself nobody thinks so
	exchange(t, a, b, false)
	if a.quiet().sum != b.quiet().sum || a.entries[1] == nil {
		t.Error("they differ still")
	}
}

// However messages are lost and repeated, and whatever changes meanwhile: once nothing is lost any more all know the same, which
// is what each says of itself, and then nothing more is told.
func TestAllComeToKnowTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 9).Draw(t, "nodes")
		starts := make([]base.Incarnation, n)
		nodes := make([]*state, n)
		for i := range nodes {
			starts[i] = 1
			nodes[i] = told(base.NodeID(i+1), 1)
		}
		pick := rapid.IntRange(0, n-1)
		var sent []*rangepb.Gossip
		send := func(g *rangepb.Gossip) {
			if fits(t, g); rapid.Bool().Draw(t, "it is kept") {
				sent = append(sent, g)
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			i := pick.Draw(t, "node")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				nodes[i].say(func(e *rangepb.GossipEntry) {
					e.Address = fmt.Sprintf("a%d:1", rapid.IntRange(0, 9).Draw(t, "address"))
				})
			case 1: // it starts again, and knows nothing
				starts[i]++
				nodes[i] = told(base.NodeID(i+1), starts[i])
			case 2:
				g := nodes[i].open(rapid.Bool().Draw(t, "hurry"))
				nodes[i].told(g)
				send(g)
			default: // something arrives, now or again, at anybody
				if len(sent) > 0 {
					if answer, _ := nodes[i].receive(sent[rapid.IntRange(0, len(sent)-1).Draw(t, "frame")]); answer != nil {
						send(answer)
					}
				}
			}
			nodes[i].sound(t)
		}
		for range 2 + n {
			for i, s := range nodes {
				for _, to := range partners(s.self, others(n, i)) {
					exchange(t, s, nodes[to-1], false)
				}
			}
		}
		for _, s := range nodes {
			if s.sum != nodes[0].sum || len(s.entries) != n || s.quiet().open(false).Entries != nil {
				t.Fatalf("n%d knows %v, and n1 %v", s.self, s.entries, nodes[0].entries)
			}
			for _, o := range nodes {
				if !proto.Equal(s.entries[o.self], o.own) {
					t.Fatalf("n%d holds n%d to be %v, and it is %v", s.self, o.self, s.entries[o.self], o.own)
				}
			}
		}
	})
}

func others(n, but int) (ids []base.NodeID) {
	for i := range n {
		if i != but {
			ids = append(ids, base.NodeID(i+1))
		}
	}
	return ids
}

// More than fits into a frame comes in several exchanges, and no frame is too large.
func TestManyNodes(t *testing.T) {
	a, b := newState(1, 1), told(2, 1)
	a.say(func(e *rangepb.GossipEntry) { e.Address = "a:1" })
	n := 2*base.GossipDigest + 100
	for i := range n {
		s := told(base.NodeID(i+3), 1)
		s.own.Record.Locality = []*metapb.LocalityTier{{Key: "zone", Value: "the second from the left, on the ground floor"}}
		a.put(s.own)
	}
	a.quiet()
	rounds := 0
	for ; a.sum != b.sum; rounds++ {
		if rounds > 200 {
			t.Fatalf("after %d exchanges n2 knows %d of %d", rounds, len(b.entries), n)
		}
		exchange(t, b, a, false)
		exchange(t, a, b, false)
		b.quiet()
		a.quiet()
	}
	b.sound(t)
	t.Logf("%d entries in %d exchanges", n, 2*rounds)
	for len(a.entries) < base.GossipNodes {
		a.put(told(base.NodeID(len(a.entries)+3), 1).own)
	}
	if a.takes(told(1<<40, 1).own) {
		t.Error("there is no bound")
	}
}

// From any node all are reached in a logarithm of steps, each with a logarithm of partners, also with some nodes away.
func TestPartners(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 8, 13, 100, 1000} {
		reached := map[base.NodeID]bool{1: true}
		most, steps := 0, 0
		for last := 0; len(reached) != last; steps++ {
			last = len(reached)
			for _, id := range slices.Collect(maps.Keys(reached)) {
				ps := partners(id, others(n, int(id)-1))
				most = max(most, len(ps))
				for _, p := range ps {
					if p == id {
						t.Fatalf("n%d of %d speaks with itself", id, n)
					}
					if !slices.Contains(partners(p, others(n, int(p)-1)), id) {
						t.Fatalf("n%d of %d speaks with n%d, and it does not with it", id, n, p)
					}
					reached[p] = true
				}
			}
		}
		bound := int(math.Ceil(math.Log2(float64(n)))) + 1
		if len(reached) != n || most > 2*bound || steps > bound+1 {
			t.Errorf("of %d nodes %d are reached in %d steps, with up to %d partners", n, len(reached), steps, most)
		}
	}
}

func TestFarLoads(t *testing.T) {
	load := func(change func(*metapb.NodeLoad)) *metapb.NodeLoad {
		l := &metapb.NodeLoad{Replicas: 4, Leaders: 2, Bytes: 1 << 30, DiskUsed: 1 << 33, DiskBytes: 1 << 40, RequestsPerSecond: 1000, CpuPermille: 400, SyncMicros: 2000}
		change(l)
		return l
	}
	still := load(func(*metapb.NodeLoad) {})
	for _, c := range []struct {
		name string
		l    *metapb.NodeLoad
		want bool
	}{
		{"the same", load(func(*metapb.NodeLoad) {}), false},
		{"none", nil, true},
		{"a replica more", load(func(l *metapb.NodeLoad) { l.Replicas++ }), true},
		{"a few requests more", load(func(l *metapb.NodeLoad) { l.RequestsPerSecond += 50 }), false},
		{"many more", load(func(l *metapb.NodeLoad) { l.RequestsPerSecond *= 2 }), true},
		{"a disk that trembles", load(func(l *metapb.NodeLoad) { l.SyncMicros = 5000 }), false},
		{"a disk that is slow", load(func(l *metapb.NodeLoad) { l.SyncMicros = 50_000 }), true},
		{"a busier process", load(func(l *metapb.NodeLoad) { l.CpuPermille = 600 }), true},
	} {
		if got := far(still, c.l); got != c.want {
			t.Errorf("%s: far is %v", c.name, got)
		}
		if got := far(c.l, still); got != c.want {
			t.Errorf("%s, the other way: far is %v", c.name, got)
		}
	}
}

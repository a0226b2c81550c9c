package store

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// handCluster is three stores over real engines, turned by hand, whose frames arrive at once: what ranges cost without
// gRPC, goroutines that wake each other, and a disk that is waited for.
type handCluster struct {
	b        *testing.B
	now      base.Instant
	stores   [3]*Store
	hands    [3]*Hand
	support  [3]base.Instant
	wire     []handFrame
	leaders  map[base.RangeID]int
	messages int
}

type handFrame struct {
	from, to base.NodeID
	class    transport.Class
	frame    []byte
}

type handTransport struct {
	simTransport
	c    *handCluster
	self base.NodeID
}

func (t handTransport) Send(to base.NodeID, class transport.Class, frame []byte) error {
	t.c.wire = append(t.c.wire, handFrame{t.self, to, class, frame})
	return nil
}

func newHandCluster(b *testing.B, ranges int) *handCluster {
	c := &handCluster{b: b, now: 1, leaders: map[base.RangeID]int{}}
	for i := range c.stores {
		eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: b.TempDir()})
		must(b, err)
		batch := eng.NewBatch()
		for id := range ranges {
			must(b, CreateReplica(batch, handDescriptor(id), base.ReplicaID(i+1)))
		}
		must(b, commitSync(batch))
		c.stores[i], err = New(Config{
			Engine: eng, Node: base.NodeID(i + 1), Incarnation: 1, Loops: 1, Seed: uint64(i), Clock: func() base.Instant { return c.now },
			OnFatal: func(err error) { b.Error(err) }, OnChange: func(ch raftgroup.StateChange) {
				if ch.Role == raftgroup.Leader {
					c.leaders[ch.Range] = i
				}
			},
		})
		must(b, err)
		c.hands[i], err = c.stores[i].StartByHand(handTransport{c: c, self: base.NodeID(i + 1)})
		must(b, err)
		b.Cleanup(func() {
			c.hands[i].Stop()
			must(b, eng.Close())
		})
	}
	for limit := c.now.Add(time.Minute); len(c.leaders) < ranges; c.turn() {
		if c.now > limit {
			b.Fatalf("%d of %d ranges have a leader", len(c.leaders), ranges)
		}
	}
	for limit := c.now.Add(2 * time.Second); c.now < limit; c.turn() {
	}
	return c
}

const handSpace = 70

func handKey(id int) []byte { return fmt.Appendf(nil, "key%06d", id) }

// handDescriptor cuts a keyspace at every key.
func handDescriptor(id int) *metapb.RangeDescriptor {
	d := simDescriptor(1000 + base.RangeID(id))
	d.KeyspaceId, d.Start, d.End = handSpace, handKey(id), handKey(id+1)
	return d
}

// turn lets each node do what it has to do, and a millisecond pass.
func (c *handCluster) turn() {
	c.now = c.now.Add(time.Millisecond)
	for i, h := range c.hands {
		if h.SupportDue() || c.support[i] <= c.now {
			c.support[i] = h.Support()
		}
		if h.Due(c.now) {
			_, err := h.Pass(func(eff *raftgroup.Effects) { c.messages += len(eff.Messages) })
			must(c.b, err)
		}
		for _, y := range h.Syncs() {
			must(c.b, h.Synced(y))
		}
		h.Apply()
	}
	wire := c.wire
	c.wire = nil
	for _, f := range wire {
		if f.class == transport.Support {
			must(c.b, c.stores[f.to-1].HandleSupport(f.from, f.frame))
		} else {
			must(c.b, c.stores[f.to-1].HandleRaft(f.from, f.frame))
		}
	}
}

// puts has 64 clients put n keys in all, over all ranges, at a rate at which three nodes on two cores serve them.
func (c *handCluster) puts(n, ranges int) {
	const clients = 64
	const every = 14 * time.Millisecond // what 64 puts take
	rand := base.NewRand(1)
	for done := 0; done < n; done += clients {
		left, until := clients, c.now.Add(every)
		for range clients {
			at := int(rand.Int63n(int64(ranges)))
			id := 1000 + base.RangeID(at)
			c.stores[c.leaders[id]].Propose(raftgroup.Proposal{Range: id, Data: encodePut(c.b, handKey(at))}, base.Never, func(_ proto.Message, err error) {
				must(c.b, err)
				left--
			})
		}
		for left > 0 || c.now < until {
			c.turn()
		}
	}
}

// BenchmarkPutsOverRanges is what a put costs on three nodes when 64 of them are under way over so many ranges. The CPU is the
// process's, what the engines do in the background included.
func BenchmarkPutsOverRanges(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("ranges=%d", n), func(b *testing.B) {
			c := newHandCluster(b, n)
			c.puts(6400, n)
			b.ReportAllocs()
			b.ResetTimer()
			began, messages := cpu(b), c.messages
			c.puts(b.N, n)
			b.ReportMetric(float64((cpu(b)-began).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(c.messages-messages)/float64(b.N), "messages/op")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

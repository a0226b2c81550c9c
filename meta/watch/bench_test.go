package watch

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cairndb/cairn/internal/base"
)

// benchHub is a hub that one range of a replica of this node feeds.
func benchHub(b *testing.B, streams int) *Hub {
	h := NewHub(Config{Rand: base.NewRand(1)})
	for i := range streams {
		h.Open(StreamID(i))
	}
	h.Create(0, 1, Spec{Keyspace: worldKS, Start: []byte("first"), End: []byte("first\x00")})
	ask := h.Step(0).Asks[0]
	h.Answered(ask.ID, Answer{Page: &Page{Range: 10, Start: ask.Start, Next: 101}})
	h.Applied(&Applied{Range: 10, Descriptor: descriptor(10, "", "", 1), From: 101, Next: 101})
	if eff := h.Step(0); len(eff.Out) != 1 {
		b.Fatalf("%+v", eff)
	}
	return h
}

// BenchmarkIdle says what a watch of a key of its own costs in memory.
func BenchmarkIdle(b *testing.B) {
	const streams = 1000
	n := 1_000_000
	if testing.Short() {
		n = 10_000
	}
	for range b.N {
		h := benchHub(b, streams)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			key := fmt.Appendf(nil, "/registry/pods/%010d", i)
			h.Create(StreamID(i%streams), 0, Spec{Keyspace: worldKS, Start: key, End: append(key[:len(key):len(key)], 0)})
			if i%1000 == 0 {
				for _, o := range h.Step(0).Out {
					h.Sent(o.Stream, o.Bytes)
				}
			}
		}
		h.Step(0)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/watch")
		runtime.KeepAlive(h)
	}
}

// BenchmarkFanOut sends one event to many watches of one key, over ten streams.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := benchHub(b, 10)
			for i := range n {
				h.Create(StreamID(i%10), 0, Spec{Keyspace: worldKS, Start: []byte("k"), End: []byte("k\x00")})
			}
			for _, o := range h.Step(0).Out {
				h.Sent(o.Stream, o.Bytes)
			}
			write(b, h, []byte("k"), n)
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkMatch finds the one watch of 100,000 keys, beside one of a prefix that has nothing.
func BenchmarkMatch(b *testing.B) {
	h := benchHub(b, 10)
	h.Create(0, 0, Spec{Keyspace: worldKS, Start: []byte("x"), End: []byte("y")})
	var key []byte
	for i := range 100_000 {
		key = fmt.Appendf(nil, "key/%06d", i)
		h.Create(StreamID(i%10), 0, Spec{Keyspace: worldKS, Start: key, End: append(key[:len(key):len(key)], 0)})
	}
	for _, o := range h.Step(0).Out {
		h.Sent(o.Stream, o.Bytes)
	}
	write(b, h, key, 1)
}

// write has the replica show one event of a key after the other, each of which so many watches get.
func write(b *testing.B, h *Hub, key []byte, watches int) {
	b.ReportAllocs()
	wire := make([]byte, 150)
	at := base.Revision(101)
	for b.Loop() {
		h.Applied(&Applied{Range: 10, Descriptor: descriptor(10, "", "", 1), From: at, Next: at + 1, Events: []*Event{{Key: key, Revision: at, Wire: wire}}})
		at++
		eff := h.Step(0)
		if len(eff.Out) != watches {
			b.Fatalf("%d of %d", len(eff.Out), watches)
		}
		for i := range eff.Out {
			h.Sent(eff.Out[i].Stream, eff.Out[i].Bytes)
		}
	}
}

package watch

import (
	"container/heap"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// timers are what is to be done later, the earliest first, and of two for one instant the one that was set first. What is set
// between two steps is timed from the next one: only then is it known how late it is.
type timers struct {
	heap  timerHeap
	unset []timer
	seq   uint64
}

type timer struct {
	after time.Duration
	at    base.Instant
	seq   uint64
	do    func()
}

func (t *timers) later(after time.Duration, do func()) {
	t.seq++
	t.unset = append(t.unset, timer{after: after, seq: t.seq, do: do})
}

func (t *timers) set(now base.Instant) {
	for _, x := range t.unset {
		x.at = now.Add(x.after)
		heap.Push(&t.heap, x)
	}
	t.unset = base.Emptied(t.unset)
}

// run does what is due.
func (t *timers) run(now base.Instant) {
	t.set(now)
	for len(t.heap) > 0 && t.heap[0].at <= now {
		heap.Pop(&t.heap).(timer).do()
	}
	t.set(now)
}

// next is when something is due; 0: never.
func (t *timers) next() base.Instant {
	if len(t.heap) == 0 {
		return 0
	}
	return t.heap[0].at
}

type timerHeap []timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = timer{}
	*h = (*h)[:last]
	return x
}

// pause is how long to wait after the n-th failure in a row.
func (h *Hub) pause(n uint8) time.Duration {
	d := time.Duration(base.WatchRetryMost)
	if n < 16 {
		d = min(d, base.WatchRetry<<n)
	}
	return d - jitter(h.cfg.Rand, d/2)
}

// jitter is a random time below d.
func jitter(r *base.Rand, d time.Duration) time.Duration {
	return time.Duration(r.Int63n(max(1, int64(d))))
}

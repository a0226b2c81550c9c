package sim

import (
	"container/heap"
	"time"
)

// queue holds what is to happen, in the order of true time; of two things at one time, what was put first is first.
type queue struct {
	events eventHeap
	seq    uint64
}

type event struct {
	at  time.Duration
	seq uint64
	run func()
}

// put has run called at a time.
func (q *queue) put(at time.Duration, run func()) {
	q.seq++
	heap.Push(&q.events, event{at, q.seq, run})
}

// take removes the next event; false if there is none.
func (q *queue) take() (event, bool) {
	if len(q.events) == 0 {
		return event{}, false
	}
	return heap.Pop(&q.events).(event), true
}

// eventHeap implements heap.Interface.
type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) }

func (h *eventHeap) Pop() any {
	old := *h
	n := len(old) - 1
	e := old[n]
	old[n] = event{}
	*h = old[:n]
	return e
}

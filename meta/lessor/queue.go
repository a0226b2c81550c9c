package lessor

import "container/heap"

// queue is a heap of leases by lease.at. A lease that is kept alive stays where it is, and moves when it comes up: so a keep-alive
// costs nothing here, and a lease at most one move in its TTL.
type queue []*lease

func (q *queue) push(e *lease)   { heap.Push((*byTime)(q), e) }
func (q *queue) fix(e *lease)    { heap.Fix((*byTime)(q), e.index) }
func (q *queue) remove(e *lease) { heap.Remove((*byTime)(q), e.index) }

// byTime implements heap.Interface.
type byTime []*lease

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].at < q[j].at }

func (q byTime) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *byTime) Push(x any) {
	e := x.(*lease)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *byTime) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}

package sim

import (
	"time"

	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// bulkRate is how many bytes a second a snapshot moves; bulkChunk is the size of its chunks, small so that small ranges
// have several.
const (
	bulkRate  = 4 << 20
	bulkChunk = 512
)

// carry packs the state that a loop wants sent and brings it to the other node. A stream that breaks on its way leaves
// there what had come, and the next attempt goes on from it.
func (p *process) carry(m raftgroup.Message) {
	w := p.n.w
	parcel, err := p.hand.Pack(m)
	if err != nil || p.doomed {
		p.hand.Sent(m, false)
		return
	}
	w.count("snapshots sent")
	w.note(noteSnapshot, uint64(p.n.id), uint64(m.Range), uint64(m.ToNode), uint64(parcel.Bytes()))
	w.tracef("%s sends %s a snapshot of %s, %d bytes", p.n.id, m.ToNode, m.Range, parcel.Bytes())
	p.attempt(m, parcel, bulkAttempts)
}

// bulkAttempts is how often a broken stream is opened again.
const bulkAttempts = 3

// attempt sends over one stream.
func (p *process) attempt(m raftgroup.Message, parcel *store.Parcel, left int) {
	n, w := p.n, p.n.w
	target := w.node(m.ToNode)
	failed := func() {
		if left > 1 {
			p.later(200*time.Millisecond, func() { p.attempt(m, parcel, left-1) })
			return
		}
		p.hand.Sent(m, false)
	}
	if target == nil || target.process == nil || !w.net.open(n.i, target.i, classBulk) || !w.net.open(target.i, n.i, classBulk) {
		p.later(100*time.Millisecond, failed)
		return
	}
	upTo := parcel.Bytes()
	if w.bulkCuts > 0 || chance(n.rand, 20_000) {
		upTo = int(n.rand.Int63n(int64(upTo) + 1))
		w.count("snapshot streams cut")
	}
	q := target.process
	took := time.Duration(parcel.Bytes()) * time.Second / bulkRate
	// The end of the stream reaches the sender as a report, or as a time-out.
	ended := false
	end := func(ok bool) {
		if ended {
			return
		}
		ended = true
		if ok {
			p.hand.Sent(m, true)
		} else {
			failed()
		}
	}
	p.later(took+10*time.Second, func() { end(false) })
	w.queue.put(w.now+took, func() {
		w.net.send(n.i, target.i, classBulk, upTo, func() {
			if target.process != q {
				return
			}
			q.do(func() {
				err := q.hand.Deliver(parcel, upTo, bulkChunk)
				w.tracef("%s takes %d of %d bytes of %s: %v", target.id, min(upTo, parcel.Bytes()), parcel.Bytes(), m.Range, err)
				w.net.send(target.i, n.i, classBulk, 8, func() { p.do(func() { end(err == nil) }) })
			})
		})
	})
}

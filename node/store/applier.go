package store

import (
	"sync"
	"sync/atomic"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// applier evaluates what was committed in the ranges of one loop: everything that waits goes into one batch, which
// is committed without a sync (the log is on disk, and the applied index is in the batch), then shown to readers,
// then told to those who wait and to the loop.
type applier struct {
	s   *Store
	box *mailbox

	mu      sync.Mutex
	cond    sync.Cond
	queue   []raftgroup.Apply // bounded by what Raft lets be committed and not applied
	busy    bool
	stopped bool

	results []apply.Result // one for each Apply of a pass, reused
	teller  teller
	watched atomic.Int64 // ranges that are told of
	byHand  bool         // nobody runs it but who calls once: see Hand
}

func newApplier(s *Store, box *mailbox) *applier {
	a := &applier{s: s, box: box}
	a.cond.L = &a.mu
	return a
}

func (a *applier) put(applies []raftgroup.Apply) {
	a.mu.Lock()
	a.queue = append(a.queue, applies...)
	a.mu.Unlock()
	a.cond.Broadcast()
}

// drain returns when everything that was put is applied, or the applier has stopped.
func (a *applier) drain() {
	if a.byHand {
		a.once()
		return
	}
	a.mu.Lock()
	for (len(a.queue) > 0 || a.busy) && !a.stopped {
		a.cond.Wait()
	}
	a.mu.Unlock()
}

func (a *applier) stop() {
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.cond.Broadcast()
}

// run is the applier's goroutine.
func (a *applier) run() {
	var spare []raftgroup.Apply
	for {
		a.mu.Lock()
		a.busy = false
		a.cond.Broadcast()
		for len(a.queue)+len(a.teller.asked) == 0 && !a.stopped {
			a.cond.Wait()
		}
		if a.stopped {
			a.mu.Unlock()
			return
		}
		queue, asked := a.queue, a.teller.asked
		a.queue, a.teller.asked, a.busy = spare[:0], nil, true
		a.mu.Unlock()
		a.answer(asked)
		if err := a.apply(queue); err != nil {
			a.s.fatal(err)
			a.stop()
			return
		}
		clear(queue)
		spare = queue
	}
}

// once applies all that waits.
func (a *applier) once() {
	a.mu.Lock()
	queue, asked := a.queue, a.teller.asked
	a.queue, a.teller.asked = nil, nil
	a.mu.Unlock()
	if a.stopped {
		return
	}
	a.answer(asked)
	if err := a.apply(queue); err != nil {
		a.s.fatal(err)
		a.stop()
	}
}

func (a *applier) apply(queue []raftgroup.Apply) error {
	if len(queue) == 0 {
		return nil
	}
	for len(a.results) < len(queue) {
		a.results = append(a.results, apply.Result{})
	}
	b := a.s.eng.NewIndexedBatch()
	defer b.Close()
	data := eval.NewPass(b)
	defer data.Close() // before the batch; what it says was said by the read that failed
	shapes := false    // ranges are cut or taken over
	for i := range queue {
		r, err := a.replica(&queue[i], &a.results[i])
		switch {
		case err != nil:
			return err
		case r == nil:
			continue
		}
		a.wants(queue[i].Range, r.sm)
		if err := r.sm.Apply(data, queue[i].Entries, a.s.node, &a.results[i]); err != nil {
			return err
		}
		shapes = shapes || len(a.results[i].Splits)+len(a.results[i].Merges) > 0
	}
	if err := data.Close(); err != nil {
		return err
	}
	if err := a.commit(b, a.results[:len(queue)], shapes); err != nil {
		return err
	}
	for i := range queue {
		if r := a.s.replica(queue[i].Range); r != nil {
			if r.publish() || len(a.results[i].Merges) > 0 { // what was taken over may be compacted less than its mark says
				a.s.compactor.signal()
			}
			if n := len(a.results[i].Outcomes); n > 0 {
				a.s.carriedOut(queue[i].Range, r, queue[i].Entries, n)
			}
			a.s.cfg.OnApplied(queue[i].Range)
			if leases, moved := a.results[i].Leases, a.results[i].LeasesMoved; len(leases) > 0 || moved {
				a.s.cfg.OnLeases(queue[i].Range, leases, moved)
			}
			a.s.polls.look(a.s, queue[i].Range)
			if changed := a.results[i].Indexed; len(changed) > 0 {
				a.s.cfg.OnIndexed(queue[i].Range, changed)
			}
		}
	}
	a.tell(queue, a.results)
	a.box.put(func(ev *raftgroup.Events) {
		for i := range queue {
			ev.Applied = append(ev.Applied, a.results[i].Applied)
		}
	})
	for i := range queue {
		a.s.begun(queue[i].Range, a.results[i].Splits)
		a.s.ended(a.results[i].Merges)
	}
	for i := range queue {
		for _, o := range a.results[i].Outcomes {
			a.s.waiters.resolve(o.ID.Seq, o.Response, o.Err)
		}
	}
	return nil
}

// replica is that of an Apply, with its state machine; nil if there is nothing to apply to any more, for its range was taken over.
func (a *applier) replica(ap *raftgroup.Apply, result *apply.Result) (*replica, error) {
	r := a.s.replica(ap.Range)
	if r == nil {
		r = a.s.born(ap.Range)
	}
	if r != nil && r.sm == nil {
		if err := a.s.warm(ap.Range, r); err != nil {
			if r = a.s.born(ap.Range); r != nil {
				return nil, err
			} // else another loop's applier took its range over, under the reading
		}
	}
	if r != nil {
		return r, nil
	}
	if !a.s.isAbsorbed(ap.Range) {
		return nil, &base.Corruption{Where: ap.Range.String(), Cause: errNoReplica}
	}
	*result = apply.Result{Applied: raftgroup.Applied{Range: ap.Range, Index: ap.Entries[len(ap.Entries)-1].GetIndex()}}
	return nil, nil
}

// commit makes a pass visible, and with it the ranges that it cut off, and the end of those that it took over.
func (a *applier) commit(b engine.Batch, results []apply.Result, shapes bool) error {
	if !shapes {
		return b.CommitNoSync()
	}
	a.s.births.Lock()
	defer a.s.births.Unlock()
	if mutant.Is(mutant.SplitNotAtomic) {
		if err := b.CommitNoSync(); err != nil {
			return err
		}
		late := a.s.eng.NewIndexedBatch()
		defer late.Close()
		b = late
	}
	born, err := a.s.bear(b, results)
	if err != nil {
		return err
	}
	// No step of a removal behind a compaction ends in between, and takes what it walked for what the range is now.
	a.s.compactor.step.Lock()
	defer a.s.compactor.step.Unlock()
	if err := a.s.absorb(b, results); err != nil {
		return err
	}
	if err := b.CommitNoSync(); err != nil {
		return err
	}
	a.s.forgetAbsorbed(results)
	return a.s.raise(born)
}

package store

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/time/rate"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
)

// compactor removes, in the background and in small steps, the versions that a compaction hid from every read. Each
// replica does so on its own: what is removed is nothing that any command or read can see. How far a range has come is
// kept beside its raft state, so that a restart does not walk through everything again, and an installed snapshot, which
// may bring such versions, starts it anew.
type compactor struct {
	s *Store
	// step is held while a step is read and committed, and while a snapshot is taken in. Between the two a step that
	// was read before would delete, in what the snapshot brought, a tombstone whose older versions were gone here and
	// are back: a deleted key would appear again.
	step   sync.Mutex
	wake   chan struct{} // capacity 1
	rate   *rate.Limiter // versions looked at
	ctx    context.Context
	cancel context.CancelFunc
}

func newCompactor(s *Store) *compactor {
	ctx, cancel := context.WithCancel(context.Background())
	return &compactor{
		s: s, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel,
		rate: rate.NewLimiter(base.CompactionVersionsPerSecond, 2*base.CompactionStep),
	}
}

// signal has it look for something to do.
func (c *compactor) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run is the compactor's goroutine.
func (c *compactor) run() {
	c.signal() // a restart may have cut one short
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		for _, id := range c.s.Ranges() {
			if err := c.compact(id); err != nil && c.ctx.Err() == nil {
				c.s.fatal(err)
				return
			}
		}
	}
}

// compact brings one range up to its compaction mark.
func (c *compactor) compact(id base.RangeID) error {
	done, err := readUint(c.s.eng, keys.RaftCompacted(id))
	if err != nil {
		return err
	}
	r := c.s.replica(id)
	if r == nil {
		return nil
	}
	view := c.s.viewOf(id, r)
	if view == nil || view.Counters.Compacted <= base.Revision(done) {
		return nil
	}
	mark := view.Counters.Compacted
	var p eval.Progress
	for !p.Done {
		if err := c.rate.WaitN(c.ctx, base.CompactionStep); err != nil {
			return err
		}
		var gone bool
		if p, gone, err = c.stepOne(id, r, view, p.Cursor); err != nil || gone {
			return err
		}
	}
	c.s.cfg.OnApplied(id) // it may be small now
	c.s.cfg.Logger.Debug("compacted", "range", id, "revision", mark)
	return nil
}

// stepOne carries out one step, unless the replica left this node, was replaced by a snapshot, or has another span or mark than
// when the walk was begun: then it is begun anew.
func (c *compactor) stepOne(id base.RangeID, r *replica, begun *apply.View, cursor []byte) (p eval.Progress, gone bool, err error) {
	c.step.Lock()
	defer c.step.Unlock()
	now, err := apply.ReadView(c.s.eng, id) // what is shown follows the engine
	var none *base.RangeMoved
	if err != nil && !errors.As(err, &none) {
		return p, false, err
	}
	if err != nil || c.s.replica(id) != r || !desc.SameSpan(now.Descriptor, begun.Descriptor) || now.Counters.Compacted != begun.Counters.Compacted {
		c.signal()
		return p, true, nil
	}
	span, mark := apply.Spans(begun.Descriptor)[1], begun.Counters.Compacted
	b := c.s.eng.NewBatch()
	defer b.Close()
	p, err = eval.CompactStep(c.s.eng, b, span, mark, cursor, base.CompactionStep)
	if err == nil && p.Done {
		err = b.Set(keys.RaftCompacted(id), uintBytes(nil, uint64(mark)))
	}
	if err == nil {
		err = b.CommitNoSync()
	}
	return p, false, err
}

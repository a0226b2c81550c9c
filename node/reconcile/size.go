package reconcile

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// Written takes note that something was applied in a range: its size may have changed.
func (r *Reconciler) Written(id base.RangeID) {
	r.mu.Lock()
	r.written[id] = struct{}{}
	r.mu.Unlock()
}

// watchSizes cuts the ranges in two that have grown too large, and merges those that have become small. It looks at those alone that
// were written to.
func (r *Reconciler) watchSizes() {
	tick := time.NewTicker(base.SizeInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		written := r.written
		r.written = make(map[base.RangeID]struct{})
		r.mu.Unlock()
		for _, id := range r.calm(written) {
			r.merge(id)
		}
		for id := range written {
			if r.ctx.Err() != nil {
				return
			}
			if err := r.size(id); err != nil && r.ctx.Err() == nil {
				r.cfg.Logger.Info("a range that has grown was not split; it is tried again", "range", id, "error", err)
				r.Written(id)
			}
		}
	}
}

// size reports the size of a range that this node leads, and has it split if that is too large. Its halves are looked at again: they may be still.
func (r *Reconciler) size(id base.RangeID) error {
	st, ok := r.cfg.Store.State(id)
	view := r.cfg.Store.View(id)
	if !ok || st.Role != raftgroup.Leader || view == nil {
		return nil
	}
	bytes, err := r.cfg.Store.Size(view.Descriptor)
	if err != nil {
		return err
	}
	r.cfg.Reports.Sized(id, bytes)
	if !base.KeyspaceID(view.Descriptor.KeyspaceId).Splits() || bytes < r.cfg.SplitBytes {
		return nil
	}
	key, err := r.cfg.Store.Middle(r.ctx, view.Descriptor)
	if err != nil || key == nil {
		return err // a single key, however large it is, is not split
	}
	done, err := r.cut(view.Descriptor, key)
	if err != nil {
		return err
	}
	if done {
		r.splits.size.Add(1)
		r.cfg.Logger.Info("range split: it had grown", "range", id, "bytes", bytes, "at", printable(key))
	}
	r.Written(id)
	return nil
}

// cut has a range split at a key, and says whether it was: not if somebody else took a step with it, after which it is another.
func (r *Reconciler) cut(d *metapb.RangeDescriptor, key []byte) (done bool, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	err = r.cfg.Split(ctx, d, key)
	var stale *base.StaleGeneration
	if errors.As(err, &stale) {
		return false, nil
	}
	return err == nil, err
}

// Splits is how many ranges this node had split because of their size, and because of their load, since it was started.
func (r *Reconciler) Splits() (size, load uint64) { return r.splits.size.Load(), r.splits.load.Load() }

// printable is a key as the logs show it.
func printable(key []byte) string {
	if len(key) > loggedKey {
		return strconv.Quote(string(key[:loggedKey])) + "…"
	}
	return strconv.Quote(string(key))
}

// loggedKey is how much of a key a log line holds.
const loggedKey = 64

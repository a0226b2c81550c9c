package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/join"
)

// Fence says whether this node may serve clients. It may not from its start until the cluster has taken note of it, nor from the moment
// that it hears of a higher epoch than its own until it has announced itself again; and never more once it was removed or replaced. Its
// replicas go on as replicas meanwhile: what Raft lets them do is safe, and they are removed like any others.
//
// The epoch that it serves under is on disk first: a process that is started again knows what it was told.
type Fence struct {
	cfg    FenceConfig
	closed atomic.Pointer[barrier] // nil: it serves
	again  chan struct{}           // capacity 1: it is to announce itself
	unsure atomic.Bool             // even if it serves

	mu    sync.Mutex
	epoch uint64 // that it serves under, or did
	heard uint64 // the highest that it has heard of
	over  bool   // it never serves again
}

// barrier is why a node does not serve, and what clients that have come wait at.
type barrier struct {
	why  *base.Fenced
	gone chan struct{} // closed when it is no longer this that keeps the node from serving; nil: it stays for ever
}

func newBarrier(reason string) *barrier {
	return &barrier{why: &base.Fenced{Reason: reason}, gone: make(chan struct{})}
}

// FenceConfig is what a Fence works with.
type FenceConfig struct {
	Node  base.NodeID
	Epoch uint64 // as the store has it
	// Keep writes the epoch to the store before the node serves under it.
	Keep func(epoch uint64) error
	// Announce tells the cluster of this node until it has taken note, and returns the record. *join.Refused is final.
	Announce func(context.Context) (*metapb.NodeRecord, error)
	// Serving is told when the node begins or ceases to serve, Final that it never will again. Neither may block or call back.
	Serving func(bool)
	Final   func(error)
	Logger  *slog.Logger
}

// NewFence makes one that is closed: the node has just started.
func NewFence(cfg FenceConfig) *Fence {
	f := &Fence{cfg: cfg, again: make(chan struct{}, 1), epoch: cfg.Epoch, heard: cfg.Epoch}
	f.closed.Store(newBarrier(fmt.Sprintf("%s has just started, and serves when most replicas of sys have taken note of it", cfg.Node)))
	f.again <- struct{}{}
	return f
}

// Check is nil if the node may serve; *base.Fenced if not.
func (f *Fence) Check() error {
	if b := f.closed.Load(); b != nil {
		return b.why
	}
	return nil
}

// Await is Check for who can wait until ctx ends: a node that has been started, or was given up by mistake, serves again within moments
// as a rule. It waits for nothing where the node never serves again.
func (f *Fence) Await(ctx context.Context) error {
	for {
		b := f.closed.Load()
		if b == nil {
			return nil
		}
		if b.gone == nil {
			return b.why
		}
		select {
		case <-b.gone:
		case <-ctx.Done():
			return b.why
		}
	}
}

// Epoch is that under which the node serves, or did last.
func (f *Fence) Epoch() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

// Run announces the node at its start, and whenever it has to be. It returns when ctx ends or the node never serves again.
func (f *Fence) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.again:
		}
		if !f.unsure.Swap(false) && f.Check() == nil {
			continue // it was let in already
		}
		record, err := f.cfg.Announce(ctx)
		var refused *join.Refused
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &refused):
			f.end(refused.Reason)
			return
		case err == nil:
			err = f.admitted(record)
		}
		if err != nil {
			f.cfg.Final(err) // neither the cluster nor the store can be worked with
			return
		}
	}
}

// admitted takes the record that the cluster has after the announcement, and serves under its epoch.
func (f *Fence) admitted(r *metapb.NodeRecord) error {
	f.mu.Lock()
	epoch, over := f.epoch, f.over
	f.mu.Unlock()
	if over {
		return nil
	}
	if r.GetEpoch() > epoch {
		if err := f.cfg.Keep(r.Epoch); err != nil {
			return fmt.Errorf("the epoch of this node's record cannot be stored: %w", err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch = max(f.epoch, r.GetEpoch())
	if f.heard > f.epoch || f.over {
		f.ask() // it was given up once more meanwhile
		return nil
	}
	if !f.replace(nil) {
		return nil // it served already
	}
	f.cfg.Serving(true)
	f.cfg.Logger.Info("this node serves", "node", f.cfg.Node, "epoch", f.epoch)
	return nil
}

// Learn takes a record of this node, wherever it came from: one that is older than what it knows says nothing.
func (f *Fence) Learn(r *metapb.NodeRecord) {
	if base.NodeID(r.GetNodeId()) != f.cfg.Node {
		return
	}
	if liveness.Gone(r.State) {
		f.end(join.Ended(r).Error())
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || r.Epoch <= f.heard {
		return
	}
	f.heard = r.Epoch
	reason := fmt.Sprintf("%s was held to be failed since %s (%s); it announces itself again, and serves then",
		f.cfg.Node, time.UnixMicro(r.SinceUnixMicros).UTC().Format(time.RFC3339), r.Reason)
	if r.State != metapb.NodeState_NODE_STATE_FAILED {
		reason = fmt.Sprintf("%s was held to be failed and is under epoch %d now; it announces itself again, and serves then", f.cfg.Node, r.Epoch)
	}
	f.close(newBarrier(reason))
	f.ask()
}

// Doubt has the node announce itself though it serves: nobody answers it, and it may have been given up for good.
func (f *Fence) Doubt() {
	f.unsure.Store(true)
	f.ask()
}

// close has it serve nothing. mu is held.
func (f *Fence) close(b *barrier) {
	f.replace(b)
	f.cfg.Serving(false)
	f.cfg.Logger.Warn("this node serves nothing", "node", f.cfg.Node, "reason", b.why.Reason)
}

// replace puts a barrier, or none, in the place of the one that is there, and says whether there was one. mu is held.
func (f *Fence) replace(b *barrier) bool {
	before := f.closed.Swap(b)
	if before != nil && before.gone != nil {
		close(before.gone)
	}
	return before != nil
}

func (f *Fence) ask() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// end has it serve nothing for ever.
func (f *Fence) end(reason string) {
	f.mu.Lock()
	over := f.over
	f.over = true
	if !over {
		f.close(&barrier{why: &base.Fenced{Reason: reason}})
	}
	f.mu.Unlock()
	if !over {
		f.cfg.Final(&join.Refused{Reason: reason})
	}
}

package lessor

import (
	"context"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/lessor"
	"github.com/cairndb/cairn/raftgroup"
)

// home is one leadership of this node over one range.
type home struct {
	id   base.RangeID
	ks   base.KeyspaceID
	term uint64

	state atomic.Int32 // elected, leading or ended

	mu      sync.Mutex
	core    *lessor.Lessor // nil until the leases were read
	reading bool           // they are being read: what is told meanwhile may be newer than that
	early   []apply.LeaseChange
	moved   bool // they are to be read again
	warmed  base.Instant
	end     chan struct{} // if not nil, somebody waits for the next end of a lease here
}

const (
	elected int32 = iota // has not applied an entry of its term yet
	leading
	ended
)

func (h *home) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.core == nil {
		return 0
	}
	return h.core.Len()
}

// idle says whether nothing is to be done until something is told.
func (h *home) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state.Load() == ended || h.core != nil && h.core.Len() == 0 && !h.moved
}

// changed takes in what was told, and says whether the home is to be looked at that was not.
func (h *home) changed(changes []apply.LeaseChange, moved bool, now base.Instant) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.moved = h.moved || moved; moved {
		h.ended()
	}
	if h.core == nil || h.reading {
		h.early = append(h.early, changes...)
	}
	if h.core == nil {
		return false // it is looked at
	}
	before := h.core.Len()
	h.tell(changes, now)
	return moved || before == 0 && h.core.Len() > 0
}

func (h *home) tell(changes []apply.LeaseChange, now base.Instant) {
	for _, c := range changes {
		if c.Gone {
			h.core.Gone(c.Lease.Id, c.Lease.GrantedRevision)
			h.ended()
		} else {
			h.core.Changed(c.Lease, now)
		}
	}
}

// nextEnd returns a channel that is closed when a lease of the range ends next, or is another range's, or this node does not lead
// the range any more. Nil: it does not.
func (l *Lessor) nextEnd(id base.RangeID) <-chan struct{} {
	h := l.home(id)
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil {
		h.end = make(chan struct{})
	}
	return h.end
}

// ended tells those that wait for that. h.mu is held.
func (h *home) ended() {
	if h.end != nil {
		close(h.end)
		h.end = nil
	}
}

// over ends the leadership, and returns what it was before.
func (h *home) over() (was int32) {
	was = h.state.Swap(ended)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended()
	return was
}

// look does what is to be done about a home now, and says when to look again if nothing is told before.
func (l *Lessor) look(h *home) base.Instant {
	if h.state.Load() == elected {
		view := l.cfg.Store.View(h.id)
		if view == nil || view.AppliedTerm != h.term {
			return base.Never // told by Applied, or by Changed that somebody else leads
		}
	}
	h.mu.Lock()
	read := h.core == nil || h.moved
	h.mu.Unlock()
	if read {
		if err := l.read(h); err != nil {
			l.cfg.Logger.Error("the leases of a range could not be read", "range", h.id, "error", err)
			return l.cfg.Store.Now().Add(base.LeaseRevokeRetry)
		}
		if h.state.CompareAndSwap(elected, leading) {
			l.elected.Add(-1)
		}
	}
	if h.state.Load() != leading {
		return base.Never
	}
	return l.step(h)
}

// read reads the leases that live in a range. Changes go on meanwhile, and are told once more when all is read: told twice, in their order,
// they come to the same.
func (l *Lessor) read(h *home) error {
	h.mu.Lock()
	h.reading, h.moved = true, false
	core := h.core
	h.mu.Unlock()
	if core == nil {
		core = lessor.New(l.cfg.Store.Now())
	}
	for from := int64(0); ; {
		page, next, err := l.cfg.Store.ClientLeases(h.id, from, base.LeaseQuestionIDs)
		if err != nil {
			h.mu.Lock()
			h.moved = true
			h.mu.Unlock()
			return err
		}
		h.mu.Lock()
		core.Load(page, l.cfg.Store.Now())
		h.mu.Unlock()
		if from = next; next == 0 {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core = core
	h.tell(h.early, l.cfg.Store.Now())
	h.early, h.reading = nil, false
	if view := l.cfg.Store.View(h.id); view != nil {
		core.Retain(func(id int64) bool { return desc.Contains(view.Descriptor, h.ks, eval.LeaseHome(id)) })
	}
	return nil
}

// step has a home's leases revoked whose time is over.
func (l *Lessor) step(h *home) base.Instant {
	var until base.Instant
	lease, held := l.cfg.Store.Lease(h.id)
	if held = held && lease.Term() == h.term; held {
		until = lease.Until()
	}
	h.mu.Lock()
	now := l.cfg.Store.Now()
	revokes, next := h.core.Step(now, until)
	n := h.core.Len()
	warm := n > 0 && (!held || now.Sub(h.warmed) >= l.cfg.ColdAfter/4)
	if warm {
		h.warmed = now
	}
	h.mu.Unlock()
	if warm {
		l.cfg.Store.Warm(h.id)
	}
	for _, r := range revokes {
		l.revoke(h, r)
	}
	if n == 0 {
		l.rest(h)
		return next
	}
	return min(next, now.Add(l.cfg.ColdAfter/4)) // it must not go cold in between: no time counts in which nobody could be answered
}

// revoke proposes that a lease be revoked, at the term in which it was decided.
func (l *Lessor) revoke(h *home, r lessor.Revoke) {
	cmd := &kvpb.Command{NowMicros: l.cfg.Dispatch.NowMicros(), Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: &kvpb.LeaseRevoke{Id: r.ID, GrantedRevision: r.Granted}}}
	data, err := proto.Marshal(cmd)
	if err != nil {
		l.failed(h, r, err)
		return
	}
	p := raftgroup.Proposal{Range: h.id, Data: data, Term: h.term}
	l.cfg.Store.Propose(p, l.cfg.Store.Now().Add(base.RequestTimeout), func(m proto.Message, err error) {
		switch {
		case noLease(err): // it was known here, and is not there: somebody else was faster
			h.mu.Lock()
			h.core.Gone(r.ID, r.Granted)
			h.ended()
			h.mu.Unlock()
		case err != nil:
			l.failed(h, r, err)
		default:
			l.expired.Add(1)
			if resp := m.(*kvpb.LeaseRevokeResponse); !resp.Ended {
				l.end(h, r, resp.Lease)
			}
		}
		l.signal() // others may wait for their turn
	})
}

// end carries on with a lease that may hold keys in several ranges.
func (l *Lessor) end(h *home, r lessor.Revoke, rec *kvpb.LeaseRecord) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.stopped {
		return
	}
	if l.cfg.End != nil {
		l.cfg.End(h.ks, rec, func(err error) {
			if err != nil {
				l.failed(h, r, err)
			}
			l.signal()
		})
		return
	}
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, base.LeaseRevokePatience) // then it is due again
		defer cancel()
		select {
		case l.enders <- struct{}{}:
			defer func() { <-l.enders }()
		case <-ctx.Done():
			return
		}
		if _, err := l.cfg.Dispatch.EndLease(ctx, h.ks, rec); err != nil && l.ctx.Err() == nil {
			l.failed(h, r, err)
		}
		l.signal()
	})
}

// failed has a revoke tried again, if this node still leads then.
func (l *Lessor) failed(h *home, r lessor.Revoke, err error) {
	l.cfg.Logger.Debug("a lease was not revoked; it is tried again", "range", h.id, "lease", r.ID, "error", err)
	h.mu.Lock()
	h.core.Failed(r, l.cfg.Store.Now())
	h.mu.Unlock()
}

func noLease(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCLeaseNotFound).Message()
}

package operate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/sysrec"
)

// driver is what the loop remembers between two looks. All of it may be lost.
type driver struct {
	pace  map[uint64]*operation.Pace
	tally *operation.Tally
	scan  time.Time                          // not before this is the index read again
	found map[uint64]*metapb.RangeDescriptor // of relocations, to know where to ask
	size  map[uint64]int64                   // of their ranges, when they were found
}

// run looks at the operations whenever `sys` changes here, and once in a while as long as one goes on, on the node that leads `sys`.
func (m *Manager) run() {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		case <-again.C:
		}
		again.Stop()
		if !m.cfg.Leads() {
			m.drive = driver{} // whoever leads next measures anew
			m.counts.running.Store(0)
			m.counts.paused.Store(0)
			continue // a change of the role wakes it
		}
		if wait, ok := m.lookAll(); ok {
			again.Reset(wait)
		}
	}
}

// lookAll looks at every operation that goes on, and says when the next look is due; false: when something changes.
func (m *Manager) lookAll() (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(m.ctx, base.RequestTimeout)
	defer cancel()
	r, err := m.read(ctx)
	if err != nil {
		m.cfg.Logger.Debug("the operations were not read", "error", err)
		return base.OperationLook, true
	}
	if m.drive.pace == nil {
		m.drive.pace, m.drive.found = make(map[uint64]*operation.Pace), make(map[uint64]*metapb.RangeDescriptor)
		m.drive.size = make(map[uint64]int64)
	}
	m.countActive(r.ops)
	wait, any := time.Duration(0), false
	for _, op := range r.ops {
		if !active(op) {
			delete(m.drive.pace, op.OpId)
			delete(m.drive.found, op.RangeId)
			delete(m.drive.size, op.RangeId)
			continue
		}
		next, ok := m.due(op)
		if ok {
			if err := m.look(op, r); err != nil && m.ctx.Err() == nil {
				m.cfg.Logger.Info("an operation was not looked at; it is tried again", "id", op.OpId, "error", err)
			}
			if !any || next < wait {
				wait, any = next, true
			}
		}
	}
	return wait, any
}

// due says when an operation is to be looked at the next time; false: it need not be looked at before somebody changes it.
func (m *Manager) due(op *metapb.Operation) (time.Duration, bool) {
	if op.Kind == metapb.OperationKind_OPERATION_KIND_HOLD {
		return max(time.Duration(op.UntilUnixMicros-m.cfg.UnixMicros())*time.Microsecond, base.OperationLook), true
	}
	return base.OperationLook, op.State == metapb.OperationState_OPERATION_STATE_RUNNING
}

// look finds out how far one operation is, and writes that down. If its record, or a node's, is another by now, the next look is soon.
func (m *Manager) look(op *metapb.Operation, r *records) error {
	pace := m.drive.pace[op.OpId]
	if pace == nil {
		pace = &operation.Pace{}
		m.drive.pace[op.OpId] = pace
	}
	w := &operation.World{Nodes: r.nodes}
	m.observe(op, w, pace)
	w.Now, w.NowMicros = m.cfg.Now(), m.cfg.UnixMicros()
	c, err := operation.Next(op, w, pace)
	if err != nil || c.Nothing() {
		return err
	}
	var t sysrec.Txn
	if c.Op == nil { // the nodes' records rest on the operation going on
		t.At(sysrec.OperationKey(op.OpId), r.revision[string(sysrec.OperationKey(op.OpId))])
	}
	r.put(&t, c)
	ctx, cancel := context.WithTimeout(m.ctx, base.RequestTimeout) // of its own: what was found may have been waited for
	defer cancel()
	written, err := t.Commit(ctx, m.cfg.Cluster)
	if err == nil && written && c.Op != nil && !active(c.Op) {
		switch c.Op.State {
		case metapb.OperationState_OPERATION_STATE_DONE:
			m.counts.done.Add(1)
		case metapb.OperationState_OPERATION_STATE_FAILED:
			m.counts.failed.Add(1)
		}
		m.cfg.Logger.Info("operation ended", "id", op.OpId, "what", operation.Describe(op), "state", operation.State(c.Op.State), "outcome", c.Op.Outcome)
	}
	return err
}

// observe finds out what an operation is judged by.
func (m *Manager) observe(op *metapb.Operation, w *operation.World, pace *operation.Pace) {
	ctx, cancel := context.WithTimeout(m.ctx, base.RequestTimeout)
	defer cancel()
	stalled := pace.Stalled(m.cfg.Now())
	var some []uint64
	switch op.Kind {
	case metapb.OperationKind_OPERATION_KIND_DRAIN:
		w.Leads = m.askLeads(ctx, op.Nodes, stalled)
		for _, l := range w.Leads {
			some = append(some, l.Some...)
		}
	case metapb.OperationKind_OPERATION_KIND_DECOMMISSION:
		if err := m.count(); err != nil {
			w.Unknown = err.Error()
			return
		}
		w.Tally, w.Bytes = m.drive.tally, make(map[uint64]uint64)
		for _, h := range m.cfg.Health(ctx) {
			w.Bytes[h.NodeId] = h.GetLoad().GetBytes()
		}
		for _, id := range op.Nodes {
			some = append(some, w.Tally.Of(id).Some...)
		}
	case metapb.OperationKind_OPERATION_KIND_RELOCATE:
		if err := m.locate(ctx, op, w); err != nil {
			w.Unknown = err.Error()
			return
		}
		some = []uint64{op.RangeId}
	}
	if stalled && len(some) > 0 {
		w.Why = m.why(ctx, slices.Min(some))
	}
}

// count reads the index, if that is due.
func (m *Manager) count() error {
	began := time.Now()
	if m.drive.tally != nil && began.Before(m.drive.scan) {
		return nil
	}
	t := &operation.Tally{At: m.cfg.Now()}
	err := m.eachRange(m.ctx, func(d *metapb.RangeDescriptor) bool { t.Add(d); return true })
	m.drive.scan = time.Now().Add(scanPause(time.Since(began), t.Ranges))
	if err == nil {
		m.drive.tally = t
	}
	return err
}

// scanPause is how long the index is not read again after a reading of so many ranges.
func scanPause(took time.Duration, ranges uint64) time.Duration {
	return min(took, time.Duration(ranges)*base.OperationScanRange) * base.OperationScanShare
}

// askLeads asks each node what it leads; with some it names a few of the ranges.
func (m *Manager) askLeads(ctx context.Context, nodes []uint64, some bool) map[uint64]operation.Leads {
	answers := make([]operation.Leads, len(nodes))
	var g errgroup.Group
	g.SetLimit(base.StatusFanout)
	for i, id := range nodes {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, base.StatusTimeout)
			defer cancel()
			st, err := m.cfg.NodeStatus(ctx, base.NodeID(id), some)
			if err != nil {
				answers[i].Silent = err.Error()
				return nil
			}
			answers[i] = leads(st)
			return nil
		})
	}
	_ = g.Wait() // each answer carries its own error
	out := make(map[uint64]operation.Leads, len(nodes))
	for i, id := range nodes {
		out[id] = answers[i]
	}
	return out
}

func leads(st *clusterpb.NodeStatusResponse) operation.Leads {
	l := operation.Leads{Ranges: st.GetStore().GetLeaders()}
	for _, r := range st.Replicas {
		if r.Leader && len(l.Some) < base.OperationSome {
			l.Some = append(l.Some, r.Descriptor_.GetRangeId())
		}
	}
	return l
}

// locate finds out where a range is that is relocated, and whether it is led as wanted.
func (m *Manager) locate(ctx context.Context, op *metapb.Operation, w *operation.World) error {
	last := m.drive.found[op.RangeId]
	if last == nil {
		found, err := m.FindRange(ctx, base.RangeID(op.RangeId))
		if err != nil || found == nil {
			return err
		}
		last = found
		m.measure(ctx, found)
	}
	now, err := m.cfg.Cluster.Descriptor(ctx, base.KeyspaceID(last.KeyspaceId), last.Start)
	switch {
	case err != nil:
		return fmt.Errorf("%s does not say how it is: %w", base.RangeID(op.RangeId), err)
	case now.RangeId != op.RangeId:
		return nil // another range begins there: it is no more
	}
	w.Range, m.drive.found[op.RangeId] = now, now
	w.Bytes = map[uint64]uint64{op.RangeId: uint64(m.drive.size[op.RangeId])}
	if op.Leader == 0 {
		return nil
	}
	if st, err := m.cfg.NodeStatus(ctx, base.NodeID(op.Leader), true); err == nil {
		for _, r := range st.Replicas {
			if r.Leader && r.Descriptor_.GetRangeId() == op.RangeId {
				w.Leader = op.Leader
			}
		}
	}
	return nil
}

// measure asks once how large a range is that is relocated: for how long it may take, that is near enough.
func (m *Manager) measure(ctx context.Context, d *metapb.RangeDescriptor) {
	index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
	if !ok {
		index = base.KeyspaceRoot
	}
	nodes := make([]uint64, len(d.Replicas))
	for i, r := range d.Replicas {
		nodes[i] = r.NodeId
	}
	m.drive.size[d.RangeId] = m.sizes(ctx, nodes, index)[d.RangeId]
}

// why asks the decider of a range why it is not moved.
func (m *Manager) why(ctx context.Context, id uint64) string {
	e, _, err := m.Explain(ctx, base.RangeID(id))
	if err != nil {
		return "its decider did not say why: " + err.Error()
	}
	if e.UnderWay != "" {
		return strings.TrimPrefix(e.UnderWay, "waiting because ")
	}
	if e.Decision != "" {
		return "about to be done: " + e.Decision
	}
	return strings.TrimPrefix(e.Reason, "waiting because ")
}

// Explain says what would be decided for a range now, and which node said so.
func (m *Manager) Explain(ctx context.Context, id base.RangeID) (*metapb.Explanation, base.NodeID, error) {
	d, err := m.FindRange(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	if d == nil {
		return nil, 0, &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no range %s", id), Instead: "see cairn range ls"}
	}
	return m.cfg.Explain(ctx, d)
}

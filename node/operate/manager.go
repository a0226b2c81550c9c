package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/node/sysrec"
)

// StatusFunc asks all nodes how they and their ranges are.
type StatusFunc func(context.Context) *clusterpb.StatusResponse

// List returns the operations that go on, or all, in the order of their ids.
func (m *Manager) List(ctx context.Context, ended bool) ([]*metapb.Operation, error) {
	ops, err := Operations(ctx, m.cfg.Cluster)
	if err != nil || ended {
		return ops, err
	}
	now := m.cfg.UnixMicros()
	return slices.DeleteFunc(ops, func(op *metapb.Operation) bool { return !operation.ActiveAt(op, now) }), nil
}

// Operation returns one.
func (m *Manager) Operation(ctx context.Context, id uint64) (*metapb.Operation, error) {
	kv, err := sysrec.Get(ctx, m.cfg.Cluster, sysrec.OperationKey(id))
	if err != nil {
		return nil, err
	}
	if kv.ModRevision == 0 {
		return nil, noOperation(id)
	}
	op := &metapb.Operation{}
	return op, sysrec.Decode(kv, op)
}

// Begin begins an operation, or finds the same one that goes on. What could not end well is refused. dryRun only says what would be
// done. steps is that, in words.
func (m *Manager) Begin(ctx context.Context, asked *metapb.Operation, dryRun bool, status StatusFunc) (op *metapb.Operation, steps []string, err error) {
	if asked == nil {
		return nil, nil, &base.Refused{For: base.RefusedMalformed, Reason: "no operation is given"}
	}
	var whole *cluster // read once: a race for the records does not change what the index says
	var found *metapb.RangeDescriptor
	fresh := false // it is not one that goes on already
	if asked.Kind == metapb.OperationKind_OPERATION_KIND_RELOCATE {
		if found, err = m.FindRange(ctx, base.RangeID(asked.RangeId)); err != nil {
			return nil, nil, err
		}
	}
	err = m.change(ctx, func(r *records, t *sysrec.Txn) (bool, error) {
		k := &operation.Known{NowMicros: m.cfg.UnixMicros(), Operations: r.ops, Nodes: r.nodes, Range: found}
		c, err := operation.Start(asked, r.last+1, k)
		if err != nil {
			return false, err
		}
		op = c.Op
		if fresh = op.OpId == r.last+1; !fresh {
			steps = []string{fmt.Sprintf("operation %d does that already", op.OpId)}
			return false, nil
		}
		if whole == nil {
			if whole, err = m.survey(ctx, r, status); err != nil {
				return false, err
			}
		}
		if err := whole.judge(op, r.ops, k.NowMicros); err != nil {
			return false, err
		}
		steps = whole.steps(op, c.Nodes)
		t.At([]byte(operationCounter), r.counter)
		t.PutCounter([]byte(operationCounter), op.OpId)
		r.put(t, c)
		r.prune(t)
		return !dryRun, nil
	})
	if err != nil {
		return nil, nil, err
	}
	if dryRun && fresh {
		op.OpId = 0 // none was made
	}
	m.cfg.Logger.Info("operation", "id", op.OpId, "what", operation.Describe(op), "dry_run", dryRun)
	return op, steps, nil
}

// Change cancels, pauses or resumes an operation. What is so already stays as it is.
func (m *Manager) Change(ctx context.Context, id uint64, change clusterpb.OperationChange, dryRun bool) (op *metapb.Operation, err error) {
	f := map[clusterpb.OperationChange]func(*metapb.Operation, []*metapb.NodeRecord, int64) (operation.Change, error){
		clusterpb.OperationChange_OPERATION_CHANGE_CANCEL: operation.Cancel,
		clusterpb.OperationChange_OPERATION_CHANGE_PAUSE:  operation.Pause,
		clusterpb.OperationChange_OPERATION_CHANGE_RESUME: operation.Resume,
	}[change]
	if f == nil {
		return nil, &base.Refused{For: base.RefusedMalformed, Reason: "this version does not know what is to be done with the operation", Instead: "cancel, pause or resume it"}
	}
	err = m.change(ctx, func(r *records, t *sysrec.Txn) (bool, error) {
		if op, err = r.operation(id); err != nil {
			return false, err
		}
		c, err := f(op, r.nodes, m.cfg.UnixMicros())
		if err != nil || c.Nothing() {
			return false, err
		}
		op = c.Op
		r.put(t, c)
		return !dryRun, nil
	})
	return op, err
}

// ChangeNode changes a node's record by hand. What operations made of it is taken back with them.
func (m *Manager) ChangeNode(ctx context.Context, req *clusterpb.ChangeNodeRequest, status StatusFunc) (rec *metapb.NodeRecord, err error) {
	var whole *cluster
	err = m.change(ctx, func(r *records, t *sysrec.Txn) (bool, error) {
		old, err := r.node(req.NodeId)
		if err != nil {
			return false, err
		}
		now := m.cfg.UnixMicros()
		if rec, err = operation.ChangeNode(old, req.Change, now); err != nil {
			return false, err
		}
		if req.Change == clusterpb.NodeChange_NODE_CHANGE_REMOVE && rec != old {
			if whole == nil {
				if whole, err = m.survey(ctx, r, status); err != nil {
					return false, err
				}
			}
			if err := whole.mayRemove(old); err != nil {
				return false, err
			}
		}
		var c operation.Change
		if rec != old {
			c.Nodes = []*metapb.NodeRecord{rec}
		}
		r.put(t, c)
		ended := false
		for _, op := range r.ops {
			if operation.Undone(op, rec) {
				r.put(t, operation.Change{Op: operation.Released(op, req.NodeId, now)})
				ended = true
			}
		}
		return (rec != old || ended) && !req.DryRun, nil
	})
	if err == nil {
		m.cfg.Logger.Info("a node's record was changed by hand", "node", base.NodeID(req.NodeId), "change", req.Change, "dry_run", req.DryRun)
	}
	return rec, err
}

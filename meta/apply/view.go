package apply

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
)

// View is a range as one instant of the engine shows it: what its data means.
type View struct {
	Descriptor   *metapb.RangeDescriptor
	Counters     eval.Counters
	AppliedIndex uint64
	AppliedTerm  uint64
}

// ReadView reads a range's view. Given an engine snapshot, the view and the data that the snapshot shows agree. The
// error is a *base.RangeMoved if the store holds no initialised replica of the range.
func ReadView(r engine.Reader, id base.RangeID) (View, error) {
	rep, err := Load(r, id)
	if err != nil {
		return View{}, err
	}
	if rep == nil {
		return View{}, &base.RangeMoved{Range: id}
	}
	return rep.View(), nil
}

// View is the replica's state after the last entry applied, for readers of the engine that see exactly that.
func (r *Replica) View() View {
	return View{Descriptor: r.desc, Counters: r.counters, AppliedIndex: r.applied.index, AppliedTerm: r.applied.term}
}

// Env is what a read is evaluated in. Each read needs its own.
func (v *View) Env() *eval.Env {
	return &eval.Env{
		Range: base.RangeID(v.Descriptor.RangeId), Keyspace: base.KeyspaceID(v.Descriptor.KeyspaceId), Start: v.Descriptor.Start, End: v.Descriptor.End,
		Counters: v.Counters, WantResponse: true,
	}
}

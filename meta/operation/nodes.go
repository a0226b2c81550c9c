package operation

import (
	"errors"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// apply is liveness.Apply; what cannot be is refused.
func apply(r *metapb.NodeRecord, e liveness.Event, reason string, nowMicros int64) (*metapb.NodeRecord, error) {
	out, err := liveness.Apply(r, e, reason, nowMicros)
	var illegal *liveness.Illegal
	if errors.As(err, &illegal) {
		return nil, &base.Refused{For: base.RefusedState, Reason: illegal.Error()}
	}
	return out, err
}

// undo takes marks back, in one change of the record.
func undo(r *metapb.NodeRecord, events []liveness.Event, reason string, nowMicros int64) (out *metapb.NodeRecord, err error) {
	out = r
	for _, e := range events {
		if out, err = apply(out, e, reason, nowMicros); err != nil {
			return nil, err
		}
	}
	if out.Generation > r.Generation {
		out.Generation = r.Generation + 1
	}
	return out, nil
}

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

// undo takes a mark back; half leaves the node cordoned.
func undo(r *metapb.NodeRecord, e liveness.Event, half bool, reason string, nowMicros int64) (*metapb.NodeRecord, error) {
	out, err := apply(r, e, reason, nowMicros)
	if err != nil {
		return nil, err
	}
	cordon := liveness.Uncordon
	if half {
		cordon = liveness.Cordon
	}
	out, err = apply(out, cordon, reason, nowMicros)
	if err == nil && out.Generation > r.Generation {
		out.Generation = r.Generation + 1 // it is one change of the record
	}
	return out, err
}

package operation

import (
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
)

func touched(r *metapb.NodeRecord, f func(*metapb.NodeRecord)) *metapb.NodeRecord {
	next := proto.CloneOf(r)
	f(next)
	if proto.Equal(r, next) {
		return r
	}
	next.Generation++
	return next
}

func drainNode(r *metapb.NodeRecord, reason string, now int64) (*metapb.NodeRecord, error) {
	return touched(r, func(r *metapb.NodeRecord) { r.Draining, r.Cordoned = true, true }), nil
}

func undrainNode(r *metapb.NodeRecord, half bool, reason string, now int64) (*metapb.NodeRecord, error) {
	return touched(r, func(r *metapb.NodeRecord) { r.Draining, r.Cordoned = false, half }), nil
}

func leaveNode(r *metapb.NodeRecord, reason string, now int64) (*metapb.NodeRecord, error) {
	return touched(r, func(r *metapb.NodeRecord) {
		if r.State != metapb.NodeState_NODE_STATE_LEAVING {
			r.State, r.Reason, r.SinceUnixMicros = metapb.NodeState_NODE_STATE_LEAVING, reason, now
		}
	}), nil
}

func recommissionNode(r *metapb.NodeRecord, half bool, reason string, now int64) (*metapb.NodeRecord, error) {
	return touched(r, func(r *metapb.NodeRecord) {
		r.State, r.Reason, r.SinceUnixMicros, r.Cordoned = metapb.NodeState_NODE_STATE_ACTIVE, reason, now, half
	}), nil
}

func leftNode(r *metapb.NodeRecord, reason string, now int64) (*metapb.NodeRecord, error) {
	return touched(r, func(r *metapb.NodeRecord) {
		r.State, r.Reason, r.SinceUnixMicros = metapb.NodeState_NODE_STATE_LEFT, reason, now
		r.Epoch++
	}), nil
}

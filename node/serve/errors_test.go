package serve

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/transport"
)

func TestErrorTable(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code codes.Code
		text string
	}{
		{"none", nil, codes.OK, ""},
		{"no leader", &base.NotLeader{Range: 4}, codes.Unavailable, "etcdserver: no leader"},
		{"another leader", &base.NotLeader{Range: 4, HintNode: 2}, codes.Unavailable, "etcdserver: leader changed"},
		{"not here", &base.RangeMoved{Range: 4}, codes.Unavailable, "etcdserver: unhealthy cluster"},
		{"nobody knows where", &route.NoRange{Keyspace: 1}, codes.Unavailable, "etcdserver: unhealthy cluster"},
		{"dropped", &base.KeyspaceDropped{Keyspace: 100}, codes.NotFound, "the keyspace was dropped: see cairn keyspace ls"},
		{"stale", &base.StaleGeneration{Range: 4}, codes.Aborted, "r4: the descriptor changed, it is now at generation 0"},
		{"not known", &base.Ambiguous{Cause: errors.New("x")}, codes.Unavailable, "etcdserver: request timed out"},
		{"not known, late", &base.Ambiguous{Cause: context.DeadlineExceeded}, codes.Unavailable, "etcdserver: request timed out"},
		{"not known, no leader", &base.Ambiguous{Cause: &base.NotLeader{}}, codes.Unavailable, "etcdserver: request timed out"},
		{"not known, canceled", &base.Ambiguous{Cause: context.Canceled}, codes.Canceled, "etcdserver: request canceled"},
		{"too much", &base.Throttled{What: "x", RetryAfter: time.Second}, codes.ResourceExhausted, "etcdserver: too many requests"},
		{"corrupt", &base.Corruption{Where: "x", Cause: errors.New("y")}, codes.DataLoss, "etcdserver: corrupt cluster"},
		{"stopping", base.ErrStopped, codes.Unavailable, "etcdserver: server stopped"},
		{"transport closed", transport.ErrClosed, codes.Unavailable, "etcdserver: server stopped"},
		{"unreachable", transport.ErrUnreachable, codes.Unavailable, "etcdserver: no leader"},
		{"server's time-out", errServerTimeout, codes.Unavailable, "etcdserver: request timed out"},
		{"client's time-out", context.DeadlineExceeded, codes.DeadlineExceeded, "etcdserver: context deadline exceeded"},
		{"canceled", context.Canceled, codes.Canceled, "etcdserver: request canceled"},
		{"fenced", &base.Fenced{Reason: "n3 was given up"}, codes.Unavailable, "n3 was given up"},
		{"no such event", &liveness.Illegal{Node: 3, State: metapb.NodeState_NODE_STATE_LEFT, Event: liveness.Cordon}, codes.FailedPrecondition,
			"n3 cannot be cordoned: it has left; nothing more can become of it"},
		{"refused", &join.Refused{Reason: "go away"}, codes.FailedPrecondition, "go away"},
		{"operator, malformed", &base.Refused{For: base.RefusedMalformed, Reason: "no node is named", Instead: "name one"}, codes.InvalidArgument, "no node is named: name one"},
		{"operator, unknown", &base.Refused{For: base.RefusedUnknown, Reason: "there is no node n9"}, codes.NotFound, "there is no node n9"},
		{"operator, cannot be", &base.Refused{For: base.RefusedState, Reason: "n3 lives", Instead: "stop it"}, codes.FailedPrecondition, "n3 lives: stop it"},
		{"operator, changed", &base.Refused{For: base.RefusedChanged, Reason: "it was changed", Instead: "look again"}, codes.Aborted, "it was changed: look again"},
		{"outsider", join.ErrNotInitialised, codes.Unavailable,
			"this node is not part of a cluster yet: run cairn init, or start it with --join"},
		{"compacted", rpctypes.ErrGRPCCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"compacted, typed", rpctypes.ErrCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"from another node", status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
			codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"unforeseen", errors.New("x"), codes.Unknown, "x"},
	} {
		for _, err := range []error{c.err, wrap(c.err)} {
			got := status.Convert(ToStatus(err))
			if got.Code() != c.code || (err == c.err && got.Message() != c.text) {
				t.Errorf("%s: %v became %v %q, want %v %q", c.name, err, got.Code(), got.Message(), c.code, c.text)
			}
		}
	}
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("on the way: %w", err)
}

// node/join reads on the other side what this table says: refusals are final there, and nothing else is.
func TestRefusalsAreFinalOnTheWire(t *testing.T) {
	if c := status.Code(ToStatus(&join.Refused{})); c != codes.FailedPrecondition {
		t.Errorf("a refusal is %v", c)
	}
	for _, err := range []error{join.ErrNotInitialised, base.ErrStopped, &base.NotLeader{}, &base.Ambiguous{Cause: errors.New("x")},
		&base.Throttled{}, context.DeadlineExceeded, &base.RangeMoved{}} {
		switch c := status.Code(ToStatus(err)); c {
		case codes.FailedPrecondition, codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented, codes.DataLoss:
			t.Errorf("%v may pass, and is %v", err, c)
		}
	}
}

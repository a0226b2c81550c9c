package join

import (
	"context"
	"errors"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// Init makes a new cluster with this node as its first member, because an operator says so. Nodes of --join that
// can be reached must agree; those that cannot be reached are the operator's responsibility. After a crash on the
// way it can be called again.
func (e *Entry) Init(ctx context.Context) (*clusterpb.InitResponse, error) {
	if err := e.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer e.yieldTurn()
	if e.isMember() {
		id := e.outcome.Identity
		return nil, refusef("%s is already %s of cluster %x: there is nothing to init",
			e.cfg.Self.Address, base.NodeID(id.NodeId), id.ClusterId)
	}
	seen, err := e.look(ctx, 0)
	if err != nil {
		return nil, err
	}
	if seen.unclear != "" {
		return nil, refusef("%s", seen.unclear)
	}
	if len(seen.members) > 0 {
		m := seen.members[0]
		return nil, refusef("%s is already part of cluster %x, and this node is to join it (--join): "+
			"it does so by itself; to make another cluster, start this node without that address",
			m, m.id.ClusterId)
	}
	refusal, err := e.stand(ctx, &clusterpb.ConsentRequest{
		CandidateStoreUuid: e.uuid, CandidateAddress: e.cfg.Self.Address, Init: true}, seen.waiting)
	switch {
	case errors.Is(err, errLostCandidacy):
		return nil, refusef("%v: see cairn status", err)
	case err != nil:
		return nil, err
	case refusal != "":
		return nil, refusef("%s", refusal)
	}
	id := e.outcome.Identity
	return &clusterpb.InitResponse{ClusterId: id.ClusterId, NodeId: id.NodeId}, nil
}

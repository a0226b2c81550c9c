package join

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Change has a node's record changed in `sys`, by compare-and-set: decide is given the record as it is and returns what it is to be,
// or the same if it is so already. It is asked again when the record changed meanwhile, and when nobody knows whether it went through:
// it must find what it has done itself. before and after are what decide was given and returned last.
func Change(ctx context.Context, c Writer, id base.NodeID, decide func(*metapb.NodeRecord) (*metapb.NodeRecord, error)) (before, after *metapb.NodeRecord, err error) {
	for range base.RegistrarTries {
		l := &ledger{}
		if l.nodes, err = readNodes(ctx, c); err != nil {
			return nil, nil, err
		}
		old := l.byID(uint64(id))
		if old == nil {
			return nil, nil, &UnknownNode{ID: id, Nodes: l.records()}
		}
		before = old.record
		if after, err = decide(before); err != nil || after == before {
			return before, after, err
		}
		done, err := l.commit(ctx, c, &change{record: after})
		var ambiguous *base.Ambiguous
		switch {
		case err == nil && done:
			return before, after, nil
		case err != nil && (!errors.As(err, &ambiguous) || ctx.Err() != nil):
			return nil, nil, err
		}
	}
	return nil, nil, &base.Throttled{What: "changes of the record of " + id.String(), RetryAfter: base.JoinRetryMax}
}

// UnknownNode: no node has that id.
type UnknownNode struct {
	ID    base.NodeID
	Nodes []*metapb.NodeRecord
}

func (e *UnknownNode) Error() string {
	s := fmt.Sprintf("there is no node %s in this cluster; there are", e.ID)
	for _, n := range e.Nodes {
		if alive(n) {
			s += " " + base.NodeID(n.NodeId).String()
		}
	}
	return s
}

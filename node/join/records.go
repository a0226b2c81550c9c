package join

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// Change has a node's record changed in `sys`, by compare-and-set: decide is given the record as it is and returns what it is to be,
// or the same if it is so already. It is asked again when the record changed meanwhile, and when nobody knows whether it went through:
// it must find what it has done itself. It returns what decide returned last.
func Change(ctx context.Context, c sysrec.Cluster, id base.NodeID, decide func(*metapb.NodeRecord) (*metapb.NodeRecord, error)) (*metapb.NodeRecord, error) {
	for range base.RegistrarTries {
		kv, err := sysrec.Get(ctx, c, nodeKey(uint64(id)))
		if err != nil {
			return nil, err
		}
		if kv.ModRevision == 0 {
			return nil, &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no node %s", id), Instead: "see cairn node ls"}
		}
		before := &metapb.NodeRecord{}
		if err := sysrec.Decode(kv, before); err != nil {
			return nil, err
		}
		after, err := decide(before)
		if err != nil || proto.Equal(after, before) {
			return after, err
		}
		var t sysrec.Txn
		t.At(kv.Key, kv.ModRevision)
		t.PutMessage(kv.Key, after)
		done, err := t.Commit(ctx, c)
		var ambiguous *base.Ambiguous
		switch {
		case err == nil && done:
			return after, nil
		case err != nil && (!errors.As(err, &ambiguous) || ctx.Err() != nil):
			return nil, err
		}
	}
	return nil, &base.Throttled{What: "changes of the record of " + id.String(), RetryAfter: base.JoinRetryMax}
}

package apply

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// raise moves the range's revision up to one that was read elsewhere in the keyspace. A read over several ranges gives one
// revision for all of them; whoever reads at it again finds the same only if no later write can come to lie below it.
func (p *pass) raise(c *kvpb.RaiseRevision, nowMicros int64) (done, error) {
	ks := base.KeyspaceID(p.desc.KeyspaceId)
	switch {
	case ks.Single():
		return refused(fmt.Errorf("%s counts its revisions one by one", ks))
	case !desc.Contains(p.desc, ks, c.GetKey()):
		return refused(p.moved())
	case c.GetRevision() > nowMicros && c.GetRevision() > int64(p.counters.Revision):
		return refused(rpctypes.ErrGRPCFutureRev)
	}
	p.counters.Revision = max(p.counters.Revision, base.Revision(c.GetRevision()))
	return done{response: &kvpb.RaiseRevisionResponse{Revision: int64(p.counters.Revision)}}, nil
}

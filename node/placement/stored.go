package placement

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
	"github.com/cairndb/cairn/node/sysrec"
)

// stored is what people have asked for. It is not changed once it is there.
type stored struct {
	policies   []*metapb.PolicyRecord
	operations []*metapb.Operation
	policy     allocator.Policy // what the policies come to
}

// watchSys reads what people asked for when it may have changed: told by the local replica of sys, and once in a while on nodes that
// have none. Where such a node decides it does so as often as it plans: somebody waits for it.
func (p *Placement) watchSys() {
	for {
		if err := p.readSys(); err != nil && p.ctx.Err() == nil {
			p.cfg.Logger.Debug("policies and operations were not read", "error", err)
		}
		again := base.NodesInterval
		if _, told := p.cfg.Store.State(base.RangeSys); !told && len(p.all()) > 0 {
			again = base.DecideInterval
		}
		select {
		case <-p.ctx.Done():
			return
		case <-p.sys:
		case <-time.After(again):
		}
	}
}

func (p *Placement) readSys() error {
	ctx, cancel := context.WithTimeout(p.ctx, base.RequestTimeout)
	defer cancel()
	policies, err := list(ctx, p, sysrec.PolicySpan, func() *metapb.PolicyRecord { return &metapb.PolicyRecord{} })
	if err != nil {
		return err
	}
	operations, err := list(ctx, p, sysrec.OperationSpan, func() *metapb.Operation { return &metapb.Operation{} })
	if err != nil {
		return err
	}
	p.mu.Lock()
	before := p.stored
	now := &stored{policies: policies, operations: operations, policy: before.policy}
	samePolicies := before.policy.Moves > 0 && same(before.policies, policies)
	if !samePolicies {
		now.policy = placement.Policies(policies)
	}
	p.stored = now
	p.mu.Unlock()
	if !samePolicies {
		p.cfg.Store.LimitSnapshots(snapshotRate(policies))
	}
	if !samePolicies || !same(before.operations, operations) {
		for _, r := range p.all() {
			r.tell(func(r *runner) { r.asked = true })
		}
	}
	return nil
}

func list[M proto.Message](ctx context.Context, p *Placement, span func() (start, end []byte), empty func() M) (out []M, err error) {
	start, end := span()
	resp, err := p.cfg.Dispatch.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: start, RangeEnd: end, Serializable: true})
	if err != nil {
		return nil, err
	}
	for _, kv := range resp.Kvs {
		m := empty()
		if err := sysrec.Decode(kv, m); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func same[M proto.Message](a, b []M) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// snapshotRate is what the cluster's policy lets one node send; 0: what is usual.
func snapshotRate(policies []*metapb.PolicyRecord) uint64 {
	for _, r := range policies {
		if r.KeyspaceId == 0 {
			return r.GetCluster().GetSnapshotBytesPerSecond()
		}
	}
	return 0
}

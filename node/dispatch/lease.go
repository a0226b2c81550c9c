package dispatch

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/leaseway"
)

// What is done with clients' leases, in which ranges and in which order, node/leaseway decides; here is each of its steps carried out, on the
// goroutine of whoever wants it.

// leaseCarrier carries out the steps for one request.
type leaseCarrier struct {
	d   *Dispatcher
	ctx context.Context
	ks  base.KeyspaceID
}

var _ leaseway.Carrier = leaseCarrier{}

func (d *Dispatcher) leases(ctx context.Context, ks base.KeyspaceID) leaseway.Way {
	return leaseway.Way{Keyspace: ks, Carrier: leaseCarrier{d, ctx, ks}}
}

// Propose implements leaseway.Carrier.
func (c leaseCarrier) Propose(key []byte, cmd *kvpb.Command) (proto.Message, error) {
	return c.d.propose(c.ctx, c.ks, key, cmd)
}

// Ask implements leaseway.Carrier.
func (c leaseCarrier) Ask(key []byte, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	return c.d.askLease(c.ctx, c.ks, key, func(*metapb.RangeDescriptor) *rangepb.LeaseQuestion { return q })
}

// Revision implements leaseway.Carrier.
func (c leaseCarrier) Revision(key []byte) (int64, error) {
	resp, err := c.d.Range(c.ctx, c.ks, &pb.RangeRequest{Key: key, CountOnly: true})
	return resp.GetHeader().GetRevision(), err
}

// Descriptor implements leaseway.Carrier.
func (c leaseCarrier) Descriptor(key []byte) (*metapb.RangeDescriptor, error) {
	return c.d.Descriptor(c.ctx, c.ks, key)
}

// GrantLease makes a lease (leaseway.Way.Grant).
func (d *Dispatcher) GrantLease(ctx context.Context, ks base.KeyspaceID, id, ttl int64) (*kvpb.LeaseGrantResponse, error) {
	return d.leases(ctx, ks).Grant(id, ttl)
}

// RevokeLease ends a lease and deletes its keys (leaseway.Way.Revoke).
func (d *Dispatcher) RevokeLease(ctx context.Context, ks base.KeyspaceID, id int64) (revision int64, err error) {
	return d.leases(ctx, ks).Revoke(id)
}

// EndLease carries on with a lease that is ending (leaseway.Way.End).
func (d *Dispatcher) EndLease(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) (revision int64, err error) {
	return d.leases(ctx, ks).End(l)
}

// TimeToLive says how long a lease lasts (leaseway.Way.TimeToLive).
func (d *Dispatcher) TimeToLive(ctx context.Context, ks base.KeyspaceID, id int64) (*rangepb.LeaseAnswer, error) {
	return d.leases(ctx, ks).TimeToLive(id)
}

// LeaseKeys are the keys that a lease holds (leaseway.Way.Keys).
func (d *Dispatcher) LeaseKeys(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) ([][]byte, error) {
	return d.leases(ctx, ks).Keys(l)
}

// Leases are all leases of a keyspace (leaseway.Way.List).
func (d *Dispatcher) Leases(ctx context.Context, ks base.KeyspaceID) (ids []int64, revision int64, err error) {
	return d.leases(ctx, ks).List()
}

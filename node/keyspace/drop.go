package keyspace

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// Drop deletes a keyspace and all that is in it, and returns how many ranges that were. Requests to it that are under way end
// without an answer to whether they happened. Nodes that are away delete theirs when they are back.
func (m *Manager) Drop(ctx context.Context, name string) (ranges int, err error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	rec, err := m.condemn(ctx, name)
	if err != nil {
		return 0, err
	}
	ks := base.KeyspaceID(rec.KeyspaceId)
	gone := map[uint64]bool{}
	for {
		ds, err := m.indexed(ctx, ks)
		if err != nil {
			return len(gone), err
		}
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			m.end(ctx, d)
			gone[d.RangeId] = true
			if err := m.unpublish(ctx, d); err != nil {
				return len(gone), err
			}
		}
	}
	if !gone[rec.First.GetRangeId()] { // it was never published, or is gone since the last try
		m.end(ctx, rec.First)
	}
	if _, err := m.write(ctx, name, rec.revision, nil); err != nil {
		return len(gone), err
	}
	m.cfg.Logger.Info("keyspace dropped", "name", name, "id", ks, "ranges", len(gone))
	return len(gone), nil
}

// condemn marks the record: from then on the name leads nowhere.
func (m *Manager) condemn(ctx context.Context, name string) (*stored, error) {
	m.forget(name)
	for {
		rec, err := m.read(ctx, name)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			return nil, &base.NoKeyspace{Name: name}
		}
		if rec.State == metapb.KeyspaceState_KEYSPACE_STATE_DROPPING {
			return rec, nil
		}
		dropping := proto.CloneOf(rec.KeyspaceRecord)
		dropping.State = metapb.KeyspaceState_KEYSPACE_STATE_DROPPING
		if _, err := m.write(ctx, name, rec.revision, dropping); err != nil {
			return nil, err
		}
	}
}

// end tells all nodes of a range to end their replicas. Who does not hear it finds out later.
func (m *Manager) end(ctx context.Context, d *metapb.RangeDescriptor) {
	for _, err := range each(d, func(n base.NodeID) error { return m.cfg.Cluster.End(ctx, n, d) }) {
		m.cfg.Logger.Info("a node was not told that a range is dropped; it will find out", "range", desc.Format(d), "error", err)
	}
}

func (m *Manager) unpublish(ctx context.Context, d *metapb.RangeDescriptor) error {
	key := route.DescriptorKey(d)
	raw, err := proto.Marshal(&pb.DeleteRangeRequest{Key: key})
	if err != nil {
		return err
	}
	_, err = m.cfg.Cluster.Propose(ctx, base.KeyspaceMeta, key, &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: raw}})
	return err
}

// indexed lists what the index says of a keyspace's ranges, in order.
func (m *Manager) indexed(ctx context.Context, ks base.KeyspaceID) ([]*metapb.RangeDescriptor, error) {
	index, ok := route.IndexKeyspace(ks)
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is in no index", ks)
	}
	start, end := route.IndexSpan(ks, nil)
	resp, err := m.cfg.Cluster.Range(ctx, index, &pb.RangeRequest{Key: start, RangeEnd: end})
	if err != nil {
		return nil, err
	}
	var out []*metapb.RangeDescriptor
	for _, kv := range resp.Kvs {
		d, err := desc.Decode(kv.Value)
		if err != nil {
			return nil, &base.Corruption{Where: "index entry", Cause: err}
		}
		out = append(out, d)
	}
	return out, nil
}

// Ranges lists the ranges of a keyspace, or of all, as the index knows them.
func (m *Manager) Ranges(ctx context.Context, name string) ([]*clusterpb.IndexedRange, error) {
	type space struct {
		id   base.KeyspaceID
		name string
	}
	var spaces []space
	for ks := base.KeyspaceMeta; ks <= base.KeyspaceDefault; ks++ {
		if name == "" || name == ks.String() {
			spaces = append(spaces, space{ks, ks.String()})
		}
	}
	records, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if name == "" || name == rec.Name {
			spaces = append(spaces, space{base.KeyspaceID(rec.KeyspaceId), rec.Name})
		}
	}
	if len(spaces) == 0 {
		return nil, &base.NoKeyspace{Name: name}
	}
	var out []*clusterpb.IndexedRange
	for _, s := range spaces {
		ds, err := m.indexed(ctx, s.id)
		if err != nil {
			return nil, err
		}
		for _, d := range ds {
			out = append(out, &clusterpb.IndexedRange{Descriptor_: d, Keyspace: s.name})
		}
	}
	return out, nil
}

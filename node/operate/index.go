package operate

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// eachRange calls f with the descriptor of every range, as they are stored: that of root as it says itself, all others as the index
// lists them. It ends when f returns false. It is not a picture of one moment: a range that is cut or merged meanwhile may come twice,
// in two shapes.
func (m *Manager) eachRange(ctx context.Context, f func(*metapb.RangeDescriptor) bool) error {
	root, err := m.root(ctx)
	if err != nil {
		return fmt.Errorf("root cannot be asked: %w", err)
	}
	if !f(root) {
		return nil
	}
	for _, index := range []base.KeyspaceID{base.KeyspaceRoot, base.KeyspaceMeta} {
		req := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: base.CheckIndexPage}
		for {
			resp, err := m.page(ctx, index, req)
			if err != nil {
				return fmt.Errorf("the index in %s cannot be read: %w", index, err)
			}
			for _, kv := range resp.Kvs {
				d, err := desc.Decode(kv.Value)
				if err != nil {
					return &base.Corruption{Where: fmt.Sprintf("index entry %q", kv.Key), Cause: err}
				}
				if !f(d) {
					return nil
				}
			}
			if !resp.More || len(resp.Kvs) == 0 {
				break
			}
			req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
		}
	}
	return nil
}

// root and page wait for a range that does not answer as long as a client would: whoever reads the index says then what it waits for.
func (m *Manager) root(ctx context.Context) (*metapb.RangeDescriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	return m.cfg.Cluster.Descriptor(ctx, base.KeyspaceRoot, nil)
}

func (m *Manager) page(ctx context.Context, index base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	return m.cfg.Cluster.Range(ctx, index, req)
}

// FindRange finds a range by its id, and asks the range itself how it is now; nil: there is none.
func (m *Manager) FindRange(ctx context.Context, id base.RangeID) (*metapb.RangeDescriptor, error) {
	var found *metapb.RangeDescriptor
	err := m.eachRange(ctx, func(d *metapb.RangeDescriptor) bool {
		if base.RangeID(d.RangeId) == id {
			found = d
		}
		return found == nil
	})
	if err != nil || found == nil {
		return nil, err
	}
	now, err := m.cfg.Cluster.Descriptor(ctx, base.KeyspaceID(found.KeyspaceId), found.Start)
	if err != nil {
		return nil, err
	}
	if now.RangeId != found.RangeId { // it was merged since
		return nil, nil
	}
	return now, nil
}

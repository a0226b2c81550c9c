package operate

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// sizes are about how many bytes the ranges of these indexes have that these nodes lead, as they say themselves; what a node does not
// say in time is missing.
func (m *Manager) sizes(ctx context.Context, nodes []uint64, indexes ...base.KeyspaceID) map[uint64]int64 {
	out := make(map[uint64]int64)
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(base.StatusFanout)
	for _, id := range nodes {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, base.StatusTimeout)
			defer cancel()
			for _, index := range indexes {
				req := &rangepb.ReportRequest{KeyspaceId: uint64(index)}
				for more := true; more; {
					page, err := m.cfg.Report(ctx, base.NodeID(id), req)
					if err != nil {
						return nil
					}
					mu.Lock()
					for _, r := range page.Ranges {
						out[r.GetDescriptor_().GetRangeId()] = int64(r.Bytes)
					}
					mu.Unlock()
					req.After, req.Incarnation, more = page.Version, page.Incarnation, page.More
				}
			}
			return nil
		})
	}
	_ = g.Wait() // who says nothing is missing
	return out
}

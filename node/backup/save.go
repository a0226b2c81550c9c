package backup

import (
	"context"
	"io"
	"math"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/archive"
	"github.com/cairndb/cairn/node/store"
)

// Cluster is what is read for a snapshot.
type Cluster interface {
	// Fix is a keyspace's newest revision: nothing up to it is missing, and nothing comes any more.
	Fix(ctx context.Context, ks base.KeyspaceID) (int64, error)
	// Export reads a page behind a position, and says where the next one begins: nil after the last.
	Export(ctx context.Context, ks base.KeyspaceID, pin *store.Pin, req *archivepb.ExportRequest) (*archivepb.ExportResponse, error)
}

// Source is the cluster of which a snapshot is taken.
type Source struct {
	Cluster   Cluster
	Keyspaces func(context.Context) ([]*metapb.KeyspaceRecord, error) // that somebody made
	Pin       func() *store.Pin
	Beginning *archivepb.Beginning
}

// fixed is a keyspace at the revision at which it is saved.
type fixed struct {
	id       base.KeyspaceID
	name     string
	revision int64
}

// Save writes a snapshot. Memory is bounded by a few pages, whatever the size of the data.
func Save(ctx context.Context, src *Source, w io.Writer) error {
	spaces, err := fixAll(ctx, src)
	if err != nil {
		return err
	}
	pin := src.Pin()
	defer pin.Close()
	out, err := archive.NewWriter(w, src.Beginning)
	if err != nil {
		return err
	}
	for i := range spaces {
		if err := save(ctx, src.Cluster, &spaces[i], pin, out); err != nil {
			return err
		}
	}
	return out.Close()
}

// fixAll chooses the revision of every keyspace, at about the same time.
func fixAll(ctx context.Context, src *Source) ([]fixed, error) {
	spaces := []fixed{{id: base.KeyspaceDefault, name: base.KeyspaceDefault.String()}}
	made, err := src.Keyspaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range made {
		if r.State == metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE {
			spaces = append(spaces, fixed{id: base.KeyspaceID(r.KeyspaceId), name: r.Name})
		}
	}
	for i := range spaces {
		k := &spaces[i]
		err := within(ctx, func(ctx context.Context) (err error) {
			k.revision, err = src.Cluster.Fix(ctx, k.id)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return spaces, nil
}

// within gives a step the time of a request: the whole has as long as its asker waits.
func within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	return step(ctx)
}

// save writes one keyspace.
func save(ctx context.Context, c Cluster, k *fixed, pin *store.Pin, out *archive.Writer) error {
	err := out.Keyspace(&archivepb.Keyspace{Name: k.name, Single: k.id.Single(), Revision: k.revision, KeyspaceId: uint64(k.id)})
	if err != nil {
		return err
	}
	x := &saving{c: c, k: k, pin: pin, out: out, mark: -1}
	if err := x.leases(ctx); err != nil {
		return err
	}
	if err := x.versions(ctx); err != nil {
		return err
	}
	return out.EndKeyspace(base.Revision(x.mark))
}

// saving is a keyspace while it is written.
type saving struct {
	c    Cluster
	k    *fixed
	pin  *store.Pin
	out  *archive.Writer
	mark int64 // the highest compaction that was met
}

// page reads one. The position is set: a page that ends within a range goes on there.
func (x *saving) page(ctx context.Context, req *archivepb.ExportRequest) (page *archivepb.ExportResponse, err error) {
	req.Revision = x.k.revision
	if req.After == nil {
		req.After = &rangepb.VersionPosition{Revision: math.MaxInt64} // before the first version of the first key
	}
	err = within(ctx, func(ctx context.Context) (err error) {
		page, err = x.c.Export(ctx, x.k.id, x.pin, req)
		return err
	})
	x.mark = max(x.mark, page.GetCompacted())
	return page, err
}

// leases writes those of all ranges, each once: they come in the order of their ids, for that is where they live. One that was granted
// or revoked since the revision may be there or not: it holds no keys then, or is about to lose them (restore.go).
func (x *saving) leases(ctx context.Context) error {
	req := &archivepb.ExportRequest{Leases: true}
	for {
		page, err := x.page(ctx, req)
		if err != nil {
			return err
		}
		if n := len(page.Leases); n > 0 {
			if err := x.out.Leases(page.Leases); err != nil {
				return err
			}
			if req.FromLease = uint64(page.Leases[n-1].Id) + 1; req.FromLease == 0 {
				return nil
			}
		}
		if page.Reached == nil {
			return nil
		}
		req.After = page.Reached
	}
}

// versions writes those of all keys.
func (x *saving) versions(ctx context.Context) error {
	req := &archivepb.ExportRequest{}
	for {
		page, err := x.page(ctx, req)
		if err != nil {
			return err
		}
		if page.Count > 0 {
			if err := x.out.Versions(page.Versions, page.Count); err != nil {
				return err
			}
		}
		if page.Reached == nil {
			return nil
		}
		req.After = page.Reached
	}
}

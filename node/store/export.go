package store

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
)

// Pin is the store as it was at one instant: what is compacted and removed later is still there. It keeps disk space until it is closed.
type Pin struct{ snap engine.Snapshot }

// Pin pins the store as it is now.
func (s *Store) Pin() *Pin { return &Pin{s.eng.NewSnapshot()} }

// Close lets it go.
func (p *Pin) Close() { p.snap.Close() }

// Export reads a page of versions or leases of a range as they were, at the replica that was here. The error is a *base.RangeMoved if
// there was none.
func (p *Pin) Export(id base.RangeID, req *archivepb.ExportRequest, pace func(bytes int) error) (*archivepb.ExportResponse, error) {
	return export(p.snap, id, req, pace)
}

// Export is a Pin's, as the store is now. Whoever wants all that was committed comes after ReadIndex.
func (s *Store) Export(id base.RangeID, req *archivepb.ExportRequest, pace func(bytes int) error) (*archivepb.ExportResponse, error) {
	snap := s.eng.NewSnapshot()
	defer snap.Close()
	if !s.Has(id) { // it holds what was there; what is there now counts
		return nil, &base.RangeMoved{Range: id}
	}
	return export(snap, id, req, pace)
}

// export reads what a range's replica holds at the revision of the request, or says how the range is.
func export(snap engine.Snapshot, id base.RangeID, req *archivepb.ExportRequest, pace func(bytes int) error) (*archivepb.ExportResponse, error) {
	v, err := apply.ReadView(snap, id)
	if err != nil {
		return nil, err
	}
	resp := &archivepb.ExportResponse{
		Descriptor_: v.Descriptor, Revision: int64(v.Counters.Revision), Compacted: int64(v.Counters.Compacted),
	}
	switch {
	case req.Revision == 0 || req.Generation != v.Descriptor.Generation || req.Revision < resp.Compacted:
		return resp, nil
	case resp.Revision < req.Revision:
		return nil, status.Errorf(codes.OutOfRange, "the range is at revision %d here, and not yet at %d", resp.Revision, req.Revision)
	}
	if req.Leases {
		var next int64
		resp.Leases, next, err = eval.ReadLeases(snap, id, int64(req.FromLease), base.ArchiveLeases)
		resp.Exported, resp.End = true, next == 0
		if !resp.End {
			resp.Reached = req.After // in the same range
		}
		return resp, err
	}
	page := apply.Page{
		Revision: base.Revision(req.Revision), Compacted: v.Counters.Compacted, After: position(req.After), Bytes: base.ArchivePageBytes,
	}
	e, err := apply.ExportVersions(snap, v.Descriptor, page, pace)
	if err != nil {
		return nil, err
	}
	resp.Exported, resp.Versions, resp.Count, resp.End = true, e.Payload, uint64(e.Count), e.End
	if !e.End {
		resp.Reached = &rangepb.VersionPosition{Key: e.Reached.Key, Revision: int64(e.Reached.Revision)}
	}
	return resp, nil
}

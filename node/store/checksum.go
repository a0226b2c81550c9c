package store

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
)

// Checksum hashes a page of the versions that the local replica holds, as far as the replica is: whoever compares it with others
// comes after ReadIndex. Before each part is read, pace is told its size. With no revision it says only how the range is.
func (s *Store) Checksum(id base.RangeID, req *rangepb.ChecksumRequest, pace func(bytes int) error) (*rangepb.ChecksumResponse, error) {
	snap := s.eng.NewSnapshot()
	defer snap.Close()
	if !s.Has(id) { // it holds what was there; what is there now counts
		return nil, &base.RangeMoved{Range: id}
	}
	v, err := apply.ReadView(snap, id)
	if err != nil {
		return nil, err
	}
	resp := &rangepb.ChecksumResponse{
		Descriptor_: v.Descriptor, Revision: int64(v.Counters.Revision), Compacted: int64(v.Counters.Compacted),
	}
	switch {
	case req.Revision == 0 || req.Generation != v.Descriptor.Generation || req.Compacted < resp.Compacted:
		return resp, nil
	case req.Revision < req.Compacted:
		return nil, status.Errorf(codes.InvalidArgument, "revision %d lies below the compaction at %d", req.Revision, req.Compacted)
	case resp.Revision < req.Revision:
		return nil, status.Errorf(codes.OutOfRange, "the range is at revision %d here, and not yet at %d", resp.Revision, req.Revision)
	}
	page := apply.Page{
		Revision: base.Revision(req.Revision), Compacted: base.Revision(req.Compacted), State: req.State,
		After: position(req.After), Until: position(req.Until), Bytes: base.ChecksumPageBytes,
	}
	if req.Limit > 0 {
		page.Bytes = int(min(req.Limit, base.ChecksumPageBytes))
	}
	h, err := apply.HashVersions(snap, v.Descriptor, page, pace)
	if errors.Is(err, apply.ErrState) {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err != nil {
		return nil, err
	}
	resp.Hashed, resp.End, resp.State, resp.Sum = true, h.End, h.State, h.Sum
	resp.Versions, resp.Bytes = uint64(h.Versions), uint64(h.Bytes)
	if !h.End {
		resp.Reached = &rangepb.VersionPosition{Key: h.Reached.Key, Revision: int64(h.Reached.Revision)}
	}
	return resp, nil
}

func position(p *rangepb.VersionPosition) *apply.Position {
	if p == nil {
		return nil
	}
	return &apply.Position{Key: p.Key, Revision: base.Revision(p.Revision)}
}

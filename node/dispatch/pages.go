package dispatch

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/spread"
)

// A long read is made of pages. A page lies in one range and costs what it returns: nobody is asked about what lies behind it.
// The first page fixes the revision of all of them, over every range of the span (spread.go), and whoever asks for the next one
// names it; a range that has not come to it is raised first, so that nothing is written below it any more. Ranges that are cut
// or put together meanwhile change where pages end, and nothing else.

// Page reads the beginning of a span in the order of its keys, and says where the next page begins: nil if this is the last. The
// answer's header has the revision at which it was read if the request has none; its count is of the keys up to where it ended.
func (d *Dispatcher) Page(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, []byte, error) {
	fixed := int64(0)
	for {
		page := &onePage{d: d, ks: ks, req: req}
		err := page.read(ctx)
		var several *base.SeveralRanges
		switch {
		case errors.As(err, &several):
			continue // the range was cut since it was looked up, and is known now as it is
		case errors.Is(err, errNotFixed):
			if fixed, err = d.fix(ctx, ks, req); err != nil {
				return nil, nil, err
			}
			req = proto.CloneOf(req)
			req.Revision = fixed
			continue
		case err != nil:
			return nil, nil, err
		}
		if fixed > 0 {
			page.out.Header.Revision = fixed
		}
		return page.out, page.next(), nil
	}
}

// errNotFixed: the span lies in several ranges, and the request names no revision.
var errNotFixed = errors.New("no revision")

// onePage is a page while it is read.
type onePage struct {
	d   *Dispatcher
	ks  base.KeyspaceID
	req *pb.RangeRequest

	out   *pb.RangeResponse
	after []byte // where the part of the span that the range holds ends, if that is before the span's end
}

func (p *onePage) read(ctx context.Context) error {
	err := p.attempt(ctx)
	if p.req.Revision > 0 && p.ks.Splits() && spread.Beyond(err) {
		if err = p.d.raise(ctx, p.ks, p.req.Key, p.req.Revision); err == nil {
			err = p.attempt(ctx)
		}
	}
	return err
}

func (p *onePage) attempt(ctx context.Context) error {
	if p.req.Serializable {
		if id, ok := p.d.local(p.ks, p.req.Key); ok {
			if served, err := p.here(id); served {
				return err
			}
		}
	}
	return p.d.retry(ctx, p.ks, p.req.Key, func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		ask, err := p.within(desc)
		if err != nil {
			return err
		}
		if p.d.cfg.Store.Has(base.RangeID(desc.RangeId)) {
			node = p.d.cfg.Node
		}
		return p.d.readAt(ctx, desc, node, ask, p.out)
	})
}

// here reads from the local replica as it is; false if that has other bounds than were thought, or not the revision yet.
func (p *onePage) here(id base.RangeID) (bool, error) {
	desc := p.d.routes.find(p.ks, p.req.Key)
	if desc == nil || base.RangeID(desc.RangeId) != id {
		return false, nil
	}
	ask, err := p.within(desc)
	if err != nil {
		return true, err
	}
	err = p.d.cfg.Store.Read(id, ask, p.out)
	var moved *base.RangeMoved
	return !errors.As(err, &moved) && !spread.Beyond(err), err
}

// within asks for as much of the span as lies in a range.
func (p *onePage) within(desc *metapb.RangeDescriptor) (*rangepb.PageRequest, error) {
	part := proto.CloneOf(p.req)
	p.out, p.after = &pb.RangeResponse{}, nil
	if endsWithin(desc, part.RangeEnd) {
		if part.Revision <= 0 {
			return nil, errNotFixed
		}
		part.RangeEnd, p.after = desc.End, desc.End
	}
	return pageRequest(part, base.PageBytes)
}

// endsWithin says whether a range ends before the end of a request that begins in it.
func endsWithin(desc *metapb.RangeDescriptor, end []byte) bool {
	return len(desc.End) > 0 && len(end) > 0 && (spread.ToTheEnd(end) || bytes.Compare(desc.End, end) < 0)
}

func pageRequest(req *pb.RangeRequest, most uint64) (*rangepb.PageRequest, error) {
	raw, err := proto.Marshal(req)
	return &rangepb.PageRequest{Range: raw, MostBytes: most}, err
}

// next is the first key that the page did not look at.
func (p *onePage) next() []byte {
	if n := len(p.out.Kvs); p.out.More && n > 0 {
		return append(bytes.Clone(p.out.Kvs[n-1].Key), 0)
	}
	return p.after
}

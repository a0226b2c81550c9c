package dispatch

import (
	"context"
	"math"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/store"
)

// A snapshot of the clients' data reads every keyspace at one revision, range by range and page by page (kv/archive). A version up to
// that revision is what it is on every replica, and stays it, so pages may come from anywhere and ranges be cut, merged and moved
// meanwhile. Only a compaction takes versions away. What this node holds itself it reads of the store as it was when the snapshot was
// begun, which no compaction reaches; of others it reads what they have now.

func newExports() *checksums {
	return &checksums{
		slots: make(chan struct{}, base.ArchivePagesAtOnce),
		rate:  rate.NewLimiter(base.ArchiveBytesPerSecond, base.ArchivePageBytes),
	}
}

// Fix is the newest revision of a keyspace: nothing up to it is missing, and nothing comes any more.
func (d *Dispatcher) Fix(ctx context.Context, ks base.KeyspaceID) (int64, error) {
	if ks.Splits() {
		return d.fix(ctx, ks, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	}
	resp, err := d.export(ctx, ks, nil, nil, &archivepb.ExportRequest{})
	return resp.GetRevision(), err
}

// Export reads a page of a keyspace at a revision, of versions or of leases. The answer's position is the place where the next page
// begins: none after the last one. A compaction above the revision ends it with a *Compacted.
func (d *Dispatcher) Export(ctx context.Context, ks base.KeyspaceID, pin *store.Pin, req *archivepb.ExportRequest) (*archivepb.ExportResponse, error) {
	key := req.After.GetKey()
	for {
		resp, err := d.export(ctx, ks, key, pin, req)
		switch {
		case status.Code(err) == codes.OutOfRange && ks.Splits():
			if err = d.raise(ctx, ks, key, req.Revision); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case resp.Compacted > req.Revision:
			return nil, &Compacted{Revision: req.Revision, Mark: resp.Compacted}
		case !resp.Exported:
			d.routes.learn(resp.Descriptor_) // the range is another by now
			continue
		case resp.End:
			if next := resp.Descriptor_.GetEnd(); len(next) > 0 {
				resp.Reached = &rangepb.VersionPosition{Key: next, Revision: math.MaxInt64} // before the first version of that key
			}
		}
		return resp, nil
	}
}

// Compacted says that what a snapshot at a revision needs is being removed.
type Compacted struct{ Revision, Mark int64 }

func (e *Compacted) Error() string {
	return "the keyspace was compacted while the snapshot was taken: take it again, from a node that has a replica of it, or keep versions for longer"
}

// GRPCStatus is how it goes over the wire: whoever asked may ask again.
func (e *Compacted) GRPCStatus() *status.Status { return status.New(codes.Aborted, e.Error()) }

// export asks the range that holds key for a page: of the pinned store, if it held the range just so.
func (d *Dispatcher) export(ctx context.Context, ks base.KeyspaceID, key []byte, pin *store.Pin, req *archivepb.ExportRequest) (resp *archivepb.ExportResponse, err error) {
	err = d.retry(ctx, ks, key, func(r *metapb.RangeDescriptor, node base.NodeID) (err error) {
		id := base.RangeID(r.RangeId)
		req.Generation = r.Generation
		if pin != nil {
			if resp, err = pin.Export(id, req, d.exportPace(ctx)); err == nil && resp.Exported {
				return nil
			}
		}
		if d.cfg.Store.Has(id) {
			node = d.cfg.Node
		}
		if node == d.cfg.Node {
			resp, err = d.exportHere(ctx, id, d.deadline(ctx), req)
			return err
		}
		body, err := proto.Marshal(req)
		if err != nil {
			return err
		}
		resp = &archivepb.ExportResponse{}
		return d.retriable(ctx, id, d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_EXPORT, body, resp))
	})
	return resp, err
}

func (d *Dispatcher) exportRaw(id base.RangeID, until base.Instant, raw []byte) (proto.Message, error) {
	req := &archivepb.ExportRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error())
	}
	ctx, cancel := context.WithTimeout(d.ctx, until.Sub(d.cfg.Store.Now()))
	defer cancel()
	return d.exportHere(ctx, id, until, req)
}

func (d *Dispatcher) exportHere(ctx context.Context, id base.RangeID, until base.Instant, req *archivepb.ExportRequest) (*archivepb.ExportResponse, error) {
	if !d.cfg.Store.Has(id) {
		return nil, &base.RangeMoved{Range: id, Descriptors: d.routes.instead(id)}
	}
	if _, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.ReadIndex(id, until, done) }); err != nil {
		return nil, err
	}
	if req.Revision > 0 {
		select {
		case d.exports.slots <- struct{}{}:
			defer func() { <-d.exports.slots }()
		case <-ctx.Done():
			return nil, errExportBusy
		}
	}
	return d.cfg.Store.Export(id, req, d.exportPace(ctx))
}

var errExportBusy = &base.Throttled{What: "reading for snapshots", RetryAfter: base.ThrottleRetry}

// exportPace has reading wait for its turn.
func (d *Dispatcher) exportPace(ctx context.Context) func(bytes int) error {
	return func(bytes int) error {
		if d.exports.rate.WaitN(ctx, bytes) != nil {
			return errExportBusy // it would take longer than the asker waits
		}
		return nil
	}
}

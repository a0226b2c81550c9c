package store

import (
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/watch"
)

// Changes returns a page of what was written in a span, as far as the local replica is; it does not wait (see Await). The replica may
// be one that is frozen or lags behind: what it has applied up to a revision is all there ever will be up to it, in the span that it
// has. As in Read the engine is read without a lock, and read again if a compaction, a snapshot or another span came under it.
func (s *Store) Changes(id base.RangeID, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error) {
	for {
		r := s.replica(id)
		if r == nil {
			return nil, &base.RangeMoved{Range: id}
		}
		view := s.viewOf(id, r)
		if view == nil {
			return nil, &base.RangeMoved{Range: id}
		}
		resp, err := s.changesOf(view, req)
		if s.replica(id) != r {
			continue
		}
		now := s.viewOf(id, r)
		if now != nil && now.Counters.Compacted == view.Counters.Compacted && desc.SameSpan(now.Descriptor, view.Descriptor) {
			return resp, err
		}
	}
}

func (s *Store) changesOf(view *apply.View, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error) {
	d := view.Descriptor
	if !desc.Contains(d, base.KeyspaceID(req.KeyspaceId), req.Start) {
		return nil, &base.RangeMoved{Range: base.RangeID(d.RangeId), Descriptors: []*metapb.RangeDescriptor{d}}
	}
	resp := &rangepb.ChangesResponse{
		Start: req.Start, End: req.End, RangeId: d.RangeId, Generation: d.Generation,
		Revision: int64(view.Counters.Revision), Compacted: int64(view.Counters.Compacted), Next: req.From,
	}
	if len(d.End) > 0 && desc.EndAfter(req.End, d.End) {
		resp.End = d.End
	}
	if req.From == 0 { // where the range is
		resp.Next, resp.Compacted = resp.Revision+1, 0
		return resp, nil
	}
	most := uint64(base.WatchPullBytes)
	if req.MostBytes > 0 {
		most = min(most, req.MostBytes)
	}
	page, err := s.changes(view, eval.ChangesRequest{
		Start: resp.Start, End: resp.End, From: base.Revision(req.From), FromSub: req.FromSub,
		MostBytes: int(most), Cut: req.Cut, Prev: req.PrevKv,
	})
	switch {
	case err == rpctypes.ErrGRPCCompacted:
		return resp, nil // the mark says so
	case err != nil:
		return nil, s.refusal(view, err)
	}
	resp.Next, resp.NextSub = int64(page.Next), page.NextSub
	resp.Events = make([][]byte, len(page.Events))
	for i := range page.Events {
		resp.Events[i] = watch.EncodeEvent(&page.Events[i]).Whole()
	}
	return resp, nil
}

// polls are the requests that wait for a range to come to a revision, without a goroutine.
type polls struct {
	n  atomic.Int64 // of them all: while there are none, a pass costs one look at it
	mu sync.Mutex
	of map[base.RangeID]map[uint64]*rangepb.ChangesRequest // by the waiter
}

// ready says whether a request need not wait any longer at a replica: there is something, or the replica holds less than was asked for,
// which whoever asks should know soon.
func ready(v *apply.View, req *rangepb.ChangesRequest) bool {
	rev, d := int64(v.Counters.Revision), v.Descriptor
	if !desc.Contains(d, base.KeyspaceID(req.KeyspaceId), req.Start) || len(d.End) > 0 && desc.EndAfter(req.End, d.End) {
		return true
	}
	return rev >= req.From || req.Known != 0 && rev > req.Known
}

// Await tells done when a request for changes need not wait any longer at the local replica: there is what it waits for, or the
// replica has ended, or the time is over, which is an error.
func (s *Store) Await(id base.RangeID, req *rangepb.ChangesRequest, deadline base.Instant, done Done) {
	seq := s.nextID.Add(1)
	ended := func(m proto.Message, err error) {
		s.polls.drop(id, seq)
		done(m, err)
	}
	s.polls.add(id, seq, req)
	if !s.waiters.add(seq, waiter{done: ended, deadline: deadline}) {
		ended(nil, base.ErrStopped)
		return
	}
	s.polls.look(s, id) // it may have come before anybody knew that it is waited for
}

func (p *polls) add(id base.RangeID, seq uint64, req *rangepb.ChangesRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[base.RangeID]map[uint64]*rangepb.ChangesRequest{}
	}
	if p.of[id] == nil {
		p.of[id] = map[uint64]*rangepb.ChangesRequest{}
	}
	p.of[id][seq] = req
	p.n.Add(1)
}

func (p *polls) drop(id base.RangeID, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.of[id][seq]; !ok {
		return
	}
	if delete(p.of[id], seq); len(p.of[id]) == 0 {
		delete(p.of, id)
	}
	p.n.Add(-1)
}

// look ends those of a range that need not wait any longer.
func (p *polls) look(s *Store, id base.RangeID) {
	if p.n.Load() == 0 {
		return
	}
	v := s.View(id)
	p.mu.Lock()
	var ended []uint64
	for seq, req := range p.of[id] {
		if v == nil || ready(v, req) {
			ended = append(ended, seq)
		}
	}
	p.mu.Unlock()
	slices.Sort(ended) // in the order in which they came: the same at every run of the simulator
	for _, seq := range ended {
		s.waiters.resolve(seq, nil, nil)
	}
}

package spread

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// Kind is what is to be asked.
type Kind uint8

// The kinds.
const (
	Latch Kind = iota + 1 // have the leader of the range that holds Key latch it; retried as a read is. Answer.Grant
	Raise                 // have the Grant's range raised to Revision through its latch, by the node that granted it; never retried
	Free                  // let the Grant's latch go; not answered
	Lift                  // raise the range that holds Key to Revision, as any write
	Part                  // read Request where its Key is; an answer that several ranges hold it is a *base.SeveralRanges
	Pause                 // For
)

// Ask is one thing to be asked. Each but Free is answered once.
type Ask struct {
	Kind     Kind
	ID       raftgroup.LatchID
	Key      []byte
	Grant    *Grant
	Revision int64
	Request  *pb.RangeRequest
	For      time.Duration
}

// Grant is a range that is held, and the node whose replica leads it.
type Grant struct {
	Node       base.NodeID
	Descriptor *metapb.RangeDescriptor
	Revision   int64
}

// Answer answers an Ask.
type Answer struct {
	Grant    *Grant
	Response *pb.RangeResponse
	Err      error
}

// Find is what is known of the range that holds a key; nil if nothing is. It may be out of date.
type Find func(key []byte) *metapb.RangeDescriptor

// Read is one read over several ranges.
type Read struct {
	ks    base.KeyspaceID
	req   *pb.RangeRequest
	id    raftgroup.LatchID
	tries int
	phase phase

	open     int      // asks that are not answered
	failed   error    // the first failure of this try
	grants   []*Grant // held, or were
	asked    int      // latches of this try
	revision int64

	parts        parts
	lift, lifted bool // the next part's range is to be raised first, or was
	resp         *pb.RangeResponse
	err          error
}

type phase uint8

const (
	begin phase = iota
	latching
	raising
	pausing
	reading
	ended
)

// New makes a read of the keys that a request asks for. The id, unique among the reads of a node, names its latches.
func New(ks base.KeyspaceID, req *pb.RangeRequest, id raftgroup.LatchID) *Read {
	if len(req.RangeEnd) == 0 { // one key, at a node that had its range a moment ago: a span of one
		req = proto.CloneOf(req)
		req.RangeEnd = append(bytes.Clone(req.Key), 0)
	}
	r := &Read{ks: ks, req: req, id: id, phase: begin}
	if req.Revision > 0 {
		r.phase, r.revision = reading, req.Revision
		r.parts = newParts(req, req.Revision)
	}
	return r
}

// Result is how it ended; done is false as long as it has not.
func (r *Read) Result() (resp *pb.RangeResponse, err error, done bool) {
	return r.resp, r.err, r.phase == ended
}

// Next is what is to be asked now. There is nothing as long as anything is not answered.
func (r *Read) Next(find Find) []Ask {
	if r.open > 0 || r.phase == ended {
		return nil
	}
	var asks []Ask
	switch r.phase {
	case begin, pausing:
		r.phase, r.grants, r.asked, r.failed = latching, nil, 0, nil
		r.id.Try++
		asks = r.latch(find)
	case latching:
		if asks = r.latched(find); r.failed != nil {
			asks = r.again()
		}
	case raising:
		if r.failed != nil {
			asks = r.again()
			break
		}
		r.phase, r.grants, r.parts = reading, nil, newParts(r.req, r.revision)
		fallthrough
	case reading:
		asks = r.read(find)
	}
	for _, a := range asks {
		if a.Kind != Free {
			r.open++
		}
	}
	return asks
}

// Abandon ends a read that nobody waits for any more. The Asks are all Free.
func (r *Read) Abandon() []Ask {
	r.phase = ended
	return r.free()
}

func (r *Read) free() (asks []Ask) {
	for _, g := range r.grants {
		asks = append(asks, Ask{Kind: Free, ID: r.id, Grant: g})
	}
	r.grants = nil
	return asks
}

// Answer takes the answer to an ask.
func (r *Read) Answer(a Ask, x Answer) {
	r.open--
	if r.phase == ended {
		return
	}
	switch a.Kind {
	case Latch:
		if x.Err == nil {
			r.granted(x.Grant)
		}
		r.fail(x.Err)
	case Raise:
		r.fail(x.Err)
	case Lift:
		if r.lift, r.lifted = false, true; x.Err != nil {
			r.end(nil, x.Err)
		}
	case Part:
		r.took(&a, &x)
	}
}

func (r *Read) fail(err error) {
	if r.failed == nil {
		r.failed = err
	}
}

// granted keeps a grant. Two keys may have been taken for two ranges' that are one's.
func (r *Read) granted(g *Grant) {
	for _, o := range r.grants {
		if o.Node == g.Node && o.Descriptor.RangeId == g.Descriptor.RangeId {
			return
		}
	}
	r.grants = append(r.grants, g)
}

// latch asks for the ranges of the span as far as they are known: the last that is not known shows where the next begins.
func (r *Read) latch(find Find) []Ask {
	return r.latchSpan(r.req.Key, r.req.RangeEnd, find)
}

func (r *Read) latchSpan(key, end []byte, find Find) (asks []Ask) {
	for {
		asks = append(asks, Ask{Kind: Latch, ID: r.id, Key: key})
		if r.asked++; r.asked > base.SpreadRanges {
			r.fail(&base.Throttled{What: "a read over too many ranges, which can be read in parts", RetryAfter: base.RetryMax})
			r.end(nil, r.failed)
			return r.free()
		}
		d := find(key)
		if d == nil || reaches(d.End, end) {
			return asks
		}
		key = d.End
	}
}

// reaches says whether what ends at one key covers what ends at another. No key, or a zero byte, is the end of the keyspace.
func reaches(have, want []byte) bool {
	return len(have) == 0 || !toTheEnd(want) && bytes.Compare(have, want) >= 0
}

// toTheEnd says whether a request's end is the keyspace's.
func toTheEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// latched looks whether what was granted covers the span. It asks for what lacks, or goes on to raise.
func (r *Read) latched(find Find) []Ask {
	if r.failed != nil {
		return nil
	}
	slices.SortFunc(r.grants, func(a, b *Grant) int {
		return cmp.Or(bytes.Compare(a.Descriptor.Start, b.Descriptor.Start), cmp.Compare(a.Descriptor.RangeId, b.Descriptor.RangeId))
	})
	var asks []Ask
	key := r.req.Key
	for _, g := range r.grants {
		d := g.Descriptor
		if bytes.Compare(d.Start, key) > 0 && !desc.Contains(d, r.ks, key) {
			if asks = append(asks, r.latchSpan(key, d.Start, find)...); r.phase == ended {
				return asks
			}
			key = d.Start
		}
		if reaches(d.End, r.req.RangeEnd) {
			key = nil
			break
		}
		if bytes.Compare(d.End, key) > 0 {
			key = d.End
		}
	}
	if key != nil {
		asks = append(asks, r.latchSpan(key, r.req.RangeEnd, find)...)
	}
	if len(asks) > 0 {
		return asks
	}
	return r.raise()
}

// raise asks each range, through its latch, to be at the largest of the revisions.
func (r *Read) raise() (asks []Ask) {
	r.phase, r.revision = raising, 0
	for _, g := range r.grants {
		r.revision = max(r.revision, g.Revision)
	}
	for _, g := range r.grants {
		asks = append(asks, Ask{Kind: Raise, ID: r.id, Grant: g, Key: g.Descriptor.Start, Revision: r.revision})
	}
	return asks
}

// again lets go what is held and begins anew after a pause, or gives up.
func (r *Read) again() []Ask {
	asks := r.free()
	var ambiguous *base.Ambiguous
	switch r.tries++; {
	case r.tries < base.SpreadTries:
	case errors.As(r.failed, &ambiguous): // of a raise, which changes nothing that anybody reads
		r.end(nil, &base.Throttled{What: "a read over several ranges whose leaders change", RetryAfter: base.ThrottleRetry})
		return asks
	default:
		r.end(nil, r.failed)
		return asks
	}
	r.phase = pausing
	return append(asks, Ask{Kind: Pause, For: min(base.RetryMin<<min(r.tries-1, 8), base.RetryMax)})
}

func (r *Read) end(resp *pb.RangeResponse, err error) { r.phase, r.resp, r.err = ended, resp, err }

// Command is the one that a Raise or a Lift proposes, at a time of the wall clock. What another range came to is not in the
// future, whatever this node's clock says; a client's revision may be.
func (a *Ask) Command(nowMicros int64) *kvpb.Command {
	if a.Kind == Raise {
		nowMicros = max(nowMicros, a.Revision)
	}
	return &kvpb.Command{NowMicros: nowMicros, Body: &kvpb.Command_RaiseRevision{
		RaiseRevision: &kvpb.RaiseRevision{Key: slices.Clone(a.Key), Revision: a.Revision},
	}}
}

// is says whether an error is one of etcd's.
func is(err, etcd error) bool {
	return err != nil && rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(etcd)
}

// Beyond says whether a read was refused because the range has not come to its revision yet: in a sharded keyspace another has.
func Beyond(err error) bool { return is(err, rpctypes.ErrGRPCFutureRev) }

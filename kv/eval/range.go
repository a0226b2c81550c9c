package eval

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// Range answers a read. Serializable or not is the caller's business: it chose the reader. What the reader holds may be
// newer than env.Counters, but nothing that they allow to be read may have been removed from it (see CompactStep).
func Range(r engine.Reader, env *Env, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if !env.holds(req.GetKey(), req.GetRangeEnd()) {
		return nil, ErrOutOfSpan
	}
	v := newView(r, env)
	resp, err := v.readRange(req)
	if cerr := v.find.close(); err == nil && cerr != nil {
		return nil, cerr
	}
	return resp, err
}

// Page is Range of the beginning of a span, in the order of its keys, at a cost of what it returns: it ends with the pair by which
// it reaches the request's limit or mostBytes, and Count is of the live keys up to there. More says that it ended before the span
// did; the next page begins right behind the last key.
func Page(r engine.Reader, env *Env, req *pb.RangeRequest, mostBytes int) (*pb.RangeResponse, error) {
	if !env.holds(req.GetKey(), req.GetRangeEnd()) {
		return nil, ErrOutOfSpan
	}
	v := newView(r, env)
	v.pageBytes = max(1, mostBytes)
	resp, err := v.readRange(req)
	if cerr := v.find.close(); err == nil && cerr != nil {
		return nil, cerr
	}
	return resp, err
}

// RevisionOf answers a read with the range's revision alone, if the range holds the read's span.
func RevisionOf(env *Env, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if !env.holds(req.GetKey(), req.GetRangeEnd()) {
		return nil, ErrOutOfSpan
	}
	return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: int64(env.Counters.Revision)}}, nil
}

// PairBytes is what a pair counts in a page: its key and value, and what comes with them in memory.
func PairBytes(kv *mvccpb.KeyValue) int { return len(kv.Key) + len(kv.Value) + pairOverhead }

// pairOverhead is what a pair takes beyond its key and value: revisions, version, lease, tags, and the structure.
const pairOverhead = 112

// view is a keyspace as an operation sees it.
type view struct {
	find      *finder
	ks        base.KeyspaceID
	current   base.Revision // the newest that is to be seen
	compacted base.Revision
	pageBytes int // not 0: what is read is a page
}

func newView(r engine.Reader, env *Env) view {
	return view{
		find: &finder{r: r}, ks: env.Keyspace, current: env.Counters.Revision, compacted: env.Counters.Compacted,
	}
}

// scan walks the live keys of a request's range, whose end is not empty.
func (v *view) scan(key, end []byte, rev base.Revision) (*scanner, error) {
	return newScanner(v.find.r, keys.DataSpan(v.ks, key, upper(end)), rev)
}

// readRange checks the revision as a read alone does: none, and any below 1, is the newest.
func (v *view) readRange(req *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev := base.Revision(req.GetRevision())
	switch {
	case rev > v.current:
		return nil, rpctypes.ErrGRPCFutureRev
	case rev <= 0:
		rev = v.current
	case rev < v.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	}
	out := &struct {
		resp   pb.RangeResponse
		header pb.ResponseHeader
	}{}
	out.resp.Header = &out.header
	out.header.Revision = int64(v.current)
	var err error
	switch {
	case len(req.GetRangeEnd()) == 0:
		err = v.readPoint(req, rev, &out.resp)
	case v.pageBytes > 0:
		err = v.readPage(req, rev, &out.resp)
	default:
		err = v.readSpan(req, rev, &out.resp)
	}
	if err != nil {
		return nil, err
	}
	return &out.resp, nil
}

func (v *view) readPoint(req *pb.RangeRequest, rev base.Revision, resp *pb.RangeResponse) error {
	rec, ok, err := v.find.findLive(v.ks, req.GetKey(), rev)
	if err != nil || !ok {
		return err
	}
	resp.Count = 1
	if req.GetCountOnly() || !inBounds(req, &rec) {
		return nil
	}
	trim(req, &rec)
	rec.Value = bytes.Clone(rec.Value)
	resp.Kvs = []*mvccpb.KeyValue{rec.KeyValue(req.GetKey())}
	return nil
}

// readSpan walks the whole range, because the count is of all keys in it whatever is returned.
func (v *view) readSpan(req *pb.RangeRequest, rev base.Revision, resp *pb.RangeResponse) error {
	s, err := v.scan(req.GetKey(), req.GetRangeEnd(), rev)
	if err != nil {
		return err
	}
	most := wanted(req)
	var found kvList
	for err == nil && s.next() {
		resp.Count++
		if len(found.kvs) < most {
			err = found.add(s, req)
		}
	}
	if cerr := s.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	resp.Kvs = found.kvs
	Arrange(req, resp)
	return nil
}

// readPage walks no further than the page goes.
func (v *view) readPage(req *pb.RangeRequest, rev base.Revision, resp *pb.RangeResponse) error {
	s, err := v.scan(req.GetKey(), req.GetRangeEnd(), rev)
	if err != nil {
		return err
	}
	var found kvList
	size := 0
	for err == nil && !resp.More && s.next() {
		resp.Count++
		had := len(found.kvs)
		if err = found.add(s, req); err == nil && len(found.kvs) > had {
			size += PairBytes(found.kvs[had])
			resp.More = size >= v.pageBytes || int64(len(found.kvs)) == req.GetLimit()
		}
	}
	if cerr := s.close(); err == nil {
		err = cerr
	}
	resp.Kvs = found.kvs
	return err
}

// Arrange orders and cuts what a request has gathered, and takes away what it is not to show.
func Arrange(req *pb.RangeRequest, resp *pb.RangeResponse) {
	order(req, resp.Kvs)
	if limit := req.GetLimit(); limit > 0 && int64(len(resp.Kvs)) > limit {
		resp.Kvs, resp.More = resp.Kvs[:limit], true
	}
	if req.GetKeysOnly() && req.GetSortTarget() == pb.RangeRequest_VALUE {
		for _, kv := range resp.Kvs {
			kv.Value = nil
		}
	}
}

// InKeyOrder says whether the first keys of a request's span are the first of its answer: then no more than its limit need be
// gathered.
func InKeyOrder(req *pb.RangeRequest) bool {
	return req.GetCountOnly() || req.GetSortTarget() == pb.RangeRequest_KEY && req.GetSortOrder() != pb.RangeRequest_DESCEND
}

// wanted is how many keys are gathered before the list is ordered and cut: one above the limit, to know whether there
// are more; all, if which are the first is only known at the end.
func wanted(req *pb.RangeRequest) int {
	limit := req.GetLimit()
	ordered := req.GetSortOrder() != pb.RangeRequest_NONE &&
		!(req.GetSortTarget() == pb.RangeRequest_KEY && req.GetSortOrder() == pb.RangeRequest_ASCEND)
	switch {
	case req.GetCountOnly():
		return 0
	case limit <= 0 || limit == math.MaxInt64 || ordered:
		return math.MaxInt
	case filters(req) && req.GetSortTarget() != pb.RangeRequest_KEY:
		return math.MaxInt // without filters etcd cuts first and then sorts, see the package's comment
	}
	return int(limit) + 1
}

func filters(req *pb.RangeRequest) bool {
	return req.GetMinModRevision() != 0 || req.GetMaxModRevision() != 0 ||
		req.GetMinCreateRevision() != 0 || req.GetMaxCreateRevision() != 0
}

// inBounds applies the request's filters. They do not lessen the count.
func inBounds(req *pb.RangeRequest, r *Record) bool {
	within := func(rev base.Revision, least, most int64) bool {
		return (least == 0 || int64(rev) >= least) && (most == 0 || int64(rev) <= most)
	}
	return within(r.Mod, req.GetMinModRevision(), req.GetMaxModRevision()) &&
		within(r.Create, req.GetMinCreateRevision(), req.GetMaxCreateRevision())
}

// trim takes away what a request for keys alone does not show. An order by value needs the values first.
func trim(req *pb.RangeRequest, r *Record) {
	if !req.GetKeysOnly() {
		return
	}
	r.Value = nil
	if req.GetSortTarget() != pb.RangeRequest_VALUE {
		r.Lease = 0
	}
}

// order sorts what a request gathered. Equals stay in the order of their keys.
func order(req *pb.RangeRequest, kvs []*mvccpb.KeyValue) {
	target, direction := req.GetSortTarget(), 1
	switch req.GetSortOrder() {
	case pb.RangeRequest_NONE, pb.RangeRequest_ASCEND:
		if target == pb.RangeRequest_KEY {
			return // the scan's own order
		}
	case pb.RangeRequest_DESCEND:
		direction = -1
	}
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int { return direction * compareBy(target, a, b) })
}

func compareBy(target pb.RangeRequest_SortTarget, a, b *mvccpb.KeyValue) int {
	switch target {
	case pb.RangeRequest_VERSION:
		return cmp.Compare(a.Version, b.Version)
	case pb.RangeRequest_CREATE:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case pb.RangeRequest_MOD:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case pb.RangeRequest_VALUE:
		return bytes.Compare(a.Value, b.Value)
	}
	return bytes.Compare(a.Key, b.Key)
}

// kvList gathers copies of what a scan finds, many to an allocation.
type kvList struct {
	kvs  []*mvccpb.KeyValue
	slab []mvccpb.KeyValue
	mem  []byte
}

const (
	slabFirst, slabMost = 4, 128         // structures
	memFirst, memMost   = 256, 64 * 1024 // bytes
)

// add appends the version on which a scan stands, if the request's filters let it pass.
func (l *kvList) add(s *scanner, req *pb.RangeRequest) error {
	rec, err := s.record()
	if err != nil || !inBounds(req, &rec) {
		return err
	}
	if req.GetSortTarget() != pb.RangeRequest_VALUE {
		trim(req, &rec)
	}
	return l.append(s, &rec)
}

func (l *kvList) append(s *scanner, rec *Record) error {
	// The user's key is at most as long as the engine key.
	if need := len(s.key) + len(rec.Value); cap(l.mem)-len(l.mem) < need {
		l.mem = make([]byte, 0, max(need, min(max(memFirst, 2*cap(l.mem)), memMost)))
	}
	n := len(l.mem)
	key, err := s.userKey(l.mem[n:n:cap(l.mem)])
	if err != nil {
		return err
	}
	if rec.Value != nil {
		value := append(key[len(key):], rec.Value...)
		rec.Value = value[:len(value):len(value)]
	}
	l.mem = l.mem[:n+len(key)+len(rec.Value)]
	if len(l.slab) == 0 {
		l.slab = make([]mvccpb.KeyValue, min(max(slabFirst, len(l.kvs)), slabMost))
	}
	kv := &l.slab[0]
	l.slab = l.slab[1:]
	rec.fill(kv, key[:len(key):len(key)])
	l.kvs = append(l.kvs, kv)
	return nil
}

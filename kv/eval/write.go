package eval

import (
	"bytes"
	"encoding/binary"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/keys"
)

// write is one command that writes. Its view is that before the command until something is written, and then that
// under its own writes.
type write struct {
	view
	p    *Pass
	env  *Env
	next base.Revision // of everything that the command writes
	subs uint32        // how many changes were made

	along *ascent // where many keys that a lease holds are deleted: finds them
}

func (p *Pass) begin(env *Env) *write {
	return &write{
		view: view{find: &p.find, ks: env.Keyspace, current: env.Counters.Revision, compacted: env.Counters.Compacted},
		p:    p, env: env, next: env.NextRevision(),
	}
}

// end makes the command's revision the range's, if it wrote anything.
func (w *write) end() { w.env.Counters.Revision = w.current }

// set writes one version. prefix is that of the engine key.
func (w *write) set(prefix []byte, rec *Record) error {
	rec.Mod, rec.Sub = w.next, w.subs
	p := w.p
	p.key = binary.BigEndian.AppendUint64(append(p.key[:0], prefix...), ^uint64(w.next))
	p.val = AppendRecord(p.val[:0], rec)
	if err := p.b.Set(p.key, p.val); err != nil {
		return err
	}
	w.subs++
	w.current = w.next
	switch {
	case rec.Tombstone && mutant.Is(mutant.DeletedKeepsVersion):
	case w.along != nil:
		p.heads.drop(prefix)
	case rec.Tombstone:
		p.heads.put(prefix, head{})
	default:
		p.heads.put(prefix, head{create: rec.Create, version: rec.Version, lease: rec.Lease})
	}
	return w.find.wrote(prefix)
}

// event tells what was written. prev, if it is wanted, is what was there before, with a value that is a copy.
func (w *write) event(key []byte, rec, prev *Record, existed bool) {
	if w.env.Events == nil {
		return
	}
	ev := Event{Key: key, Record: *rec}
	if existed && w.env.WantPrev {
		before := *prev
		ev.Prev = &before
	}
	*w.env.Events = append(*w.env.Events, ev)
}

// wantsPrev says whether the events want the version before.
func (w *write) wantsPrev() bool { return w.env.Events != nil && w.env.WantPrev }

// lastOfEach leaves, of several events of one key in one revision, the last, for that is what is stored, with what was before them; as
// in etcd, nothing was before a put that begins a key's life.
func lastOfEach(events []Event) []Event {
	if len(events) < 2 {
		return events
	}
	at := make(map[string]int, len(events))
	again := false
	for i := range events {
		ev := &events[i]
		if before, ok := at[string(ev.Key)]; ok {
			if ev.Prev = nil; ev.Record.Version != 1 {
				ev.Prev = events[before].Prev
			}
			events[before].Record.Mod, again = 0, true
		}
		at[string(ev.Key)] = i
	}
	if !again {
		return events
	}
	return slices.DeleteFunc(events, func(ev Event) bool { return ev.Record.Mod == 0 })
}

// put is refused only where its value or lease is to be kept and there is none. The lease was checked.
func (w *write) put(req *pb.PutRequest, respond bool) (*pb.PutResponse, error) {
	prev, existed, err := w.previous(req, respond)
	if err != nil {
		return nil, err
	}
	if needsPrevious(req) && !existed {
		return nil, rpctypes.ErrGRPCKeyNotFound
	}
	rec := Record{Create: w.next, Version: prev.Version + 1, Lease: req.GetLease(), Value: req.GetValue()}
	if existed {
		rec.Create = prev.Create
	}
	if req.GetIgnoreValue() {
		rec.Value = bytes.Clone(prev.Value)
	}
	if req.GetIgnoreLease() {
		rec.Lease = prev.Lease
	}
	if existed && (respond && req.GetPrevKv() || w.wantsPrev()) {
		prev.Value = bytes.Clone(prev.Value)
	}
	var prevKV *mvccpb.KeyValue
	if respond && req.GetPrevKv() && existed {
		prevKV = prev.KeyValue(req.GetKey())
	}
	n := len(w.find.key) - keys.RevisionLen // the finder has just encoded the key
	if err := w.set(w.find.key[:n], &rec); err != nil {
		return nil, err
	}
	if err := w.rehold(req.GetKey(), prev.Lease, rec.Lease); err != nil {
		return nil, err
	}
	w.event(req.GetKey(), &rec, &prev, existed)
	if !respond {
		return nil, nil
	}
	out := &struct {
		resp   pb.PutResponse
		header pb.ResponseHeader
	}{}
	out.header.Revision = int64(w.current)
	out.resp.Header, out.resp.PrevKv = &out.header, prevKV
	return &out.resp, nil
}

// previous is the version that a put replaces, without its value where nobody asks for it. The finder's key is then
// that of the put.
func (w *write) previous(req *pb.PutRequest, respond bool) (Record, bool, error) {
	f := w.find
	f.key = keys.Data(f.key[:0], w.ks, req.GetKey(), newest)
	prefix := f.key[:len(f.key)-keys.RevisionLen]
	if !req.GetIgnoreValue() && !(respond && req.GetPrevKv()) && !w.wantsPrev() {
		if h, ok := w.p.heads.get(prefix); ok || mutant.Is(mutant.UnreplicatedState) {
			return Record{Create: h.create, Version: h.version, Lease: h.lease}, h.version != 0, nil
		}
	}
	rec, existed, err := f.findLive(w.ks, req.GetKey(), newest)
	switch {
	case err != nil:
		return Record{}, false, err
	case !existed:
		rec = Record{} // a tombstone's numbers are not the next life's
	}
	return rec, existed, nil
}

// deleteRange writes a tombstone for each key that exists.
func (w *write) deleteRange(req *pb.DeleteRangeRequest, respond bool) (*pb.DeleteRangeResponse, error) {
	resp := &pb.DeleteRangeResponse{}
	previous := respond && req.GetPrevKv()
	var err error
	if len(req.GetRangeEnd()) == 0 {
		err = w.deletePoint(req.GetKey(), previous, resp)
	} else {
		err = w.deleteSpan(req, previous, resp)
	}
	if err != nil || !respond {
		return nil, err
	}
	resp.Header = &pb.ResponseHeader{Revision: int64(w.current)}
	return resp, nil
}

func (w *write) deletePoint(key []byte, previous bool, resp *pb.DeleteRangeResponse) error {
	prev, existed, err := w.find.findLive(w.ks, key, newest)
	if err != nil || !existed {
		return err
	}
	if previous || w.wantsPrev() {
		prev.Value = bytes.Clone(prev.Value)
	}
	if previous {
		resp.PrevKvs = []*mvccpb.KeyValue{prev.KeyValue(key)}
	}
	resp.Deleted = 1
	return w.bury(key, w.find.key[:len(w.find.key)-keys.RevisionLen], &prev)
}

// bury writes the tombstone of a key that exists, and of whose newest version at least the lease is known: with its value, where events
// want it. prefix is that of its engine key.
func (w *write) bury(key, prefix []byte, prev *Record) error {
	tombstone := Record{Tombstone: true}
	if err := w.set(prefix, &tombstone); err != nil {
		return err
	}
	w.event(key, &tombstone, prev, true)
	if w.along != nil {
		return nil // all of the lease's go from the index
	}
	return w.rehold(key, prev.Lease, 0)
}

// deleteSpan writes below its own scan, which does not see it.
func (w *write) deleteSpan(req *pb.DeleteRangeRequest, previous bool, resp *pb.DeleteRangeResponse) error {
	s, err := w.scan(req.GetKey(), req.GetRangeEnd(), newest)
	if err != nil {
		return err
	}
	var found kvList
	for err == nil && s.next() {
		if mutant.Is(mutant.DeleteRangeMissesLast) && resp.Deleted > 0 {
			break
		}
		err = w.deleteScanned(s, previous, &found)
		resp.Deleted++
	}
	if cerr := s.close(); err == nil {
		err = cerr
	}
	resp.PrevKvs = found.kvs
	return err
}

func (w *write) deleteScanned(s *scanner, previous bool, found *kvList) error {
	var prev Record
	var err error
	leased := hasLease(s.value)
	if previous || leased || w.wantsPrev() {
		if prev, err = s.record(); err != nil {
			return err
		}
	}
	if previous {
		if err := found.append(s, &prev); err != nil { // prev.Value is then a copy
			return err
		}
	} else if w.wantsPrev() {
		prev.Value = bytes.Clone(prev.Value)
	}
	var key []byte
	if leased || w.env.Events != nil {
		if key, err = s.userKey(nil); err != nil {
			return err
		}
	}
	return w.bury(key, s.key[:len(s.key)-keys.RevisionLen], &prev)
}

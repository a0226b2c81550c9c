package checkers

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/linearizability"
)

// Watches holds every watch of a history against what was written (I9):
//
//   - ordered: revisions only grow, within a response and from one to the next;
//   - unique: no change comes twice, and none from before where the watch began;
//   - atomic: what was written in one revision comes in one response, or in fragments that say so;
//   - reliable: up to where a watch has come, nothing of its span is missing;
//   - resumable: from a revision on it is all that was written from there on, whoever served it before; from now on is from behind the
//     revision that it is told as it is created, which, as in etcd, is that of the replica that serves it;
//   - bookmarkable: what a notification names was all sent before it, and nothing of it comes after;
//   - the version before is the one that was before, where it was asked for; filters leave out what they name and nothing else.
//
// And what it gets was written, by somebody who was not told otherwise; that history is gone it is told only where it was compacted.
//
// What was written is known from answers and from what any watch got: a write of which nothing is known counts once it was seen. Time and
// memory grow with the events that were taken.
func Watches(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "watches", Check: func(h *linearizability.History) []linearizability.Violation {
		w := &watches{
			complaints: complaints{checker: "watches"}, prefix: prefix, versions: map[string][]seenVersion{}, values: map[keyValue]int64{},
			maybe: map[keyValue]*linearizability.Op{}, failed: map[keyValue]*linearizability.Op{},
		}
		w.gather(h)
		for _, f := range w.follows {
			w.follow(f)
		}
		return w.found
	}}
}

type keyValue struct{ key, value string }

// watches is a history taken apart.
type watches struct {
	complaints
	prefix   string
	follows  []*followed
	keys     []string                 // of versions, in order
	versions map[string][]seenVersion // of each key, by revision
	values   map[keyValue]int64       // at which revision each was put: each is put once
	maybe    map[keyValue]*linearizability.Op
	failed   map[keyValue]*linearizability.Op
	erases   []write // deletions of which nothing is known, or not what they deleted
	compacts []*linearizability.Op
}

// seenVersion is one change of a key. op is who says so: its writer, or a watch.
type seenVersion struct {
	rev     int64
	value   string
	deleted bool
	op      *linearizability.Op
}

// followed is one watch and what it got.
type followed struct {
	op   *linearizability.Op
	req  *followpb.FollowRequest
	resp *followpb.FollowResponse
	msgs []linearizability.FollowMessage
}

// gather finds out what was written: first from answers, then from what watches got.
func (w *watches) gather(h *linearizability.History) {
	seen := map[string][]seenVersion{}
	for _, op := range h.Ops {
		switch req := op.Request.(type) {
		case *followpb.FollowRequest:
			w.followed(op, req)
		case *pb.CompactionRequest:
			w.compacts = append(w.compacts, op)
		default:
			w.written(op, seen)
		}
	}
	for _, f := range w.follows {
		for _, m := range f.msgs {
			for i := range m.Events {
				w.sighted(f, &m.Events[i], seen)
			}
		}
	}
	for key, all := range seen {
		// Of one revision what a writer says comes first.
		slices.SortStableFunc(all, func(a, b seenVersion) int { return cmp.Compare(a.rev, b.rev) })
		w.versions[key] = slices.CompactFunc(all, func(a, b seenVersion) bool { return a.rev == b.rev })
		w.keys = append(w.keys, key)
	}
	slices.Sort(w.keys)
	w.explained()
}

func (w *watches) followed(op *linearizability.Op, req *followpb.FollowRequest) {
	resp, ok := op.Response.(*followpb.FollowResponse)
	if op.Outcome != linearizability.OK || !ok {
		return
	}
	msgs, err := linearizability.FollowMessages(resp)
	if err != nil {
		w.add(err.Error(), op)
		return
	}
	w.follows = append(w.follows, &followed{op: op, req: req, resp: resp, msgs: msgs})
}

// written takes in what one operation wrote, or may have written.
func (w *watches) written(op *linearizability.Op, into map[string][]seenVersion) {
	if op.Outcome != linearizability.OK {
		values := w.maybe
		if op.Outcome == linearizability.Failed {
			values = w.failed
		}
		for _, x := range wouldWrite(op.Request) {
			x.op = op
			if x.deleted && op.Outcome == linearizability.Unknown {
				w.erases = append(w.erases, x)
			} else if !x.deleted {
				values[keyValue{x.key, x.value}] = op
			}
		}
		return
	}
	for _, x := range certainWrites(op) {
		switch {
		case !strings.HasPrefix(x.key, w.prefix):
		case x.end != "":
			w.erases = append(w.erases, x)
		default:
			into[x.key] = append(into[x.key], seenVersion{x.rev, x.value, x.deleted, op})
			if !x.deleted {
				w.values[keyValue{x.key, x.value}] = x.rev
			}
		}
	}
}

// certainWrites lists what an answered operation wrote. A deletion that does not say which keys it deleted is one of a span.
func certainWrites(op *linearizability.Op) (out []write) {
	one := func(req, resp proto.Message) {
		switch r := req.(type) {
		case *pb.PutRequest:
			out = append(out, write{key: string(r.Key), value: string(r.Value), rev: revisionOf(op), op: op})
		case *pb.DeleteRangeRequest:
			d := resp.(*pb.DeleteRangeResponse)
			for _, kv := range d.GetPrevKvs() {
				out = append(out, write{key: string(kv.Key), deleted: true, rev: revisionOf(op), op: op})
			}
			if d.GetDeleted() > int64(len(d.GetPrevKvs())) {
				out = append(out, write{key: string(r.Key), end: spanEnd(r.Key, r.RangeEnd), deleted: true, rev: revisionOf(op), op: op})
			}
		}
	}
	t, ok := op.Request.(*pb.TxnRequest)
	if !ok {
		one(op.Request, op.Response)
		return out
	}
	resp := op.Response.(*pb.TxnResponse)
	branch := t.Failure
	if resp.Succeeded {
		branch = t.Success
	}
	for i, o := range branch {
		switch {
		case i >= len(resp.Responses):
		case o.GetRequestPut() != nil:
			one(o.GetRequestPut(), nil)
		case o.GetRequestDeleteRange() != nil:
			one(o.GetRequestDeleteRange(), resp.Responses[i].GetResponseDeleteRange())
		}
	}
	return out
}

// spanEnd is the first key behind a request's: of one key it is that with a zero byte.
func spanEnd(key, end []byte) string {
	switch {
	case len(end) == 0:
		return string(key) + "\x00"
	case bytes.Equal(end, []byte{0}):
		return "" // no key is behind it
	}
	return string(end)
}

// sighted takes in one event of a watch, and the version before that came with it.
func (w *watches) sighted(f *followed, e *linearizability.FollowEvent, into map[string][]seenVersion) {
	if !strings.HasPrefix(e.Key, w.prefix) {
		return
	}
	into[e.Key] = append(into[e.Key], seenVersion{e.Revision, e.Value, e.Deleted, f.op})
	if e.Prev != nil {
		into[e.Key] = append(into[e.Key], seenVersion{e.Prev.Revision, e.Prev.Value, false, f.op})
	}
}

// explained asks of everything that only watches say that it was written whether somebody may have written it.
func (w *watches) explained() {
	for _, key := range w.keys {
		for _, v := range w.versions[key] {
			if _, watched := v.op.Request.(*followpb.FollowRequest); !watched {
				continue
			}
			name := keyValue{key, v.value}
			rev, written := w.values[name]
			switch {
			case v.deleted:
				if !w.mayErase(key, v.rev, v.op) {
					w.add(fmt.Sprintf("a watch got the deletion of %q at revision %d, and nobody deleted it", key, v.rev), v.op)
				}
				continue
			case written:
				w.add(fmt.Sprintf("a watch got %q of %q as of revision %d, and it was put at %d", v.value, key, v.rev, rev), v.op)
			case w.maybe[name] != nil && w.maybe[name].Invoked < ended(v.op):
				w.values[name] = v.rev
			case w.failed[name] != nil:
				w.add(fmt.Sprintf("a watch got %q of %q at revision %d, and its write had failed for certain", v.value, key, v.rev), w.failed[name], v.op)
			default:
				w.add(fmt.Sprintf("a watch got %q of %q at revision %d, and nobody wrote it", v.value, key, v.rev), v.op)
			}
		}
	}
}

// ended is an operation's place of return; one that never returned is open for ever.
func ended(op *linearizability.Op) int64 {
	if op.Returned == 0 {
		return 1 << 62
	}
	return op.Returned
}

// mayErase says whether a key may have been deleted at a revision by what does not say which keys it deleted. rev 0: at any.
func (w *watches) mayErase(key string, rev int64, seen *linearizability.Op) bool {
	return slices.ContainsFunc(w.erases, func(x write) bool {
		end := x.end
		if x.rev == 0 { // as the request has it
			end = spanEnd([]byte(x.key), []byte(x.end))
		}
		return key >= x.key && (end == "" || key < end) && x.op.Invoked < ended(seen) && (x.rev == 0 || rev == 0 || x.rev == rev)
	})
}

// compacted says whether somebody asked, before an operation returned, for what is below a revision to be forgotten; or for more. In a
// keyspace of many ranges one that was refused may have had effect in some of them.
func (w *watches) compacted(rev int64, before *linearizability.Op) bool {
	return slices.ContainsFunc(w.compacts, func(c *linearizability.Op) bool {
		return c.Request.(*pb.CompactionRequest).Revision >= rev && c.Invoked < ended(before)
	})
}

// version finds a key's change at a revision, by its place.
func (w *watches) version(key string, rev int64) (int, bool) {
	vs := w.versions[key]
	i := sort.Search(len(vs), func(i int) bool { return vs[i].rev >= rev })
	return i, i < len(vs) && vs[i].rev == rev
}

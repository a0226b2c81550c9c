package checkers

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Fenced is the value that the holder of a token writes into a register, its n-th there: as bytes it is larger than all of smaller
// tokens.
func Fenced(token int64, client, n int) []byte {
	return fmt.Appendf(nil, "%020d-%06d-c%d", token, n, client)
}

// tokenOf is the token in a register's value.
func tokenOf(value []byte) (int64, bool) {
	token, _, ok := bytes.Cut(value, []byte("-"))
	n, err := strconv.ParseInt(string(token), 10, 64)
	return n, ok && err == nil
}

// Fencing holds locks, keys below a prefix in a folder each, whose owner is who came first, and registers that are written with the
// owners' tokens, against I11: who comes first in a folder only changes to who came later; one token is one owner's; and no register
// takes a smaller token after a larger.
func Fencing(locks, registers string) linearizability.Checker {
	return linearizability.Checker{Name: "fencing", Check: func(h *linearizability.History) []linearizability.Violation {
		f := &fencing{complaints: complaints{checker: "fencing"}, firsts: map[string]*growth[string]{}, owners: map[int64]holder{}, registers: map[string][]write{}}
		for _, op := range answered(h) {
			for _, dir := range firstsIn(op, locks) {
				f.first(dir)
			}
		}
		for _, op := range h.Ops {
			if op.Outcome == linearizability.OK {
				f.wrote(op, registers)
			}
		}
		f.ordered()
		return f.found
	}}
}

type fencing struct {
	complaints
	firsts    map[string]*growth[string] // by folder: the create revision of who came first, and its key
	owners    map[int64]holder
	registers map[string][]write
}

type holder struct {
	key string
	op  *linearizability.Op
}

// sawFirst is an answer that says who came first in a folder.
type sawFirst struct {
	dir string
	kv  *mvccpb.KeyValue
	op  *linearizability.Op
}

// firstsIn finds the answers in one operation that say who came first in a folder: those to reads of all of it, as of now.
func firstsIn(op *linearizability.Op, prefix string) (out []sawFirst) {
	for _, r := range readsIn(op) {
		if !strings.HasPrefix(string(r.req.Key), prefix) || !strings.HasSuffix(string(r.req.Key), "/") || len(r.req.RangeEnd) == 0 || r.req.Serializable || r.req.Revision > 0 {
			continue
		}
		if len(r.resp.GetKvs()) > 0 {
			out = append(out, sawFirst{string(r.req.Key), slices.MinFunc(r.resp.Kvs, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }), op})
		}
	}
	return out
}

// readIn is one read, alone or of a transaction.
type readIn struct {
	req  *pb.RangeRequest
	resp *pb.RangeResponse
}

func readsIn(op *linearizability.Op) (out []readIn) {
	switch req := op.Request.(type) {
	case *pb.RangeRequest:
		return []readIn{{req, op.Response.(*pb.RangeResponse)}}
	case *pb.TxnRequest:
		resp := op.Response.(*pb.TxnResponse)
		branch := req.Failure
		if resp.Succeeded {
			branch = req.Success
		}
		for i, o := range branch {
			if r := o.GetRequestRange(); r != nil && i < len(resp.Responses) {
				out = append(out, readIn{r, resp.Responses[i].GetResponseRange()})
			}
		}
	}
	return out
}

// first takes in who came first. Operations come in the order of their returns.
func (f *fencing) first(s sawFirst) {
	token, key := s.kv.CreateRevision, string(s.kv.Key)
	g := at(f.firsts, s.dir)
	if last, ok := g.before(s.op.Invoked); ok && last.number > uint64(token) {
		f.add(fmt.Sprintf("the first of %q has token %d, after one with %d had been", s.dir, token, last.number), last.op, s.op)
	}
	g.saw(uint64(token), key, s.op)
	if was, ok := f.owners[token]; ok && was.key != key && strings.HasPrefix(was.key, s.dir) {
		f.add(fmt.Sprintf("token %d is that of %q and of %q", token, was.key, key), was.op, s.op)
	}
	f.owners[token] = holder{key, s.op}
}

// wrote takes in what a register took.
func (f *fencing) wrote(op *linearizability.Op, prefix string) {
	for _, w := range certainWrites(op) {
		if strings.HasPrefix(w.key, prefix) && !w.deleted {
			f.registers[w.key] = append(f.registers[w.key], w)
		}
	}
}

// ordered holds each register's writes, by revision, against their tokens.
func (f *fencing) ordered() {
	for _, key := range slices.Sorted(maps.Keys(f.registers)) {
		ws := f.registers[key]
		slices.SortFunc(ws, func(a, b write) int { return cmp.Compare(a.rev, b.rev) })
		largest := int64(0)
		for i, w := range ws {
			token, ok := tokenOf([]byte(w.value))
			switch {
			case !ok:
				f.add(fmt.Sprintf("%q takes %q, which has no token", key, w.value), w.op)
			case token < largest:
				f.add(fmt.Sprintf("%q takes a write with token %d at revision %d, after one with %d", key, token, w.rev, largest), ws[i-1].op, w.op)
			}
			largest = max(largest, token)
		}
	}
}

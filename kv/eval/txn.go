package eval

import (
	"bytes"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// errNotReadOnly: a caller's mistake. A transaction that may write has to go through the log.
var errNotReadOnly = errors.New("a transaction that may write was given to ReadTxn")

// ReadTxn answers a transaction for which IsReadOnly holds. See Range for what the reader must hold.
func ReadTxn(r engine.Reader, env *Env, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !IsReadOnly(req) {
		return nil, errNotReadOnly
	}
	if !env.holdsTxn(req) {
		return nil, ErrOutOfSpan
	}
	v := newView(r, env)
	x := execution{view: &v, env: env}
	resp, err := x.txn(req, true)
	if cerr := v.find.close(); err == nil && cerr != nil {
		return nil, cerr
	}
	return resp, err
}

// IsReadOnly says whether a transaction cannot write, whichever way it goes.
func IsReadOnly(t *pb.TxnRequest) bool { return readOnly(t.GetSuccess()) && readOnly(t.GetFailure()) }

// IsWrite says whether a transaction may write, so that it has to go through the log.
func IsWrite(t *pb.TxnRequest) bool { return !IsReadOnly(t) }

func readOnly(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
		case *pb.RequestOp_RequestTxn:
			if !IsReadOnly(r.RequestTxn) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// Puts says whether a transaction may put a key, whichever way it goes.
func Puts(t *pb.TxnRequest) bool { return puts(t.GetSuccess()) || puts(t.GetFailure()) }

func puts(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			return true
		case *pb.RequestOp_RequestTxn:
			if Puts(r.RequestTxn) {
				return true
			}
		}
	}
	return false
}

// way is how a transaction goes: what its comparisons chose, and the ways of the transactions among the chosen
// operations, in order.
type way struct {
	succeeded bool
	ops       []*pb.RequestOp
	nested    []*way
}

// execution carries a transaction out: choose, check, execute.
type execution struct {
	*view
	env *Env
	w   *write // nil: there is nothing to write
}

func (x *execution) txn(req *pb.TxnRequest, respond bool) (*pb.TxnResponse, error) {
	w, err := x.choose(req)
	if err != nil {
		return nil, err
	}
	if _, err := x.check(w, nil); err != nil {
		return nil, err
	}
	resp, err := x.execute(w, respond)
	if err != nil || resp == nil {
		return nil, err
	}
	// The headers of nested responses stay empty.
	resp.Header.Revision = int64(x.current)
	return resp, nil
}

// choose evaluates the comparisons, those of chosen nested transactions too, before anything is written.
func (x *execution) choose(req *pb.TxnRequest) (*way, error) {
	ok, err := x.holdsAll(req.GetCompare())
	if err != nil {
		return nil, err
	}
	w := &way{succeeded: ok, ops: req.GetFailure()}
	if ok {
		w.ops = req.GetSuccess()
	}
	for _, op := range w.ops {
		if r, ok := op.GetRequest().(*pb.RequestOp_RequestTxn); ok {
			nested, err := x.choose(r.RequestTxn)
			if err != nil {
				return nil, err
			}
			w.nested = append(w.nested, nested)
		}
	}
	return w, nil
}

// span is of user's keys: [key, end), one key if end is empty, to the last if toEnd(end).
type span struct{ key, end []byte }

func (s span) has(key []byte) bool {
	if len(s.end) == 0 {
		return bytes.Equal(s.key, key)
	}
	return bytes.Compare(s.key, key) <= 0 && (toEnd(s.end) || bytes.Compare(key, s.end) < 0)
}

// check asks of each operation, in order, whether it can be carried out in the state before the transaction. What is
// deleted on the way is gathered in deleted.
func (x *execution) check(w *way, deleted []span) ([]span, error) {
	nested := w.nested
	for _, op := range w.ops {
		var err error
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			err = x.checkRevision(r.RequestRange)
		case *pb.RequestOp_RequestPut:
			if err = x.checkPut(r.RequestPut); err == nil && needsPrevious(r.RequestPut) {
				for _, d := range deleted {
					if d.has(r.RequestPut.GetKey()) {
						return nil, rpctypes.ErrGRPCKeyNotFound
					}
				}
			}
		case *pb.RequestOp_RequestDeleteRange:
			deleted = append(deleted, span{r.RequestDeleteRange.GetKey(), r.RequestDeleteRange.GetRangeEnd()})
		case *pb.RequestOp_RequestTxn:
			deleted, err = x.check(nested[0], deleted)
			nested = nested[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return deleted, nil
}

// checkRevision is stricter than a read alone: a revision below 0 is not the newest, but one that may be compacted.
func (x *execution) checkRevision(req *pb.RangeRequest) error {
	switch rev := base.Revision(req.GetRevision()); {
	case rev == 0:
		return nil
	case rev > x.current:
		return rpctypes.ErrGRPCFutureRev
	case rev < x.compacted:
		return rpctypes.ErrGRPCCompacted
	}
	return nil
}

func (x *execution) checkPut(req *pb.PutRequest) error {
	if err := x.w.p.checkLease(x.env, req.GetLease(), req.GetKey()); err != nil || !needsPrevious(req) {
		return err
	}
	_, ok, err := x.find.findLive(x.ks, req.GetKey(), newest)
	if err == nil && !ok {
		err = rpctypes.ErrGRPCKeyNotFound
	}
	return err
}

func needsPrevious(req *pb.PutRequest) bool { return req.GetIgnoreValue() || req.GetIgnoreLease() }

// execute carries the operations of a way out, which check found possible. Nil, unless there is to be a response.
func (x *execution) execute(w *way, respond bool) (*pb.TxnResponse, error) {
	var resp *pb.TxnResponse
	if respond {
		resp = &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: w.succeeded}
		resp.Responses = make([]*pb.ResponseOp, len(w.ops))
	}
	nested := w.nested
	for i, op := range w.ops {
		answer := &pb.ResponseOp{}
		var err error
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			if respond {
				var a *pb.RangeResponse
				a, err = x.readRange(r.RequestRange)
				answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: a}
			}
		case *pb.RequestOp_RequestPut:
			var a *pb.PutResponse
			a, err = x.w.put(r.RequestPut, respond)
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: a}
		case *pb.RequestOp_RequestDeleteRange:
			var a *pb.DeleteRangeResponse
			a, err = x.w.deleteRange(r.RequestDeleteRange, respond)
			answer.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: a}
		case *pb.RequestOp_RequestTxn:
			var a *pb.TxnResponse
			a, err = x.execute(nested[0], respond)
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: a}
			nested = nested[1:]
		}
		if err != nil {
			return nil, err
		}
		if respond {
			resp.Responses[i] = answer
		}
	}
	return resp, nil
}

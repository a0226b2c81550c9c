package eval

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// Pass applies many commands to one indexed batch, and looks keys up with one iterator where it can. All data that
// is written to the batch while the pass lasts goes through it. Close it before the batch is committed or closed.
// Not safe for concurrent use.
type Pass struct {
	b        engine.Batch
	find     finder
	heads    *Heads // nil: every key is looked up in the batch
	key, val []byte // scratch
}

// NewPass begins a pass over an indexed batch, which stays the caller's.
func NewPass(b engine.Batch) *Pass { return &Pass{b: b, find: finder{r: b}} }

// Batch is what the pass writes to.
func (p *Pass) Batch() engine.Batch { return p.b }

// Remember has the pass look into heads before the batch, and keep it up to date. If the batch is not committed
// afterwards, heads must be dropped.
func (p *Pass) Remember(heads *Heads) { p.heads = heads }

// Close lets the batch go.
func (p *Pass) Close() error { return p.find.close() }

// Apply is a Pass of one command.
func Apply(b engine.Batch, env *Env, cmd *kvpb.Command) (proto.Message, error) {
	p := NewPass(b)
	resp, err := p.Apply(env, cmd)
	if cerr := p.Close(); err == nil && cerr != nil {
		return nil, cerr
	}
	return resp, err
}

// Apply evaluates a command of etcd's and writes what comes of it. The response is nil if the env wants none. On an
// error for which Refused holds, nothing was written and env is as it was.
func (p *Pass) Apply(env *Env, cmd *kvpb.Command) (proto.Message, error) {
	env.NowMicros = cmd.GetNowMicros()
	switch body := cmd.GetBody().(type) {
	case *kvpb.Command_Put:
		req := &pb.PutRequest{}
		if err := decode(body.Put, req); err != nil {
			return nil, err
		}
		return answer(p.applyPut(env, req))
	case *kvpb.Command_DeleteRange:
		req := &pb.DeleteRangeRequest{}
		if err := decode(body.DeleteRange, req); err != nil {
			return nil, err
		}
		return answer(p.applyDeleteRange(env, req))
	case *kvpb.Command_Txn:
		req := &pb.TxnRequest{}
		if err := decode(body.Txn, req); err != nil {
			return nil, err
		}
		return answer(p.applyTxn(env, req))
	case *kvpb.Command_Compaction:
		req := &pb.CompactionRequest{}
		if err := decode(body.Compaction, req); err != nil {
			return nil, err
		}
		return answer(applyCompaction(env, req))
	}
	return nil, &base.Corruption{Where: "command", Cause: fmt.Errorf("a body of type %T is not evaluated here", cmd.GetBody())}
}

func decode(b []byte, req proto.Message) error {
	if err := proto.Unmarshal(b, req); err != nil {
		return &base.Corruption{Where: "command", Cause: err}
	}
	return nil
}

// answer turns a typed nil into none.
func answer[M interface {
	*T
	proto.Message
}, T any](resp M, err error) (proto.Message, error) {
	if err != nil || resp == nil {
		return nil, err
	}
	return resp, nil
}

func (p *Pass) applyPut(env *Env, req *pb.PutRequest) (*pb.PutResponse, error) {
	if !env.holds(req.GetKey(), nil) {
		return nil, ErrOutOfSpan
	}
	if err := p.checkLease(env, req.GetLease(), req.GetKey()); err != nil {
		return nil, err
	}
	w := p.begin(env)
	resp, err := w.put(req, env.WantResponse)
	w.end()
	return resp, err
}

func (p *Pass) applyDeleteRange(env *Env, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if !env.holds(req.GetKey(), req.GetRangeEnd()) {
		return nil, ErrOutOfSpan
	}
	w := p.begin(env)
	resp, err := w.deleteRange(req, env.WantResponse)
	w.end()
	return resp, err
}

func (p *Pass) applyTxn(env *Env, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !env.holdsTxn(req) {
		return nil, ErrOutOfSpan
	}
	w := p.begin(env)
	x := execution{view: &w.view, env: env, w: w}
	told := 0
	if env.Events != nil {
		told = len(*env.Events)
	}
	resp, err := x.txn(req, env.WantResponse)
	w.end()
	if env.Events != nil {
		*env.Events = append((*env.Events)[:told], lastOfEach((*env.Events)[told:])...)
	}
	return resp, err
}

// applyCompaction moves the mark; what lies below is no longer read, and removed later (CompactStep).
func applyCompaction(env *Env, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	rev := base.Revision(req.GetRevision())
	switch {
	case rev <= env.Counters.Compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case rev > env.Counters.Revision:
		return nil, rpctypes.ErrGRPCFutureRev
	}
	env.Counters.Compacted = rev
	if !env.WantResponse {
		return nil, nil
	}
	return &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: int64(env.Counters.Revision)}}, nil
}

// Put writes a value as a put without lease does, and returns its revision. env.NowMicros is to be set.
func (p *Pass) Put(env *Env, key, value []byte) (base.Revision, error) {
	if !env.holds(key, nil) {
		return 0, ErrOutOfSpan
	}
	w := p.begin(env)
	_, err := w.put(&pb.PutRequest{Key: key, Value: value}, false)
	w.end()
	return w.current, err
}

// Delete deletes a key. env.NowMicros is to be set.
func (p *Pass) Delete(env *Env, key []byte) error {
	if !env.holds(key, nil) {
		return ErrOutOfSpan
	}
	w := p.begin(env)
	err := w.deletePoint(key, false, &pb.DeleteRangeResponse{})
	w.end()
	return err
}

// First returns the newest value of the first key in a span that exists, if one does.
func (p *Pass) First(ks base.KeyspaceID, start, end []byte) (rec Record, ok bool, err error) {
	s, err := newScanner(p.b, keys.DataSpan(ks, start, end), newest)
	if err != nil {
		return Record{}, false, err
	}
	if ok = s.next(); ok {
		rec, err = s.record()
		rec.Value = bytes.Clone(rec.Value)
	}
	if cerr := s.close(); err == nil {
		err = cerr
	}
	return rec, ok && err == nil, err
}

// Newest returns the newest value of a key, and whether the key exists. The value is valid until the next call.
func (p *Pass) Newest(ks base.KeyspaceID, key []byte) (Record, bool, error) {
	return p.find.findLive(ks, key, newest)
}

// Get returns the newest value of a key as of a reader, and whether the key exists.
func Get(r engine.Reader, ks base.KeyspaceID, key []byte) (Record, bool, error) {
	f := finder{r: r}
	rec, ok, err := f.findLive(ks, key, newest)
	rec.Value = bytes.Clone(rec.Value)
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return rec, ok && err == nil, err
}

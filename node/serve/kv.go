package serve

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// kvService is etcd's KV service, on the keyspace that each request is for.
type kvService struct {
	pb.UnimplementedKVServer
	cfg *Config
}

// Range reads a key or a span of them.
func (s *kvService) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := eval.CheckRange(req); err != nil {
		return nil, err
	}
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.cfg.Backend.Range(ctx, ks, req)
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

// Put writes one key.
func (s *kvService) Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error) {
	if err := eval.CheckPut(req, s.cfg.evalLimits()); err != nil {
		return nil, err
	}
	ks, err := s.cfg.keyspaceToWrite(ctx, true)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := propose[*pb.PutResponse](ctx, s.cfg, ks, req.Key, &kvpb.Command{Body: &kvpb.Command_Put{Put: body}})
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

// DeleteRange deletes a key or a span of them.
func (s *kvService) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := eval.CheckDeleteRange(req, s.cfg.evalLimits()); err != nil {
		return nil, err
	}
	ks, err := s.cfg.keyspaceToWrite(ctx, false)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := propose[*pb.DeleteRangeResponse](ctx, s.cfg, ks, req.Key,
		&kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: body}})
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

// Txn compares and then does one of two lists of operations. If neither list writes, it is a read.
func (s *kvService) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := eval.CheckTxn(req, s.cfg.evalLimits()); err != nil {
		return nil, err
	}
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.txn(ctx, ks, req)
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

func (s *kvService) txn(ctx context.Context, ks base.KeyspaceID, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if eval.IsReadOnly(req) {
		return s.cfg.Backend.ReadTxn(ctx, ks, req)
	}
	if err := s.cfg.Backend.Admit(eval.Puts(req)); err != nil {
		return nil, err
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	return propose[*pb.TxnResponse](ctx, s.cfg, ks, eval.FirstKey(req), &kvpb.Command{Body: &kvpb.Command_Txn{Txn: body}})
}

// Compact forgets the versions before a revision.
func (s *kvService) Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	ks, err := s.cfg.keyspaceToWrite(ctx, false)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := propose[*pb.CompactionResponse](ctx, s.cfg, ks, nil,
		&kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: body}})
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

// evalLimits are the bounds of one request.
func (c *Config) evalLimits() eval.Limits {
	return eval.Limits{MaxTxnOps: c.MaxTxnOps, MaxRequestBytes: c.MaxRequestBytes}
}

// propose carries a command to the range of key and returns its response, which must be of the command's type.
func propose[R proto.Message](ctx context.Context, c *Config, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (R, error) {
	var none R
	msg, err := c.Backend.Propose(ctx, ks, key, cmd)
	if err != nil {
		return none, err
	}
	resp, ok := msg.(R)
	if !ok {
		return none, fmt.Errorf("serve: a command that is answered with a %T was answered with a %T", none, msg)
	}
	return resp, nil
}

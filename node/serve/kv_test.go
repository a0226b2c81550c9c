package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

var wantHeader = &pb.ResponseHeader{ClusterId: 0xc1, MemberId: 1, Revision: fakeRevision, RaftTerm: 7}

func rangeOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func TestWritesAreProposed(t *testing.T) {
	evaluated := &pb.ResponseHeader{Revision: fakeRevision}
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	del := &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("a"), putOp("b")}}
	compact := &pb.CompactionRequest{Revision: 3}
	for _, c := range []struct {
		name   string
		req    proto.Message
		key    string
		answer proto.Message
		call   func(context.Context, pb.KVClient) (interface{ GetHeader() *pb.ResponseHeader }, error)
	}{
		{"put", put, "k", &pb.PutResponse{Header: evaluated}, func(ctx context.Context, kv pb.KVClient) (interface{ GetHeader() *pb.ResponseHeader }, error) {
			return kv.Put(ctx, put)
		}},
		{"delete", del, "k", &pb.DeleteRangeResponse{Header: evaluated}, func(ctx context.Context, kv pb.KVClient) (interface{ GetHeader() *pb.ResponseHeader }, error) {
			return kv.DeleteRange(ctx, del)
		}},
		{"txn", txn, "a", &pb.TxnResponse{Header: evaluated}, func(ctx context.Context, kv pb.KVClient) (interface{ GetHeader() *pb.ResponseHeader }, error) {
			return kv.Txn(ctx, txn)
		}},
		{"compact", compact, "", &pb.CompactionResponse{Header: evaluated}, func(ctx context.Context, kv pb.KVClient) (interface{ GetHeader() *pb.ResponseHeader }, error) {
			return kv.Compact(ctx, compact)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := memberBackend()
			b.answer = c.answer
			resp, err := c.call(t.Context(), pb.NewKVClient(serveFake(t, b)))
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(resp.GetHeader(), wantHeader) {
				t.Errorf("header %v, want %v", resp.GetHeader(), wantHeader)
			}
			if len(b.proposed) != 1 || string(b.keys[0]) != c.key {
				t.Fatalf("proposed %v for the keys %q", b.proposed, b.keys)
			}
			cmd := b.proposed[0]
			got := c.req.ProtoReflect().New().Interface()
			body := bytes.Join([][]byte{cmd.GetPut(), cmd.GetDeleteRange(), cmd.GetTxn(), cmd.GetCompaction()}, nil)
			if err := proto.Unmarshal(body, got); err != nil || !proto.Equal(got, c.req) {
				t.Errorf("the command carries %v (%v), want %v", got, err, c.req)
			}
		})
	}
}

func TestReadsAreNotProposed(t *testing.T) {
	b := memberBackend()
	b.kvs = []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v")}}
	kv := pb.NewKVClient(serveFake(t, b))
	r, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil || len(r.Kvs) != 1 || !proto.Equal(r.Header, wantHeader) {
		t.Errorf("Range: %v, %v", r, err)
	}
	txn, err := kv.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("a")}})
	if err != nil || !txn.Succeeded || !proto.Equal(txn.Header, wantHeader) {
		t.Errorf("Txn: %v, %v", txn, err)
	}
	if b.readTxns != 1 || len(b.proposed) != 0 {
		t.Errorf("%d read transactions and %d proposals, want 1 and 0", b.readTxns, len(b.proposed))
	}
}

func TestRefusedBeforeProposing(t *testing.T) {
	b := memberBackend()
	kv := pb.NewKVClient(serveFake(t, b))
	many := &pb.TxnRequest{}
	for i := range base.MaxTxnOps + 1 {
		many.Success = append(many.Success, putOp(fmt.Sprint(i)))
	}
	large := &pb.PutRequest{Key: []byte("k"), Value: make([]byte, base.MaxRequestBytes)}
	_, errEmptyPut := kv.Put(t.Context(), &pb.PutRequest{})
	_, errEmptyRange := kv.Range(t.Context(), &pb.RangeRequest{})
	_, errEmptyDelete := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{})
	_, errMany := kv.Txn(t.Context(), many)
	_, errLarge := kv.Put(t.Context(), large)
	for _, c := range []struct {
		name      string
		got, want error
	}{
		{"empty put", errEmptyPut, rpctypes.ErrGRPCEmptyKey},
		{"empty range", errEmptyRange, rpctypes.ErrGRPCEmptyKey},
		{"empty delete", errEmptyDelete, rpctypes.ErrGRPCEmptyKey},
		{"too many operations", errMany, rpctypes.ErrGRPCTooManyOps},
		{"too large", errLarge, rpctypes.ErrGRPCRequestTooLarge},
	} {
		if !errors.Is(c.got, c.want) && status.Convert(c.got).Message() != status.Convert(c.want).Message() {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
	if len(b.proposed) != 0 {
		t.Errorf("proposed %v", b.proposed)
	}
}

func TestErrorsGoThroughTheTable(t *testing.T) {
	b := memberBackend()
	b.err = &base.NotLeader{Range: base.RangeDefault}
	kv := pb.NewKVClient(serveFake(t, b))
	_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	if rpctypes.Error(err) != rpctypes.ErrNoLeader {
		t.Errorf("Put: %v", err)
	}
	stream, err := kv.RangeStream(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); rpctypes.Error(err) != rpctypes.ErrNoLeader {
		t.Errorf("RangeStream: %v", err)
	}
}

func TestRequestWithoutDeadlineIsBounded(t *testing.T) {
	b := memberBackend()
	b.hang = true
	_, conn := serveOn(t, listen(t), Config{Backend: b, RequestTimeout: 10 * time.Millisecond})
	_, err := pb.NewKVClient(conn).Put(context.Background(), &pb.PutRequest{Key: []byte("k")})
	if rpctypes.Error(err) != rpctypes.ErrTimeout {
		t.Errorf("got %v, want etcd's time-out", err)
	}
}

func TestRangeStreamIsRangeInPieces(t *testing.T) {
	b := memberBackend()
	for i := range 3*fakePageKeys + 7 {
		b.kvs = append(b.kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "k%05d", i), Value: make([]byte, 1000)})
	}
	_, conn := serveOn(t, listen(t), Config{Backend: b})
	kv := pb.NewKVClient(conn)
	all := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	for name, change := range map[string]func(*pb.RangeRequest){
		"all":             func(*pb.RangeRequest) {},
		"nothing":         func(r *pb.RangeRequest) { r.Key = []byte("kz") },
		"limit in a page": func(r *pb.RangeRequest) { r.Limit = 5 },
		"limit of a page": func(r *pb.RangeRequest) { r.Limit = fakePageKeys },
		"limit of more":   func(r *pb.RangeRequest) { r.Limit = fakePageKeys + 1 },
		"limit of all":    func(r *pb.RangeRequest) { r.Limit = int64(len(b.kvs)) },
		"sorted":          func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_VALUE },
	} {
		t.Run(name, func(t *testing.T) {
			req := proto.CloneOf(all)
			change(req)
			want, err := kv.Range(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			b.reads = nil
			got := &pb.RangeResponse{}
			stream, err := kv.RangeStream(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for {
				part, err := stream.Recv()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if size := proto.Size(part); size > streamChunkBytes+4096 {
					t.Errorf("a message of %d bytes", size)
				}
				proto.Merge(got, part.RangeResponse)
			}
			if !proto.Equal(got, want) {
				t.Errorf("%d pairs, header %v, count %d, more %v; want %d, %v, %d, %v", len(got.Kvs), got.Header, got.Count,
					got.More, len(want.Kvs), want.Header, want.Count, want.More)
			}
			for i, r := range b.reads {
				if i > 0 && r.Revision != fakeRevision {
					t.Errorf("page %d was read at revision %d", i, r.Revision)
				}
			}
		})
	}
}

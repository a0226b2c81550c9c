package client

import (
	"context"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// KV is one keyspace of a cluster.
type KV struct {
	c        *Client
	keyspace string
}

// Name is the keyspace's.
func (k KV) Name() string { return k.keyspace }

// KeyValue is a key as it is, or was at the revision that was read at.
type KeyValue struct {
	Key            string
	Value          []byte
	CreateRevision int64 // of the write that made the key
	ModRevision    int64 // of the last write to it
	Version        int64 // counts the writes since it was made, from 1
}

func keyValue(kv *mvccpb.KeyValue) KeyValue {
	return KeyValue{Key: string(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version}
}

// Get reads a key. found is false if there is none.
func (k KV) Get(ctx context.Context, key string) (kv KeyValue, found bool, err error) {
	resp, err := k.get(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil || len(resp.Kvs) == 0 {
		return KeyValue{}, false, err
	}
	return keyValue(resp.Kvs[0]), true, nil
}

// Query says what GetRange is to read.
type Query struct {
	Span
	Limit    int64 // at most so many keys; 0: all
	Revision int64 // as the keyspace was then; 0: as it is
	KeysOnly bool
	// Stale lets any node answer from its own replica, as of some moment before: not linearizable.
	Stale bool
}

// Page is what GetRange has read.
type Page struct {
	KVs      []KeyValue // in the order of their keys
	More     bool       // there are more in the span: Limit cut them off
	Count    int64      // of all keys in the span
	Revision int64      // of the keyspace (of the span's ranges, if it is sharded) when it was read
}

// GetRange reads the keys of a span as they were at one moment, whatever number of ranges it lies in.
func (k KV) GetRange(ctx context.Context, q Query) (*Page, error) {
	key, end := q.wire()
	resp, err := k.get(ctx, &pb.RangeRequest{
		Key: key, RangeEnd: end, Limit: q.Limit, Revision: q.Revision, KeysOnly: q.KeysOnly, Serializable: q.Stale,
	})
	if err != nil {
		return nil, err
	}
	p := &Page{More: resp.More, Count: resp.Count, Revision: resp.Header.GetRevision(), KVs: make([]KeyValue, len(resp.Kvs))}
	for i, kv := range resp.Kvs {
		p.KVs[i] = keyValue(kv)
	}
	return p, nil
}

// Count counts the keys of a span at one moment, and returns a revision at which it is so.
func (k KV) Count(ctx context.Context, s Span) (n, revision int64, err error) {
	key, end := s.wire()
	resp, err := k.get(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, CountOnly: true})
	if err != nil {
		return 0, 0, err
	}
	return resp.Count, resp.Header.GetRevision(), nil
}

// Put writes a key, and returns the revision of the write.
func (k KV) Put(ctx context.Context, key string, value []byte) (revision int64, err error) {
	var resp *pb.PutResponse
	req := &pb.PutRequest{Key: []byte(key), Value: value}
	err = k.c.do(ctx, k.call(req.Key, writes, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewKVClient(cc).Put(ctx, req, opts...)
		return err
	}))
	return resp.GetHeader().GetRevision(), err
}

// Delete deletes a key, and says whether there was one.
func (k KV) Delete(ctx context.Context, key string) (deleted bool, err error) {
	n, err := k.delete(ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
	return n > 0, err
}

// DeleteRange deletes the keys of a span, which must lie in one range, and says how many there were.
func (k KV) DeleteRange(ctx context.Context, s Span) (deleted int64, err error) {
	key, end := s.wire()
	return k.delete(ctx, &pb.DeleteRangeRequest{Key: key, RangeEnd: end})
}

// Compact forgets all versions that a read at this revision or later does not need. Reads at earlier ones are refused from then
// on. It may be repeated.
func (k KV) Compact(ctx context.Context, revision int64) error {
	req := &pb.CompactionRequest{Revision: revision}
	return k.c.do(ctx, k.call(nil, writes, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		_, err := pb.NewKVClient(cc).Compact(ctx, req, opts...)
		return err
	}))
}

func (k KV) get(ctx context.Context, req *pb.RangeRequest) (resp *pb.RangeResponse, err error) {
	err = k.c.do(ctx, k.call(req.Key, reads, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewKVClient(cc).Range(ctx, req, opts...)
		return err
	}))
	return resp, err
}

func (k KV) delete(ctx context.Context, req *pb.DeleteRangeRequest) (int64, error) {
	var resp *pb.DeleteRangeResponse
	err := k.c.do(ctx, k.call(req.Key, writes, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewKVClient(cc).DeleteRange(ctx, req, opts...)
		return err
	}))
	return resp.GetDeleted(), err
}

func (k KV) call(key []byte, e effect, invoke func(context.Context, *grpc.ClientConn, ...grpc.CallOption) error) *call {
	return &call{keyspace: k.keyspace, key: key, effect: e, invoke: invoke}
}

package serve

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/lockpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// contestedBackend is one on which somebody with an older key holds the lock l: every transaction writes a key, at revision 40.
func contestedBackend() *fakeBackend {
	b := memberBackend()
	b.watches = make(chan *fakeStream, 10)
	older := &mvccpb.KeyValue{Key: []byte("l/3"), CreateRevision: 30}
	b.kvs = []*mvccpb.KeyValue{older, {Key: []byte("l/7"), CreateRevision: 40}}
	b.answer = &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 40}, Succeeded: true, Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}},
		{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{older}}}},
	}}
	return b
}

// txns are the transactions that were proposed.
func (b *fakeBackend) txns(t *testing.T) (out []*pb.TxnRequest) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, cmd := range b.proposed {
		if raw, ok := cmd.Body.(*kvpb.Command_Txn); ok {
			txn := &pb.TxnRequest{}
			if err := proto.Unmarshal(raw.Txn, txn); err != nil {
				t.Fatal(err)
			}
			out = append(out, txn)
		}
	}
	return out
}

func locking(b *fakeBackend, t *testing.T) (*Server, chan error) {
	t.Helper()
	s, conn := serveOn(t, listen(t), Config{Backend: b})
	done := make(chan error, 1)
	go func() {
		_, err := lockpb.NewLockClient(conn).Lock(t.Context(), &lockpb.LockRequest{Name: []byte("l"), Lease: 7})
		done <- err
	}()
	return s, done
}

// Who waits watches the key before its own, from what it has read on; what was compacted meanwhile is read again; and its key is
// taken away when it cannot go on.
func TestLockWatchesTheOlderKey(t *testing.T) {
	b := contestedBackend()
	_, done := locking(b, t)
	first := <-b.watches
	got := <-first.asked
	if want := fmt.Sprintf(`create 0 ["l/3","l/3\x00") from %d, keyspace %d, prev false, no put true, no delete false, progress false, fragment false`,
		fakeRevision+1, base.KeyspaceDefault); got != want {
		t.Errorf("it watches %s, want %s", got, want)
	}
	first.Outs([]watch.Out{{Kind: watch.Created}, {Kind: watch.Canceled, Compacted: 50, Bytes: 9}})
	second := <-b.watches
	if again := <-second.asked; again != got {
		t.Errorf("it watches %s, and after a compaction %s", got, again)
	}
	b.mu.Lock()
	reads := len(b.reads)
	last := b.reads[reads-1]
	b.mu.Unlock()
	if reads != 2 || last.MaxCreateRevision != 39 || string(last.Key) != "l/" || string(last.RangeEnd) != "l0" {
		t.Errorf("%d reads, the last is %v", reads, last)
	}
	second.End(base.ErrStopped)
	if err := <-done; status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	txns := b.txns(t)
	if len(txns) != 2 || string(txns[0].Success[0].GetRequestPut().GetKey()) != "l/7" || txns[0].Success[0].GetRequestPut().Lease != 7 ||
		string(txns[1].Success[0].GetRequestDeleteRange().GetKey()) != "l/7" || txns[1].Compare[0].GetCreateRevision() != 40 {
		t.Errorf("%v", txns)
	}
}

// A server that stops does not wait for those who wait for a lock, and takes their keys away.
func TestStopEndsWhoWaitsForALock(t *testing.T) {
	b := contestedBackend()
	s, done := locking(b, t)
	<-(<-b.watches).asked
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-stopped:
	case <-limit.Done():
		t.Fatal("it waits")
	}
	if err := <-done; status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	if txns := b.txns(t); len(txns) != 2 || txns[1].Success[0].GetRequestDeleteRange() == nil {
		t.Errorf("%v", txns)
	}
}

// The keys of one lock lie in one range, or nobody comes in.
func TestLockOverSeveralRanges(t *testing.T) {
	b := contestedBackend()
	b.err = &base.SeveralRanges{}
	_, done := locking(b, t)
	if err := <-done; status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != status.Convert(errContestCut).Message() {
		t.Errorf("%v", err)
	}
}

package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/dispatch"
)

// fakeLeases are leases without a cluster behind them: what was granted lasts until it is revoked.
type fakeLeases struct {
	mu      sync.Mutex
	ttls    map[int64]int64
	spaces  []base.KeyspaceID       // that leases were granted in
	batches [][]int64               // of keep-alives
	taken   int                     // so many grants are refused
	hold    chan struct{}           // if set, keep-alives wait for it
	ending  map[int64]chan struct{} // leases that are ending, until it is closed
	err     error
}

func newFakeLeases() *fakeLeases { return &fakeLeases{ttls: map[int64]int64{}} }

func (f *fakeLeases) GrantLease(_ context.Context, ks base.KeyspaceID, id, ttl int64) (*kvpb.LeaseGrantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taken--; f.taken >= 0 || f.ttls[id] != 0 {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	f.ttls[id], f.spaces = ttl, append(f.spaces, ks)
	return &kvpb.LeaseGrantResponse{Lease: &kvpb.LeaseRecord{Id: id, Ttl: ttl}, Revision: fakeRevision}, f.err
}

func (f *fakeLeases) RevokeLease(_ context.Context, _ base.KeyspaceID, id int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ttls[id] == 0 {
		return 0, rpctypes.ErrGRPCLeaseNotFound
	}
	delete(f.ttls, id)
	return fakeRevision, f.err
}

func (f *fakeLeases) KeepAlive(ctx context.Context, _ base.KeyspaceID, ids []int64) (kept []dispatch.Kept, err error) {
	f.mu.Lock()
	f.batches = append(f.batches, slices.Clone(ids))
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		kept = append(kept, dispatch.Kept{TTL: f.ttls[id], Revision: fakeRevision, Ending: f.ending[id] != nil})
	}
	return kept, f.err
}

func (f *fakeLeases) AwaitEnd(ctx context.Context, _ base.KeyspaceID, id int64) (dispatch.Kept, error) {
	select {
	case <-f.ending[id]:
		return dispatch.Kept{Revision: fakeRevision}, nil
	case <-ctx.Done():
		return dispatch.Kept{}, ctx.Err()
	}
}

func (f *fakeLeases) TimeToLive(_ context.Context, _ base.KeyspaceID, id int64) (*rangepb.LeaseAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ttls[id] == 0 {
		return &rangepb.LeaseAnswer{RemainingSeconds: -1, Revision: fakeRevision}, f.err
	}
	return &rangepb.LeaseAnswer{RemainingSeconds: f.ttls[id] - 1, Lease: &kvpb.LeaseRecord{Id: id, Ttl: f.ttls[id]}, Revision: fakeRevision}, f.err
}

func (f *fakeLeases) LeaseKeys(context.Context, base.KeyspaceID, *kvpb.LeaseRecord) ([][]byte, error) {
	return [][]byte{[]byte("a"), []byte("b")}, f.err
}

func (f *fakeLeases) Leases(context.Context, base.KeyspaceID) (ids []int64, revision int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.ttls {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, fakeRevision, f.err
}

func leaseClient(t *testing.T) (*fakeLeases, pb.LeaseClient) {
	t.Helper()
	b, f := memberBackend(), newFakeLeases()
	b.leases = f
	return f, pb.NewLeaseClient(serveFake(t, b))
}

// An id is chosen for who gives none, positive as etcd's are, and another if that is taken; a short TTL is made longer.
func TestGrantChooses(t *testing.T) {
	f, c := leaseClient(t)
	f.taken = base.LeaseIDTries - 1
	resp, err := c.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: -5})
	if err != nil || resp.ID <= 0 || resp.TTL != base.LeaseMinTTL || resp.Header.Revision != fakeRevision || resp.Header.MemberId != 1 {
		t.Errorf("%v, %v", resp, err)
	}
	f.taken = base.LeaseIDTries
	if _, err := c.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 5}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("all ids are taken: %v", err)
	}
	f.taken = 1
	if _, err := c.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: -7, TTL: 5}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("another id than the one that was asked for was tried: %v", err)
	}
	if resp, err := c.LeaseGrant(inShards(t.Context()), &pb.LeaseGrantRequest{ID: -7, TTL: 5}); err != nil || resp.ID != -7 || resp.TTL != 5 {
		t.Errorf("%v, %v", resp, err)
	}
	if !slices.Equal(f.spaces, []base.KeyspaceID{base.KeyspaceDefault, 100}) {
		t.Errorf("granted in %v", f.spaces)
	}
}

func TestTimeToLiveOfALease(t *testing.T) {
	f, c := leaseClient(t)
	f.ttls[7] = 30
	resp, err := c.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 7})
	if err != nil || resp.TTL != 29 || resp.GrantedTTL != 30 || resp.Keys != nil || resp.Header.Revision != fakeRevision {
		t.Errorf("%v, %v", resp, err)
	}
	resp, err = c.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 7, Keys: true})
	if err != nil || len(resp.Keys) != 2 {
		t.Errorf("%v, %v", resp, err)
	}
	resp, err = c.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 8, Keys: true})
	if err != nil || resp.ID != 8 || resp.TTL != -1 || resp.GrantedTTL != 0 || resp.Keys != nil {
		t.Errorf("of none: %v, %v", resp, err)
	}
}

// Answers come in the order of the questions, however they were gathered; one that is gone has no time left, and ends nothing.
func TestKeepAliveAnswersInOrder(t *testing.T) {
	f, c := leaseClient(t)
	f.hold = make(chan struct{})
	stream, err := c.LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	for id := int64(1); id <= n; id++ {
		if id%7 != 0 {
			f.mu.Lock()
			f.ttls[id] = id
			f.mu.Unlock()
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(f.hold)
	for id := int64(1); id <= n; id++ {
		want := id
		if id%7 == 0 {
			want = 0
		}
		resp, err := stream.Recv()
		if err != nil || resp.ID != id || resp.TTL != want || resp.Header.Revision != fakeRevision {
			t.Fatalf("answer %d: %v, %v", id, resp, err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
	if got := slices.Concat(f.batches...); len(got) != n || len(f.batches) == n {
		t.Errorf("%d leases in %d batches", len(got), len(f.batches))
	}
}

// A lease that is ending is answered for when it has ended: the others of its stream do not wait for it, and the stream does.
func TestKeepAliveOfEndingLeases(t *testing.T) {
	f, c := leaseClient(t)
	f.ending = map[int64]chan struct{}{1: make(chan struct{}), 3: make(chan struct{})}
	f.ttls[2], f.ttls[4] = 20, 40
	stream, err := c.LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id := int64(1); id <= 4; id++ {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{2, 4, 3, 1} {
		if end := f.ending[want]; end != nil {
			close(end)
		}
		resp, err := stream.Recv()
		if err != nil || resp.ID != want || resp.TTL != f.ttls[want] || resp.Header.Revision != fakeRevision {
			t.Fatalf("want lease %d: %v, %v", want, resp, err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

// One that does not end in time ends the stream, as in etcd.
func TestKeepAliveOfALeaseThatDoesNotEnd(t *testing.T) {
	b, f := memberBackend(), newFakeLeases()
	b.leases, f.ending = f, map[int64]chan struct{}{1: make(chan struct{})}
	_, conn := serveOn(t, listen(t), Config{Backend: b, RequestTimeout: 20 * time.Millisecond})
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(t.Context())
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCTimeout).Message() {
		t.Errorf("%v, %v", resp, err)
	}
}

// What a lease's home cannot say ends the stream, with etcd's error, and the client opens another.
func TestKeepAliveWithoutALeader(t *testing.T) {
	f, c := leaseClient(t)
	f.err = &base.NotLeader{Range: 4}
	stream, err := c.LeaseKeepAlive(t.Context())
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCNoLeader).Message() {
		t.Errorf("%v", err)
	}
}

// Where there is no space nothing is granted, and what is there may be revoked.
func TestNoLeaseWithoutSpace(t *testing.T) {
	b, f := memberBackend(), newFakeLeases()
	b.leases, b.alarms = f, []*pb.AlarmMember{{Alarm: pb.AlarmType_NOSPACE}}
	f.ttls[7] = 30
	c := pb.NewLeaseClient(serveFake(t, b))
	if _, err := c.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 5}); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCNoSpace).Message() {
		t.Errorf("%v", err)
	}
	if _, err := c.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 7}); err != nil {
		t.Error(err)
	}
}

package alarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
)

// sys is the keyspace of the records, as far as this package uses it.
type sys struct {
	mu  sync.Mutex
	rev int64
	kvs []*mvccpb.KeyValue // ordered
	err error              // of every call
}

func (s *sys) Range(_ context.Context, _ base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &pb.RangeResponse{}
	for _, kv := range s.kvs {
		if bytes.Compare(kv.Key, req.Key) >= 0 && bytes.Compare(kv.Key, req.RangeEnd) < 0 {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	return resp, s.err
}

func (s *sys) Propose(_ context.Context, _ base.KeyspaceID, _ []byte, cmd *kvpb.Command) (proto.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	txn := &pb.TxnRequest{}
	if err := proto.Unmarshal(cmd.GetTxn(), txn); err != nil || s.err != nil {
		return nil, errors.Join(err, s.err)
	}
	at := func(key []byte) (int, bool) {
		return slices.BinarySearchFunc(s.kvs, key, func(kv *mvccpb.KeyValue, key []byte) int { return bytes.Compare(kv.Key, key) })
	}
	for _, c := range txn.Compare {
		if i, found := at(c.Key); found && s.kvs[i].ModRevision != c.GetModRevision() || !found && c.GetModRevision() != 0 {
			return &pb.TxnResponse{}, nil
		}
	}
	s.rev++
	for _, op := range txn.Success {
		if put := op.GetRequestPut(); put != nil {
			i, _ := at(put.Key)
			s.kvs = slices.Insert(s.kvs, i, &mvccpb.KeyValue{Key: put.Key, Value: put.Value, ModRevision: s.rev})
		} else if i, found := at(op.GetRequestDeleteRange().Key); found {
			s.kvs = slices.Delete(s.kvs, i, i+1)
		}
	}
	return &pb.TxnResponse{Succeeded: true}, nil
}

func (s *sys) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func list(t *testing.T, a *Alarms, req *pb.AlarmRequest) string {
	t.Helper()
	got, err := a.Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range got {
		out = append(out, fmt.Sprint(m.Alarm, " of ", m.MemberID))
	}
	return strings.Join(out, ", ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestByHand: alarms are raised and taken back one by one, as etcd does, and what they forbid is forbidden at once where it was done.
func TestByHand(t *testing.T) {
	s := &sys{}
	a, other := New(Config{Node: 1, Cluster: s}), New(Config{Node: 2, Cluster: s})
	raise := func(member uint64, kind pb.AlarmType) *pb.AlarmRequest {
		return &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: kind}
	}
	want(t, "none", list(t, a, &pb.AlarmRequest{}), "")
	want(t, "no kind", list(t, a, raise(1, pb.AlarmType_NONE)), "")
	want(t, "raised", list(t, a, raise(7, pb.AlarmType_NOSPACE)), "NOSPACE of 7")
	want(t, "and again", list(t, a, raise(7, pb.AlarmType_NOSPACE)), "NOSPACE of 7")
	if a.Admit(true) != rpctypes.ErrGRPCNoSpace || a.Admit(false) != nil || other.Admit(true) != nil {
		t.Errorf("%v, %v, and where it is not known %v", a.Admit(true), a.Admit(false), other.Admit(true))
	}
	want(t, "raised", list(t, a, raise(2, pb.AlarmType_CORRUPT)), "CORRUPT of 2")
	if a.Admit(true) != rpctypes.ErrGRPCCorrupt || a.Admit(false) != rpctypes.ErrGRPCCorrupt {
		t.Errorf("%v, %v", a.Admit(true), a.Admit(false))
	}
	want(t, "all, from another node", list(t, other, &pb.AlarmRequest{}), "CORRUPT of 2, NOSPACE of 7")
	want(t, "of one kind", list(t, a, &pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}), "CORRUPT of 2")
	want(t, "of one member", list(t, a, &pb.AlarmRequest{MemberID: 7}), "NOSPACE of 7")
	off := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 2, Alarm: pb.AlarmType_CORRUPT}
	want(t, "taken back", list(t, a, off), "CORRUPT of 2")
	want(t, "and again", list(t, a, off), "")
	want(t, "the rest", list(t, a, &pb.AlarmRequest{}), "NOSPACE of 7")
	s.fail(errors.New("no leader"))
	want(t, "as it was heard of last", list(t, a, &pb.AlarmRequest{}), "NOSPACE of 7")
	if _, err := a.Do(t.Context(), off); err == nil {
		t.Error("taken back where nothing can be written")
	}
}

// TestQuota: a store above its quota raises the alarm, and again whenever it was taken back and the store is still above; that it is
// below again takes back nothing. While the alarm cannot be stored the node itself takes no more data.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sys{}
		var used atomic.Int64
		a := New(Config{Node: 3, Cluster: s, Quota: 100, Used: used.Load})
		a.Start()
		defer a.Stop()
		pass := func() {
			<-time.After(2 * base.QuotaInterval) // in the bubble's time
			synctest.Wait()
		}
		used.Store(100)
		pass()
		want(t, "as large as it may be", list(t, a, &pb.AlarmRequest{}), "")
		s.fail(errors.New("no leader"))
		used.Store(101)
		pass()
		if a.Admit(true) != rpctypes.ErrGRPCNoSpace || len(a.Known()) != 0 {
			t.Errorf("%v, %v", a.Admit(true), a.Known())
		}
		s.fail(nil)
		pass()
		want(t, "above", list(t, a, &pb.AlarmRequest{}), "NOSPACE of 3")
		off := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 3, Alarm: pb.AlarmType_NOSPACE}
		want(t, "taken back", list(t, a, off), "NOSPACE of 3")
		pass()
		want(t, "still above", list(t, a, &pb.AlarmRequest{}), "NOSPACE of 3")
		used.Store(50)
		pass()
		want(t, "below", list(t, a, &pb.AlarmRequest{}), "NOSPACE of 3")
		if a.Admit(true) != rpctypes.ErrGRPCNoSpace {
			t.Error("a put was taken while there is an alarm")
		}
		list(t, a, off)
		pass()
		want(t, "below, and taken back", list(t, a, &pb.AlarmRequest{}), "")
		if err := a.Admit(true); err != nil {
			t.Error(err)
		}
	})
}

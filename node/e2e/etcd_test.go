package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The same session as with etcdctl (.ci/session), through etcd's Go client, against each of the three nodes: whichever
// node is asked, the answers are those of one store that counts revisions as etcd does.
func TestEtcdClient(t *testing.T) {
	c := startCluster(t, 3)
	for i, p := range c.procs {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			s := &session{T: t, ctx: ctx, cl: c.client(p.addr), prefix: fmt.Sprintf("node%d/", i)}
			s.putGetDelete()
			s.ranges()
			s.pastRevisions()
			s.transactions()
			s.refusals()
			s.maintenance(len(c.procs))
			health(t, ctx, p.addr)
		})
	}
	t.Run("the leader moves", func(t *testing.T) { moveLeader(t, c) })
}

// moveLeader moves the leadership of default once around, as etcdctl move-leader does: the leader's node is asked, and no other.
func moveLeader(t *testing.T, c *cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c.waitReplicated(len(c.procs))
	ids := map[uint64]*clientv3.Client{}
	var leader uint64
	for _, p := range c.procs {
		cl := c.client(p.addr)
		st, err := cl.Status(ctx, p.addr)
		if err != nil {
			t.Fatal(err)
		}
		ids[st.Header.MemberId], leader = cl, st.Leader
	}
	for id, cl := range ids {
		if id == leader {
			continue
		}
		if _, err := cl.MoveLeader(ctx, id); !errors.Is(err, rpctypes.ErrNotLeader) {
			t.Errorf("a node that does not lead: %v", err)
		}
		if _, err := ids[leader].MoveLeader(ctx, 99); !errors.Is(err, rpctypes.ErrBadLeaderTransferee) {
			t.Errorf("to nobody: %v", err)
		}
		if _, err := ids[leader].MoveLeader(ctx, id); err != nil {
			t.Fatal(err)
		}
		leader = id
		c.eventually(10*time.Second, func() error {
			st, err := cl.Status(ctx, cl.Endpoints()[0])
			if err == nil && st.Leader != id {
				err = fmt.Errorf("%d leads, not %d", st.Leader, id)
			}
			return err
		})
	}
}

type session struct {
	*testing.T
	ctx    context.Context
	cl     *clientv3.Client
	prefix string
}

func (s *session) key(k string) string { return s.prefix + k }

func (s *session) put(k, v string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	s.Helper()
	r, err := s.cl.Put(s.ctx, s.key(k), v, opts...)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *session) get(k string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	s.Helper()
	r, err := s.cl.Get(s.ctx, s.key(k), opts...)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// keys are the keys of a response without the session's prefix.
func (s *session) keys(r *clientv3.GetResponse) string {
	var out []string
	for _, kv := range r.Kvs {
		out = append(out, strings.TrimPrefix(string(kv.Key), s.prefix))
	}
	return strings.Join(out, " ")
}

func (s *session) want(what string, got, want any) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: %v, want %v", what, got, want)
	}
}

// row is values with a space between each two.
func row(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }

func (s *session) putGetDelete() {
	first := s.put("a", "1").Header.Revision
	second := s.put("a", "2", clientv3.WithPrevKV())
	s.want("revisions count by one", second.Header.Revision, first+1)
	s.want("previous value", string(second.PrevKv.Value), "1")
	kv := s.get("a").Kvs[0]
	s.want("value and versions", row(string(kv.Value), kv.CreateRevision-first, kv.ModRevision-first, kv.Version), "2 0 1 2")
	s.put("a", "", clientv3.WithIgnoreValue())
	s.want("ignore_value keeps it", string(s.get("a").Kvs[0].Value), "2")
	d, err := s.cl.Delete(s.ctx, s.key("a"), clientv3.WithPrevKV())
	if err != nil {
		s.Fatal(err)
	}
	s.want("deleted", row(d.Deleted, string(d.PrevKvs[0].Value)), "1 2")
	s.want("gone", s.get("a").Count, 0)
	again, err := s.cl.Delete(s.ctx, s.key("a"))
	if err != nil {
		s.Fatal(err)
	}
	s.want("a delete of nothing takes no revision", again.Header.Revision, d.Header.Revision)
	s.put("a", "3")
	s.want("a new life begins at version 1", s.get("a").Kvs[0].Version, 1)
}

func (s *session) ranges() {
	for i, k := range []string{"r/e", "r/c", "r/a", "r/d", "r/b"} {
		s.put(k, fmt.Sprint(i))
	}
	all := s.get("r/", clientv3.WithPrefix())
	s.want("prefix, in order", s.keys(all), "r/a r/b r/c r/d r/e")
	page := s.get("r/", clientv3.WithPrefix(), clientv3.WithLimit(2))
	s.want("limit", row(s.keys(page), page.More, page.Count), "r/a r/b true 5")
	s.want("range end is exclusive", s.keys(s.get("r/b", clientv3.WithRange(s.key("r/d")))), "r/b r/c")
	s.want("descending by revision", s.keys(s.get("r/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))),
		"r/b r/d r/a r/c r/e")
	s.want("by value", s.keys(s.get("r/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend))),
		"r/e r/c r/a r/d r/b")
	only := s.get("r/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	s.want("count only", row(only.Count, len(only.Kvs)), "5 0")
	s.want("keys only", len(s.get("r/", clientv3.WithPrefix(), clientv3.WithKeysOnly()).Kvs[0].Value), 0)
	mid := all.Kvs[0].ModRevision
	s.want("min mod revision", s.keys(s.get("r/", clientv3.WithPrefix(), clientv3.WithMinModRev(mid))), "r/a r/b r/d")
	s.want("max create revision", s.keys(s.get("r/", clientv3.WithPrefix(), clientv3.WithMaxCreateRev(mid))), "r/a r/c r/e")
	s.want("serializable sees a write of this node's own client", s.get("r/a", clientv3.WithSerializable()).Kvs != nil, true)
	d, err := s.cl.Delete(s.ctx, s.key("r/"), clientv3.WithPrefix())
	if err != nil {
		s.Fatal(err)
	}
	s.want("a prefix deleted", d.Deleted, 5)
}

func (s *session) pastRevisions() {
	first := s.put("p", "old").Header.Revision
	s.put("p", "new")
	s.want("past revision", string(s.get("p", clientv3.WithRev(first)).Kvs[0].Value), "old")
	_, err := s.cl.Get(s.ctx, s.key("p"), clientv3.WithRev(first+1000000))
	s.want("future revision", err, rpctypes.ErrFutureRev)
	now := s.get("p").Header.Revision
	if _, err := s.cl.Compact(s.ctx, now); err != nil {
		s.Fatal(err)
	}
	_, err = s.cl.Get(s.ctx, s.key("p"), clientv3.WithRev(first))
	s.want("compacted revision", err, rpctypes.ErrCompacted)
	_, err = s.cl.Compact(s.ctx, first)
	s.want("compacting what is compacted", err, rpctypes.ErrCompacted)
	_, err = s.cl.Compact(s.ctx, now+1000000)
	s.want("compacting the future", err, rpctypes.ErrFutureRev)
	s.want("the newest stays", string(s.get("p").Kvs[0].Value), "new")
}

func (s *session) transactions() {
	k := s.key("t")
	s.put("t", "1")
	s.put("t2", "x")
	txn := func(cmps []clientv3.Cmp, then, otherwise []clientv3.Op) *clientv3.TxnResponse {
		s.Helper()
		r, err := s.cl.Txn(s.ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
		if err != nil {
			s.Fatal(err)
		}
		return r
	}
	r := txn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(k), "=", "1"), clientv3.Compare(clientv3.Version(k), "=", 1)},
		[]clientv3.Op{clientv3.OpPut(k, "2"), clientv3.OpGet(k)}, nil)
	s.want("the transaction sees its own write", row(r.Succeeded, string(r.Responses[1].GetResponseRange().Kvs[0].Value)), "true 2")
	rev := s.get("t").Kvs[0].ModRevision
	s.want("its writes have its revision", rev, r.Header.Revision)
	for i, cmp := range []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(k), "=", rev), clientv3.Compare(clientv3.CreateRevision(k), "<", rev),
		clientv3.Compare(clientv3.CreateRevision(s.key("absent")), "=", 0), clientv3.Compare(clientv3.LeaseValue(k), "=", 0),
		clientv3.Compare(clientv3.Value(k), "!=", "1"), clientv3.Compare(clientv3.Value(k), ">", "1"),
		clientv3.Compare(clientv3.Version(k), ">", 0).WithPrefix(),
	} {
		s.want(fmt.Sprint("comparison ", i), txn([]clientv3.Cmp{cmp}, nil, nil).Succeeded, true)
	}
	r = txn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(k), "=", "wrong")}, []clientv3.Op{clientv3.OpPut(k, "3")},
		[]clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(k), "=", "2")},
			[]clientv3.Op{clientv3.OpDelete(k, clientv3.WithPrevKV())}, nil)})
	nested := r.Responses[0].GetResponseTxn()
	s.want("the other way, nested", row(r.Succeeded, nested.Succeeded, nested.Responses[0].GetResponseDeleteRange().Deleted), "false true 1")
	before := s.get("t2").Header.Revision
	txn(nil, []clientv3.Op{clientv3.OpGet(k)}, nil)
	s.want("a transaction that reads takes no revision", s.get("t2").Header.Revision, before)
	var many []clientv3.Op
	for i := range 128 {
		many = append(many, clientv3.OpPut(s.key(fmt.Sprintf("many/%03d", i)), "v"))
	}
	txn(nil, many, nil)
	s.want("128 puts, one revision", s.get("many/", clientv3.WithPrefix(), clientv3.WithMinModRev(before+1), clientv3.WithMaxModRev(before+1)).Count, 128)
	_, err := s.cl.Txn(s.ctx).Then(append(many, clientv3.OpPut(s.key("one more"), "v"))...).Commit()
	s.want("129 operations", err, rpctypes.ErrTooManyOps)
	_, err = s.cl.Txn(s.ctx).Then(clientv3.OpPut(k, "1"), clientv3.OpPut(k, "2")).Commit()
	s.want("a key twice", err, rpctypes.ErrDuplicateKey)
}

func (s *session) refusals() {
	_, err := s.cl.Put(s.ctx, "", "v")
	s.want("empty key", err, rpctypes.ErrEmptyKey)
	_, err = s.cl.Put(s.ctx, s.key("absent"), "", clientv3.WithIgnoreValue())
	s.want("ignore_value without a value", err, rpctypes.ErrKeyNotFound)
	_, err = s.cl.Put(s.ctx, s.key("l"), "v", clientv3.WithLease(99))
	s.want("a lease that is not there", err, rpctypes.ErrLeaseNotFound)
	_, err = s.cl.Put(s.ctx, s.key("big"), strings.Repeat("x", 1536*1024+1))
	s.want("a request too large", err, rpctypes.ErrRequestTooLarge)
	_, err = s.cl.UserAdd(s.ctx, "somebody", "secret")
	s.want("what is not there yet", grpcstatus.Code(unwrap(err)), codes.Unimplemented)
}

func unwrap(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func (s *session) maintenance(nodes int) {
	members, err := s.cl.MemberList(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.want("members", len(members.Members), nodes)
	st, err := s.cl.Status(s.ctx, s.cl.Endpoints()[0])
	if err != nil {
		s.Fatal(err)
	}
	if st.Leader == 0 || st.RaftTerm == 0 || st.RaftIndex == 0 || st.DbSize == 0 || st.Header.Revision == 0 {
		s.Errorf("status is not truthful: %v", st)
	}
	known := false
	for _, m := range members.Members {
		known = known || m.ID == st.Leader && len(m.ClientURLs) > 0
	}
	s.want("the leader is a member with an address", known, true)
	s.hashKV()
	if _, err := s.cl.Defragment(s.ctx, s.cl.Endpoints()[0]); err != nil {
		s.Error(err)
	}
	alarms, err := s.cl.AlarmList(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.want("alarms", len(alarms.Alarms), 0)
}

// hashKV: all members answer with one hash, at any revision that is kept.
func (s *session) hashKV() {
	rev := s.put("h", "1").Header.Revision
	s.put("h", "2")
	members, err := s.cl.MemberList(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	hashes := map[string]bool{}
	for _, m := range members.Members {
		h, err := s.cl.HashKV(s.ctx, m.ClientURLs[0], rev)
		if err != nil {
			s.Fatal(err)
		}
		s.want("who hashed, and at which revision", row(h.Header.MemberId, h.HashRevision), row(m.ID, rev))
		hashes[row(h.Hash, h.CompactRevision)] = true
	}
	s.want("different hashes", len(hashes), 1)
	now, err := s.cl.HashKV(s.ctx, s.cl.Endpoints()[0], 0)
	if err != nil {
		s.Fatal(err)
	}
	s.want("the newest has another", hashes[row(now.Hash, now.CompactRevision)], false)
	_, err = s.cl.HashKV(s.ctx, s.cl.Endpoints()[0], now.Header.Revision+1000000)
	s.want("a future revision", err, rpctypes.ErrFutureRev)
	_, err = s.cl.HashKV(s.ctx, s.cl.Endpoints()[0], now.CompactRevision-1)
	s.want("a compacted revision", err, rpctypes.ErrCompacted)
}

func health(t *testing.T, ctx context.Context, addr string) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/client"
	"github.com/cairndb/cairn/internal/base"
)

// TestWatchLosesWhatItWatches: the keyspace is dropped; or there is no leader any more, which those are told that want to be.
func TestWatchLosesWhatItWatches(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.waitReady()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	t.Run("dropped", func(t *testing.T) { droppedKeyspace(t, ctx, c) })
	t.Run("no leader", func(t *testing.T) { noLeader(t, ctx, c) })
}

// droppedKeyspace: the watches of a keyspace that is dropped end through every node, and say why; a stream of what is no more is refused.
func droppedKeyspace(t *testing.T, ctx context.Context, c *cluster) {
	c.sharded("doomed", "m")
	c.sharded("kept")
	doomed := withKeyspace(ctx, "doomed")
	var all []*watched
	var raw []*rawWatch
	for _, p := range c.procs {
		one := &watched{t, c.client(p.addr).Watch(doomed, "a", clientv3.WithCreatedNotify())}
		whole := &watched{t, c.client(p.addr).Watch(doomed, "", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())}
		all = append(all, one, whole)
		w := openRaw(t, doomed, dialRaw(t, p.addr))
		w.create(&pb.WatchCreateRequest{Key: []byte("z")})
		if r := w.next(); !r.Created || r.Canceled {
			t.Fatalf("%v", r)
		}
		raw = append(raw, w)
	}
	for _, w := range all {
		w.created()
	}
	kept := &watched{t, c.client().Watch(withKeyspace(ctx, "kept"), "a", clientv3.WithCreatedNotify())}
	kept.created()
	if _, err := c.client().Put(doomed, "a", "1"); err != nil {
		t.Fatal(err)
	}
	own, kv := make(chan error, 2), c.goClient().Keyspace("doomed") // of Cairn's client: an update, and the end
	go func() {
		for _, err := range kv.Watch(ctx, client.WatchOptions{Span: client.All(), From: 1}) {
			own <- err
		}
	}()
	if err := <-own; err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		w.want("before the end", "put a=1")
	}
	c.cairn("keyspace", "drop", "doomed", "--yes-delete-all-of", "doomed")
	const why = "the keyspace was dropped"
	for i, w := range all {
		if r := w.next(); !r.Canceled || r.Err() == nil || !strings.Contains(r.Err().Error(), why) || len(r.Events) > 0 {
			t.Errorf("watch %d: %+v, %v", i, r, r.Err())
		}
	}
	var none *client.NoKeyspace // it was about to go on
	if err := <-own; err == nil || !strings.Contains(err.Error(), why) && !errors.As(err, &none) {
		t.Errorf("Cairn's client: %v", err)
	}
	for _, w := range raw {
		if r, err := w.stream.Recv(); grpcstatus.Code(err) != codes.NotFound || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, %v", r, err)
		}
	}
	for _, p := range c.procs {
		w := openRaw(t, doomed, dialRaw(t, p.addr))
		_ = w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}) // it may be over
		r, err := w.stream.Recv()
		known := err != nil && strings.Contains(err.Error(), why) // the node remembers names for a moment
		if grpcstatus.Code(err) != codes.NotFound || !known && !strings.Contains(err.Error(), "no keyspace doomed") {
			t.Errorf("a stream of what is no more, through %s: %v, %v", p.name, r, err)
		}
	}
	if _, err := c.client().Put(withKeyspace(ctx, "kept"), "a", "2"); err != nil {
		t.Fatal(err)
	}
	kept.want("of another keyspace", "put a=2")
}

// noLeader: on a node that has had no leader for three elections streams that want one end with that, as with etcd; others go on when
// there is one again, and have missed nothing.
func noLeader(t *testing.T, ctx context.Context, c *cluster) {
	p := c.procs[0]
	cl := c.client(p.addr)
	wants := clientv3.WithRequireLeader(ctx)
	led := func(keys ...string) (out []*watched) {
		t.Helper()
		eventually(t, 20*time.Second, func() (err error) { // while leaders change hands there is none for a moment, and a new stream is refused
			out = nil
			for _, key := range keys {
				out = append(out, &watched{t, cl.Watch(wants, key, clientv3.WithCreatedNotify())})
			}
			for _, w := range out {
				r := w.next()
				err = errors.Join(err, r.Err())
			}
			return err
		})
		return out
	}
	told := led("a", "b", "c") // of one stream
	patient := &watched{t, cl.Watch(ctx, "a", clientv3.WithCreatedNotify())}
	patient.created()
	if _, err := cl.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	told[0].want("with a leader", "put a=1")
	patient.want("with a leader", "put a=1")
	began := time.Now()
	c.procs[1].kill()
	c.procs[2].kill()
	for i, w := range told {
		if r := w.next(); !r.Canceled || !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
			t.Errorf("watch %d: %+v, %v", i, r, r.Err())
		}
		if r, ok := <-w.ch; ok {
			t.Errorf("watch %d goes on: %+v", i, r)
		}
	}
	// One election at least until the leader is missed, and missed three times, the first of these at once.
	const election = base.ElectionTicks * base.TickInterval
	if after := time.Since(began); after < (base.WatchLeaderless-1)*election {
		t.Errorf("told after %s, before three elections can have failed", after)
	}
	refused := &watched{t, cl.Watch(wants, "a")}
	if r := refused.next(); !r.Canceled || !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
		t.Errorf("a watch that wants a leader, where there is none: %+v, %v", r, r.Err())
	}
	select {
	case r, ok := <-patient.ch:
		t.Errorf("who does not ask is told: %+v, %v", r, ok)
	default:
	}
	c.procs[1].start()
	c.procs[2].start()
	other := c.client(c.procs[1].addr)
	eventually(t, 60*time.Second, func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := other.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpPut("a", "2")).Commit()
		return err
	})
	patient.want("with a leader again", "put a=2")
	again := led("a")[0]
	if _, err := cl.Put(ctx, "a", "3"); err != nil {
		t.Fatal(err)
	}
	again.want("with a leader again", "put a=3")
	patient.want("with a leader again", "put a=3")
}

// TestWatchServedElsewhere: of five nodes each serves a watch of one range, and each that has a replica of it loses that while
// the watch goes on: nothing is lost and nothing comes twice.
func TestWatchServedElsewhere(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 5)
	c.waitReady()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c.sharded("wanders")
	ctx = withKeyspace(ctx, "wanders")
	rs, err := c.verb("range", "ls", "--keyspace", "wanders")
	if err != nil || len(rs) != 1 {
		t.Fatalf("%v, %v", rs, err)
	}
	id := rs[0].ID
	holders := func() (out map[uint64]bool) {
		c.eventually(30*time.Second, func() error {
			s, err := c.status(c.procs[0])
			if err != nil {
				return err
			}
			out = map[uint64]bool{}
			for _, r := range s.Ranges {
				for _, rep := range r.Replicas {
					if r.ID == id {
						out[rep.Node] = true
					}
				}
			}
			if len(out) != 3 {
				return fmt.Errorf("%d replicas", len(out))
			}
			return nil
		})
		return out
	}
	var follows []*follow
	for _, p := range c.procs {
		f := &follow{watched: &watched{t, c.client(p.addr).Watch(ctx, "f/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())}}
		f.created()
		follows = append(follows, f)
	}
	put, end := context.WithCancel(ctx)
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		cl := c.client()
		for tick := time.NewTicker(2 * time.Millisecond); ; n++ {
			key := fmt.Sprintf("f/%d/%06d", n%10, n)
			for done := false; !done; { // what failed may have been done: each value has its key, and is put once
				select {
				case <-tick.C:
				case <-put.Done():
					tick.Stop()
					return
				}
				_, err := cl.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, fmt.Sprint(n))).Commit()
				done = err == nil
			}
		}
	})
	lost := map[uint64]bool{}
	for round := 0; round < 4 && len(lost) < len(c.procs); round++ {
		before := holders()
		to := map[string]bool{} // those that have none, and of those that have one the one that has lost one before
		for node := range uint64(len(c.procs)) {
			if node++; !before[node] {
				to[fmt.Sprintf("n%d", node)] = true
			}
		}
		for _, again := range []bool{true, false} {
			for node := range before {
				if len(to) < 3 && lost[node] == again {
					to[fmt.Sprintf("n%d", node)] = true
				}
			}
		}
		nodes := make([]string, 0, len(to))
		for name := range to {
			nodes = append(nodes, name)
		}
		c.want(c.procs[0], "range", "move", "--range", fmt.Sprintf("r%d", id), "--to", strings.Join(nodes, ","), "--wait")
		for node := range before {
			if !to[fmt.Sprintf("n%d", node)] {
				lost[node] = true
			}
		}
	}
	if len(lost) != len(c.procs) {
		t.Errorf("only %v have lost a replica", lost)
	}
	end()
	wg.Wait()
	if n == 0 {
		t.Error("nothing was written")
	}
	for _, f := range follows {
		f.upTo(n)
	}
	t.Logf("%d events through each of %d nodes", n, len(follows))
}

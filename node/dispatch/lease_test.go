package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// homed is a lease's id whose home is the range that begins with a digit.
func homed(digit byte, n int64) int64 { return int64('0'+digit)<<56 | n }

func (w *world) grant(d *Dispatcher, id, ttl int64) {
	w.t.Helper()
	_, err := d.GrantLease(w.ctx(), sharded, id, ttl)
	must(w.t, err)
}

func (w *world) putLeased(d *Dispatcher, key string, id int64) error {
	_, err := d.Propose(w.ctx(), sharded, []byte(key), &kvpb.Command{Body: &kvpb.Command_Put{
		Put: encode(w.t, &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: id})}})
	return err
}

// keys are those that are there, as a snapshot of the keyspace shows them.
func (w *world) keys(d *Dispatcher) (out []string) {
	w.t.Helper()
	resp, err := d.Range(w.ctx(), sharded, all)
	must(w.t, err)
	for _, kv := range resp.Kvs {
		out = append(out, string(kv.Key))
	}
	return out
}

func isNoLease(err error) bool {
	return status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCLeaseNotFound).Message()
}

// A lease holds keys in ranges where it does not live, and all of them go with it.
func TestLeaseOverRanges(t *testing.T) {
	w := newSharded(t, 3, 4)
	id, d := homed(1, 7), w.nodes[3]
	w.grant(w.nodes[1], id, 60)
	for _, key := range []string{"0a", "1a", "1b", "3a"} {
		must(t, w.putLeased(d, key, id))
	}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("2a"), Lease: id}}}},
	}}}}}
	_, err := d.Propose(w.ctx(), sharded, []byte("2a"), &kvpb.Command{Body: &kvpb.Command_Txn{Txn: encode(t, txn)}})
	must(t, err)
	w.put(d, "2b", "nobody's")

	a, err := d.TimeToLive(w.ctx(), sharded, id)
	if err != nil || a.RemainingSeconds < 50 || len(a.Lease.GetSpans()) == 0 {
		t.Fatalf("%v, %v", a, err)
	}
	held, err := w.nodes[2].LeaseKeys(w.ctx(), sharded, a.Lease)
	if want := []string{"0a", "1a", "1b", "2a", "3a"}; err != nil || fmt.Sprintf("%s", held) != fmt.Sprint(want) {
		t.Errorf("it holds %s, %v; want %s", held, err, want)
	}
	if _, err := w.nodes[2].RevokeLease(w.ctx(), sharded, id); err != nil {
		t.Fatal(err)
	}
	if got := w.keys(d); !slices.Equal(got, []string{"2b"}) {
		t.Errorf("after it was revoked: %s", got)
	}
	for _, key := range []string{"0a", "1a", "2a", "3a"} {
		if err := w.putLeased(d, key, id); !isNoLease(err) {
			t.Errorf("%s with a lease that is gone: %v", key, err)
		}
	}
	if _, err := d.RevokeLease(w.ctx(), sharded, id); !isNoLease(err) {
		t.Errorf("revoked twice: %v", err)
	}
	// Another one of that id is another one.
	w.grant(d, id, 60)
	must(t, w.putLeased(d, "3z", id))
	if got := w.keys(d); !slices.Equal(got, []string{"2b", "3z"}) {
		t.Errorf("granted again: %s", got)
	}
}

// Many leases of many callers are kept alive with few questions and without an entry in a log. Half of the homes are led by the node that is
// asked: it answers at once.
func TestKeepAlivesAreGathered(t *testing.T) {
	const n = 2000
	w := newSharded(t, 2, 2)
	for i := range int64(n) {
		w.grant(w.nodes[2], homed(byte(i%2), i), 60)
	}
	applied := func() (out [2]uint64) {
		for i := range out {
			out[i] = w.nodes[base.NodeID(1+i)].cfg.Store.View(base.RangeID(100 + i)).AppliedIndex
		}
		return out
	}
	before, asked := applied(), w.requests(rangepb.RequestKind_REQUEST_KIND_LEASE)
	w.loseFirstQuestion() // so that all others gather behind it
	var wg sync.WaitGroup
	for i := range int64(n) {
		wg.Go(func() {
			ids := []int64{homed(0, i), homed(1, i)} // one of the two is there
			kept, err := w.nodes[2].KeepAlive(w.ctx(), sharded, ids)
			if err != nil || kept[i%2].TTL != 60 || kept[1-i%2].TTL != 0 {
				t.Errorf("lease %d: %v, %v", i, kept, err)
			}
		})
	}
	<-w.lost
	w.gathered(w.nodes[2], n-1)
	w.nodes[2].PeerDown(1, errors.New("cut"))
	wg.Wait()
	if after := applied(); after != before {
		t.Errorf("keep-alives went into logs: %v, then %v", before, after)
	}
	if asked = w.requests(rangepb.RequestKind_REQUEST_KIND_LEASE) - asked; asked == 0 || asked > 3 {
		t.Errorf("%d questions for %d callers", asked, n)
	}
	if c := w.lessors[1].Counts(); c.Leases != n/2 || c.Kept != n/2 {
		t.Errorf("the leader of half of them counts %+v", c)
	}
}

// loseFirstQuestion loses the first question of leases that is asked from now on.
func (w *world) loseFirstQuestion() {
	lost := false
	w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool {
		for _, q := range f.GetRequests().GetRequests() {
			if q.Kind == rangepb.RequestKind_REQUEST_KIND_LEASE && !lost {
				lost = true
				return true
			}
		}
		return false
	})
}

// gathered waits until so many keep-alives wait for the next question to the first range.
func (w *world) gathered(d *Dispatcher, n int) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := w.ctx(); ; {
		d.keepers.mu.Lock()
		q := d.keepers.queues[queueKey{ks: sharded, rng: 100}]
		waiting := 0
		if q != nil {
			waiting = len(*q)
		}
		d.keepers.mu.Unlock()
		if waiting == n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%d wait, want %d", waiting, n)
		}
	}
}

// A keep-alive whose answer is lost with its node's connection is asked again.
func TestKeepAliveIsAskedAgain(t *testing.T) {
	w := newSharded(t, 2, 1)
	w.grant(w.nodes[1], 7, 60)
	w.loseFirstQuestion()
	go func() {
		w.nodes[2].PeerDown(<-w.lost, errors.New("cut"))
	}()
	kept, err := w.nodes[2].KeepAlive(w.ctx(), sharded, []int64{7})
	if err != nil || kept[0].TTL != 60 {
		t.Errorf("%v, %v", kept, err)
	}
}

// A lease that nobody keeps alive ends after its TTL, with its keys in all ranges.
func TestLeaseOverRangesEndsByItself(t *testing.T) {
	w := newSharded(t, 3, 3)
	id := homed(1, 9)
	began := time.Now()
	w.grant(w.nodes[1], id, base.LeaseMinTTL)
	for _, key := range []string{"0a", "1a", "2a"} {
		must(t, w.putLeased(w.nodes[1], key, id))
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx := w.ctx()
	for len(w.keys(w.nodes[1])) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s are there", w.keys(w.nodes[1]))
		}
	}
	took := time.Since(began)
	t.Logf("ended after %s", took)
	if took < base.LeaseMinTTL*time.Second {
		t.Errorf("it ended after %s", took)
	}
	if c := w.lessors[2].Counts(); c.Expired != 1 || c.Leases > 1 {
		t.Errorf("the leader of its home counts %+v", c)
	}
}

// A lease whose time is over is ending as long as a key of it can be read, in whichever range; then it is gone. It holds up no other lease,
// and for all that wait there is one question at a time.
func TestKeepAliveIsAnsweredWhenTheKeysAreGone(t *testing.T) {
	w := newSharded(t, 3, 3)
	over, alive, d := homed(1, 9), homed(1, 10), w.nodes[1]
	w.grant(d, over, base.LeaseMinTTL)
	w.grant(d, alive, 60)
	for _, key := range []string{"0a", "1a", "2a"} {
		must(t, w.putLeased(d, key, over))
	}
	var held atomic.Bool
	held.Store(true)
	w.loseFrames(func(to base.NodeID, f *rangepb.ControlFrame) bool { // no range is told to let the keys go
		if !held.Load() {
			return false
		}
		for _, q := range f.GetRequests().GetRequests() {
			cmd := &kvpb.Command{}
			if q.Kind == rangepb.RequestKind_REQUEST_KIND_PROPOSE && proto.Unmarshal(q.Body, cmd) == nil && cmd.GetLeaseEvict() != nil {
				return true
			}
		}
		return false
	})
	to := <-w.lost // its time is over, and its home has begun to end it
	kept, err := d.KeepAlive(w.ctx(), sharded, []int64{over, alive})
	if err != nil || !kept[0].Ending || kept[0].TTL != 0 || kept[1].Ending || kept[1].TTL != 60 {
		t.Fatalf("%+v, %v", kept, err)
	}
	if got := w.keys(d); len(got) != 3 {
		t.Fatalf("there are %s", got)
	}
	// Who does not wait as long as it takes is told that he did not.
	short, cancel := context.WithTimeout(w.ctx(), base.LeaseAwait/2)
	defer cancel()
	if kept, err := d.AwaitEnd(short, sharded, over); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", kept, err)
	}
	const waiters = 50
	asked := w.requests(rangepb.RequestKind_REQUEST_KIND_LEASE)
	var wg sync.WaitGroup
	for i := range waiters {
		wg.Go(func() {
			kept, err := w.nodes[1+2*base.NodeID(i%2)].AwaitEnd(w.ctx(), sharded, over) // not the home's
			if err != nil || kept.TTL != 0 || kept.Ending {
				t.Errorf("%+v, %v", kept, err)
			}
			if held.Load() {
				t.Error("it is gone, and no range was told")
			}
			if got := w.keys(d); len(got) != 0 {
				t.Errorf("it is gone, and there are %s", got)
			}
		})
	}
	began := time.Now()
	<-time.NewTimer(2 * base.LeaseAwait).C // in which nobody may be told
	if n, most := w.requests(rangepb.RequestKind_REQUEST_KIND_LEASE)-asked, 2*int(2+time.Since(began)/base.LeaseAwait); n > most {
		t.Errorf("%d questions of two nodes, want %d at most", n, most)
	}
	held.Store(false)
	w.nodes[2].PeerDown(to, errors.New("cut"))
	wg.Wait()
	for _, d := range w.nodes {
		w.noQueues(d)
	}
}

// noQueues waits until a node asks for nobody's leases any more.
func (w *world) noQueues(d *Dispatcher) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := w.ctx(); ; {
		d.keepers.mu.Lock()
		n := len(d.keepers.queues)
		d.keepers.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%d queues are left", n)
		}
	}
}

// What a revoker leaves behind that dies between any two steps is ended by the leader of the home; no key of the lease stays, and none
// can be written.
func TestRevokerDiesBetweenAnyTwoSteps(t *testing.T) {
	for step := range 5 {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel() // what was left is carried on with after base.LeaseEndingPatience
			w := newSharded(t, 3, 3)
			id := homed(1, 9)
			w.grant(w.nodes[1], id, 3600)
			for _, key := range []string{"0a", "1a", "2a"} {
				must(t, w.putLeased(w.nodes[1], key, id))
			}
			revoker, cancel := context.WithCancel(w.ctx())
			defer cancel()
			left := step
			w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool {
				for _, q := range f.GetRequests().GetRequests() {
					if q.Kind != rangepb.RequestKind_REQUEST_KIND_PROPOSE {
						continue
					}
					cmd := &kvpb.Command{}
					_ = proto.Unmarshal(q.Body, cmd)
					if cmd.GetLeaseRevoke() == nil && cmd.GetLeaseEvict() == nil {
						continue
					}
					if left--; left < 0 {
						w.lose = nil // the others go through: its home's leader is another node
						cancel()
						return true
					}
				}
				return false
			})
			_, err := w.nodes[3].RevokeLease(revoker, sharded, id)
			if step == 0 {
				if err == nil {
					t.Fatal("nothing of it was carried out, and it says that all was")
				}
				if got := w.keys(w.nodes[1]); len(got) != 3 {
					t.Errorf("nothing was carried out, and there are %s", got)
				}
				return
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for limit := w.ctx(); len(w.keys(w.nodes[1])) > 0; {
				select {
				case <-tick.C:
				case <-limit.Done():
					t.Fatalf("%s outlive their lease", w.keys(w.nodes[1]))
				}
			}
			for _, key := range []string{"0b", "1b", "2b"} {
				if err := w.putLeased(w.nodes[2], key, id); !isNoLease(err) {
					t.Errorf("%s: %v", key, err)
				}
			}
			if !slices.Equal(eval.LeaseHome(id)[:1], []byte("1")) {
				t.Fatal("its home is another")
			}
		})
	}
}

// A transaction needs the leases of the way that it goes: that those of the other way are gone does not matter to it.
func TestTransactionNeedsTheLeasesOfItsWay(t *testing.T) {
	w := newSharded(t, 3, 4)
	here, gone, d := homed(1, 7), homed(0, 8), w.nodes[3]
	w.grant(d, here, 60)
	put := func(id int64) []*pb.RequestOp {
		return []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("3a"), Lease: id}}}}
	}
	propose := func(success, failure int64) error {
		txn := &pb.TxnRequest{Success: put(success), Failure: put(failure)}
		_, err := d.Propose(w.ctx(), sharded, []byte("3a"), &kvpb.Command{Body: &kvpb.Command_Txn{Txn: encode(t, txn)}})
		return err
	}
	if err := propose(gone, here); !isNoLease(err) {
		t.Errorf("its way puts with a lease that is not there: %v", err)
	}
	must(t, propose(here, gone))
}

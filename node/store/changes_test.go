package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/watch"
)

// onDisk is a store that is a cluster by itself, on Pebble.
func onDisk(t *testing.T) *Store {
	t.Helper()
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, eng.Close()) })
	id := &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: FormatVersion}
	must(t, Bootstrap(eng, id, &metapb.NodeRecord{NodeId: 1}))
	s := alone(t, eng, 1)
	t.Cleanup(s.Stop)
	return s
}

// A read at a revision that is kept, and changes from one on, are whole, while compactions hide and remove what is older, step by step.
// Each revision of the keyspace is one put of one of ten keys, so what is missing shows.
func TestKeptRevisionsAreWholeUnderCompaction(t *testing.T) {
	const writes, keys = 600, 10
	s := onDisk(t)
	key := func(rev int64) string { return fmt.Sprint("key", rev%keys) }
	var written, mark, reads, pulls atomic.Int64
	const first = 50 // before anybody reads
	for rev := int64(2); rev < first; rev++ {
		put(t, s, key(rev), fmt.Sprint(rev))
	}
	written.Store(first - 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for rev := int64(first); rev < writes+2; rev++ {
			put(t, s, key(rev), fmt.Sprint(rev))
			written.Store(rev)
			if rev%25 == 0 {
				to := rev - 20
				raw, err := proto.Marshal(&pb.CompactionRequest{Revision: to})
				must(t, err)
				mark.Store(to) // before it is one
				if _, err := command(t, s, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: raw}}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	read := func(at int64) {
		out := &pb.RangeResponse{}
		err := s.Read(base.RangeDefault, &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez"), Revision: at}, out)
		if errors.Is(err, rpctypes.ErrGRPCCompacted) && mark.Load() > at {
			return
		}
		must(t, err)
		for _, kv := range out.Kvs {
			if rev := kv.ModRevision; rev > at || rev <= at-keys || string(kv.Key) != key(rev) || string(kv.Value) != fmt.Sprint(rev) {
				t.Errorf("at %d: %v", at, kv)
			}
		}
		if len(out.Kvs) != int(min(keys, at-1)) {
			t.Errorf("at %d there are %d keys", at, len(out.Kvs))
		}
		reads.Add(1)
	}
	pull := func(from int64, prev bool) {
		resp, err := s.Changes(base.RangeDefault, &rangepb.ChangesRequest{KeyspaceId: uint64(base.KeyspaceDefault), From: from, MostBytes: 20_000, PrevKv: prev})
		must(t, err)
		page, err := watch.DecodePage(resp)
		must(t, err)
		if resp.Compacted > from && mark.Load() > from && len(page.Events) == 0 {
			return
		}
		for i, ev := range page.Events {
			if rev := int64(ev.Revision); rev != from+int64(i) || string(ev.Key) != key(rev) {
				t.Errorf("from %d on: %q at %d is number %d", from, ev.Key, rev, i)
			}
			if prev && int64(ev.Revision) > max(resp.Compacted, keys+1) != (ev.WithPrev != nil) {
				t.Errorf("%q at %d, compacted at %d: %x", ev.Key, ev.Revision, resp.Compacted, ev.WithPrev)
			}
		}
		if resp.Next != from+int64(len(page.Events)) || resp.Next < min(from+10, resp.Revision+1) {
			t.Errorf("from %d up to %d: %d events", from, resp.Next, len(page.Events))
		}
		pulls.Add(1)
	}
	for i := range 2 {
		wg.Go(func() {
			r := base.NewRand(uint64(i))
			for written.Load() < writes+1 && !t.Failed() {
				at := written.Load() - r.Int63n(30)
				if i == 0 {
					read(at)
				} else {
					pull(at, true)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d reads and %d pages at revisions that are kept", reads.Load(), pulls.Load())
	if reads.Load() < 100 || pulls.Load() < 100 {
		t.Error("hardly anything was read")
	}
}

// Who waits for a range is told when it has come there, when its replica has ended, when its time is over, and when the store stops.
func TestAwait(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	at := int64(n.s.View(leftRange).Counters.Revision)
	ended := func(id base.RangeID, from, known int64, deadline base.Instant) *error {
		end := new(error)
		*end = errors.New("it waits")
		req := &rangepb.ChangesRequest{From: from, Known: known}
		if v := n.s.View(id); v != nil { // of all that it holds: a part of the span is an answer at once
			req.KeyspaceId, req.Start, req.End = v.Descriptor.KeyspaceId, v.Descriptor.Start, v.Descriptor.End
		}
		n.s.Await(id, req, deadline, func(_ proto.Message, err error) { *end = err })
		return end
	}
	waits := func(end *error) bool { return *end != nil && (*end).Error() == "it waits" }
	if end := ended(leftRange, at, 0, base.Never); waits(end) {
		t.Error("it waits for what is there")
	}
	if end := ended(leftRange, at+100, at-1, base.Never); waits(end) {
		t.Error("it waits for more than it knows of")
	}
	if end := ended(rightRange, 1, 0, base.Never); waits(end) {
		t.Error("it waits for a range that is not here")
	}
	next, far := ended(leftRange, at+1, at, base.Never), ended(leftRange, 1<<60, 0, n.now.Add(time.Second))
	if !waits(next) || !waits(far) {
		t.Fatal("it does not wait")
	}
	must(t, n.propose(leftRange, putCommand(t, "b")))
	if waits(next) || !waits(far) {
		t.Errorf("after a write: %v, %v", *next, *far)
	}
	n.now = n.now.Add(2 * time.Second)
	n.h.Expire()
	if !errors.Is(*far, errDeadline) {
		t.Errorf("its time is over: %v", *far)
	}
	n.split()
	right := ended(rightRange, 1<<60, 0, base.Never)
	n.merge()
	if waits(right) {
		t.Error("it waits at a replica that has ended")
	}
	last := ended(leftRange, 1<<60, 0, base.Never)
	n.s.waiters.stop()
	if !errors.Is(*last, base.ErrStopped) || n.s.polls.n.Load() != 0 || len(n.s.polls.of) != 0 {
		t.Errorf("stopped: %v; %d wait", *last, n.s.polls.n.Load())
	}
}

// A replica that went cold is watched and stays cold: it is told where it stands, and what comes when something does.
func TestEventsOfAColdReplica(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	n.now = n.now.Add(base.ColdAfter + time.Second)
	n.turn()
	r := n.s.replica(leftRange)
	if r.view.Load() != nil {
		t.Skip("it leads, and does not go cold")
	}
	n.l.watch(leftRange, true)
	n.turn()
	if n.l.of[leftRange] == nil || r.view.Load() != nil || r.sm != nil {
		t.Errorf("told %v, warm %v", n.l.of[leftRange], r.sm != nil)
	}
	must(t, n.propose(leftRange, putCommand(t, "b")))
	if n.l.events != 1 {
		t.Errorf("%d events", n.l.events)
	}
}

// What is wanted no more is told no more, and wanted again it is told where it stands; a range that ends is told to have ended.
func TestEventsWanted(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	n.l.watch(leftRange, false)
	n.turn()
	must(t, n.propose(leftRange, putCommand(t, "b")))
	n.s.Watch(watch.Want{Range: leftRange})
	n.turn()
	must(t, n.propose(leftRange, putCommand(t, "c")))
	if n.l.events != 1 {
		t.Errorf("%d events were told, and one was wanted", n.l.events)
	}
	delete(n.l.of, leftRange)
	n.l.watch(leftRange, true)
	n.turn()
	must(t, n.propose(leftRange, putCommand(t, "c")))
	if n.l.events != 2 || n.l.last.Events[0].WithPrev == nil {
		t.Errorf("%d events were told, and two were wanted, the last with the version before", n.l.events)
	}
	n.s.Drop(leftRange)
	n.turn()
	if len(n.l.gone) != 1 {
		t.Errorf("gone are %v", n.l.gone)
	}
}

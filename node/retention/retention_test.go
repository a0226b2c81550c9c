package retention

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/retention"
	"github.com/cairndb/cairn/raftgroup"
)

// world is a node's replicas, and what was compacted of them.
type world struct {
	mu    sync.Mutex
	began time.Time
	views map[base.RangeID]*apply.View
	lead  map[base.RangeID]base.NodeID
	err   error
	did   []string
}

func (w *world) Ranges() []base.RangeID {
	return []base.RangeID{base.RangeSys, base.RangeDefault, 100, 101}
}

func (w *world) State(id base.RangeID) (raftgroup.StateChange, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return raftgroup.StateChange{LeaderNode: w.lead[id]}, w.views[id] != nil
}

func (w *world) View(id base.RangeID) *apply.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.views[id]
}

func (w *world) Now() base.Instant { return base.Instant(time.Since(w.began)) }

func (w *world) compact(_ context.Context, r *metapb.RangeDescriptor, cmd *kvpb.Command) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	req := &pb.CompactionRequest{}
	if err := proto.Unmarshal(cmd.GetCompaction(), req); err != nil {
		return err
	}
	w.did = append(w.did, fmt.Sprintf("%s at %d", base.RangeID(r.RangeId), req.Revision))
	if w.err == nil {
		v := *w.views[base.RangeID(r.RangeId)]
		v.Counters.Compacted = base.Revision(req.Revision)
		w.views[base.RangeID(r.RangeId)] = &v
	}
	return w.err
}

// done is what was compacted since it was asked last.
func (w *world) done() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.did = nil }()
	return strings.Join(w.did, ", ")
}

func newWorld() *world {
	w := &world{began: time.Now(), views: map[base.RangeID]*apply.View{}, lead: map[base.RangeID]base.NodeID{}}
	for id, ks := range map[base.RangeID]base.KeyspaceID{base.RangeSys: base.KeyspaceSys, base.RangeDefault: base.KeyspaceDefault, 100: 100, 101: 101} {
		w.views[id] = &apply.View{
			Descriptor: &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(ks)}, Counters: eval.Counters{Revision: 42, Compacted: -1},
		}
		w.lead[id] = 1
	}
	w.lead[101] = 2
	return w
}

// TestLedRangesAreCompacted: those of clients' keyspaces that this node leads, and again what was refused.
func TestLedRangesAreCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, err := New(Config{
			Policy: retention.Policy{Mode: retention.Periodic, Period: 10 * time.Second}, Node: 1, Store: w, Compact: w.compact,
			Micros: func() int64 { return (time.Hour + time.Since(w.began)).Microseconds() },
		})
		if err != nil {
			t.Fatal(err)
		}
		w.err = errors.New("no leader")
		r.Start()
		defer r.Stop()
		<-time.After(11500 * time.Millisecond) // in the bubble's time
		synctest.Wait()
		if got := w.done(); !strings.Contains(got, "r4 at 42") || !strings.Contains(got, "r100 at 42") || strings.Contains(got, "r3 ") || strings.Contains(got, "r101 ") {
			t.Errorf("asked for %s", got)
		}
		w.mu.Lock()
		w.err = nil
		w.mu.Unlock()
		<-time.After(time.Second) // in the bubble's time
		synctest.Wait()
		if got := w.done(); got != "r4 at 42, r100 at 42" && got != "r100 at 42, r4 at 42" || r.Compacted() != 2 {
			t.Errorf("asked for %s, and %d were done", got, r.Compacted())
		}
		<-time.After(time.Minute) // in the bubble's time
		synctest.Wait()
		if got := w.done(); got != "" {
			t.Errorf("nothing was written, and %s", got)
		}
	})
}

// TestByHandBefore: somebody was faster.
func TestByHandBefore(t *testing.T) {
	w := newWorld()
	w.err = rpctypes.ErrGRPCCompacted
	r, err := New(Config{Policy: retention.Policy{Mode: retention.Revision, Revisions: 10}, Node: 1, Store: w, Compact: w.compact, Micros: func() int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.compact(retention.Decision{ID: base.RangeDefault, Revision: 32}); err != nil || r.Compacted() != 0 {
		t.Errorf("%v, %d", err, r.Compacted())
	}
}

// TestOwnHistoryIsCompacted: what Cairn keeps about itself does not grow for ever, whatever is set for clients; theirs stays as it is.
func TestOwnHistoryIsCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, err := New(Config{Node: 1, Store: w, Compact: w.compact, Micros: func() int64 { return (time.Hour + time.Since(w.began)).Microseconds() }})
		if err != nil {
			t.Fatal(err)
		}
		r.Start()
		defer r.Stop()
		<-time.After(time.Hour - time.Minute) // in the bubble's time
		synctest.Wait()
		if got := w.done(); got != "" {
			t.Errorf("within the hour: %s", got)
		}
		<-time.After(10 * time.Minute) // in the bubble's time
		synctest.Wait()
		if got := w.done(); got != "r3 at 42" || r.Compacted() != 1 {
			t.Errorf("after an hour: %q", got)
		}
		<-time.After(24 * time.Hour) // in the bubble's time
		synctest.Wait()
		if got := w.done(); got != "" {
			t.Errorf("nothing was written, and %s", got)
		}
	})
}

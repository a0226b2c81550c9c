package health

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/node/join"
)

// fenceWorld is a fence, and a cluster that answers its announcements one after the other.
type fenceWorld struct {
	*Fence
	t       *testing.T
	answers chan answer
	kept    uint64 // the epoch that is on disk
	keepErr error
	serving chan bool
	final   chan error
	done    chan struct{}
}

type answer struct {
	record *metapb.NodeRecord
	err    error
}

func newFenceWorld(t *testing.T, epoch uint64) *fenceWorld {
	w := &fenceWorld{
		t: t, answers: make(chan answer), kept: epoch, serving: make(chan bool, 100), final: make(chan error, 100), done: make(chan struct{}),
	}
	w.Fence = NewFence(FenceConfig{
		Node: 3, Epoch: epoch, Logger: slog.New(slog.DiscardHandler),
		Keep: func(epoch uint64) error { w.kept = epoch; return w.keepErr },
		Announce: func(ctx context.Context) (*metapb.NodeRecord, error) {
			select {
			case a := <-w.answers:
				return a.record, a.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Serving: func(ok bool) {
			if ok && w.kept != w.epoch { // Serving is called under the fence's lock
				t.Errorf("it serves under epoch %d, and %d is on disk", w.epoch, w.kept)
			}
			w.serving <- ok
		},
		Final: func(err error) { w.final <- err },
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { w.Run(ctx); close(w.done) }()
	t.Cleanup(func() { cancel(); <-w.done })
	return w
}

func await[T any](t *testing.T, c <-chan T) (x T) {
	t.Helper()
	select {
	case x = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing within 20 s")
	}
	return x
}

func record(state metapb.NodeState, epoch uint64) *metapb.NodeRecord {
	return &metapb.NodeRecord{NodeId: 3, State: state, Epoch: epoch, Reason: "nobody heard it", SinceUnixMicros: 1_700_000_000_000_000}
}

func (w *fenceWorld) says(part string) {
	w.t.Helper()
	if err := w.Check(); err == nil || !strings.Contains(err.Error(), part) {
		w.t.Errorf("it says %v, and not %q", err, part)
	}
}

// TestFence: closed at the start; open when the cluster has taken note; closed by a higher epoch, and by no other record; open again
// under that epoch.
func TestFence(t *testing.T) {
	w := newFenceWorld(t, 2)
	w.says("has just started")
	w.answers <- answer{record: record(active, 2)}
	if !await(t, w.serving) || w.Check() != nil {
		t.Fatalf("announced, and does not serve: %v", w.Check())
	}
	w.Learn(record(suspect, 2))
	w.Learn(record(failed, 1)) // an old copy of the record
	other := record(failed, 9)
	other.NodeId = 4
	w.Learn(other)
	if w.Check() != nil {
		t.Errorf("fenced without a reason: %v", w.Check())
	}

	w.Learn(record(failed, 3))
	if await(t, w.serving) {
		t.Error("held to be failed, and serves")
	}
	w.says("n3 was held to be failed since 2023-11-14T22:13:20Z (nobody heard it); it announces itself again, and serves then")
	w.answers <- answer{record: record(active, 3)}
	if !await(t, w.serving) || w.Epoch() != 3 || w.kept != 3 {
		t.Errorf("announced again: epoch %d, on disk %d, %v", w.Epoch(), w.kept, w.Check())
	}
}

// TestAwaitService: who can wait does until the node serves, whatever keeps it from serving meanwhile; not for one that never will.
func TestAwaitService(t *testing.T) {
	w := newFenceWorld(t, 0)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Await(over); err == nil || !strings.Contains(err.Error(), "has just started") {
		t.Errorf("no longer willing to wait: %v", err)
	}
	served, refused := make(chan error, 2), make(chan error, 1)
	go func() { served <- w.Await(t.Context()) }()
	w.Learn(record(failed, 2))
	go func() { served <- w.Await(t.Context()) }()
	w.answers <- answer{record: record(active, 2)}
	for range 2 {
		if err := await(t, served); err != nil {
			t.Errorf("it serves, and who waited is told %v", err)
		}
	}
	w.Learn(record(failed, 3))
	go func() { refused <- w.Await(t.Context()) }()
	w.Learn(record(metapb.NodeState_NODE_STATE_LEFT, 4))
	if err := await(t, refused); err == nil || !strings.Contains(err.Error(), "n3 was removed") {
		t.Errorf("it never serves again, and who waited is told %v", err)
	}
	if err := w.Await(t.Context()); err == nil {
		t.Error("it never serves again, and somebody is let in")
	}
}

// TestFencedMeanwhile: given up once more while the announcement was on its way, it announces itself once more.
func TestFencedMeanwhile(t *testing.T) {
	w := newFenceWorld(t, 0)
	w.Learn(record(failed, 2))
	w.answers <- answer{record: record(active, 1)}
	w.answers <- answer{record: record(active, 2)}
	for !await(t, w.serving) {
	}
	if w.Epoch() != 2 || w.Check() != nil {
		t.Errorf("epoch %d, %v", w.Epoch(), w.Check())
	}
}

// TestFencedForEver: a node that was removed serves nothing any more, whatever else it hears.
func TestFencedForEver(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*fenceWorld)
	}{
		{"learned", func(w *fenceWorld) { w.Learn(record(metapb.NodeState_NODE_STATE_LEFT, 5)) }},
		{"refused", func(w *fenceWorld) {
			w.answers <- answer{err: join.Ended(record(metapb.NodeState_NODE_STATE_LEFT, 5))}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newFenceWorld(t, 0)
			c.do(w)
			var refused *join.Refused
			if err := await(t, w.final); !errors.As(err, &refused) {
				t.Errorf("it ends with %v", err)
			}
			w.says("n3 was removed from the cluster (nobody heard it): start with an empty store directory")
			w.Learn(record(failed, 6))
			w.Learn(record(metapb.NodeState_NODE_STATE_LEFT, 7))
			w.says("n3 was removed")
			if len(w.final) > 0 {
				t.Error("it ended twice")
			}
		})
	}
}

// TestDoubt: a node that serves and is not answered asks the cluster what it is, and is told.
func TestDoubt(t *testing.T) {
	w := newFenceWorld(t, 0)
	w.answers <- answer{record: record(active, 0)}
	await(t, w.serving)
	w.Doubt()
	w.answers <- answer{record: record(active, 0)}
	w.Doubt()
	if w.Check() != nil || len(w.serving) > 0 {
		t.Errorf("it is a member, and does not serve: %v", w.Check())
	}
	w.answers <- answer{err: join.Ended(record(metapb.NodeState_NODE_STATE_LEFT, 1))}
	await(t, w.final)
	w.says("n3 was removed")
}

// TestEpochNotKept: an epoch that cannot be stored is not served under.
func TestEpochNotKept(t *testing.T) {
	w := newFenceWorld(t, 0)
	w.keepErr = errors.New("the disk is broken")
	w.answers <- answer{record: record(active, 1)}
	if err := await(t, w.final); !errors.Is(err, w.keepErr) || w.Check() == nil {
		t.Errorf("it ends with %v, and serves: %v", err, w.Check() == nil)
	}
}

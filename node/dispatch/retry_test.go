package dispatch

import (
	"context"
	"errors"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/store"
)

// at is a range's first descriptor, as if its only replicas were on other nodes.
func at(id base.RangeID, generation uint64, nodes ...uint64) *metapb.RangeDescriptor {
	d := wrong(generation, nodes...)
	for _, first := range store.FirstDescriptors(1) {
		if base.RangeID(first.RangeId) == id {
			d.RangeId, d.KeyspaceId = first.RangeId, first.KeyspaceId
		}
	}
	return d
}

// cameTo has the index say that the ranges, which are on node 1, are of a later generation by now.
func (w *world) cameTo(generation uint64) {
	now := store.FirstDescriptors(1)
	for _, d := range now {
		d.Generation = generation
		if index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId)); ok {
			key := route.DescriptorKey(d)
			_, err := w.nodes[1].Propose(w.ctx(), index, key, &kvpb.Command{Body: &kvpb.Command_PublishDescriptor{
				PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: d}}})
			must(w.t, err)
		}
	}
	w.nodes[2].cfg.Root = func(context.Context) (*metapb.RangeDescriptor, error) { return now[0], nil }
}

// newcomer has a node make an empty replica of a range, for a leader on a node that nobody can reach any more. It never gets its
// first snapshot.
func newcomer(t *testing.T, d *Dispatcher, id base.RangeID, leader base.NodeID) {
	changed := d.changes()
	frame := encode(t, &rangepb.RaftFrame{Messages: []*rangepb.RaftMessage{{
		RangeId: uint64(id), FromReplica: 8, ToReplica: 9, Raft: encode(t, &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(8)), To: new(uint64(9)), Term: new(uint64(3)),
		}),
	}}})
	must(t, d.cfg.Store.HandleRaft(leader, frame))
	for {
		if st, ok := d.cfg.Store.State(id); ok && st.LeaderNode == leader {
			break
		}
		<-changed
		changed = d.changes()
	}
	if d.cfg.Store.Has(id) {
		t.Fatalf("%s has its first snapshot", id)
	}
}

// A node that knows of a range only that it was once here alone, and has a replica that waits for its first snapshot, does not ask
// itself for ever: nor for the range, nor for the range of the index.
func TestOwnReplicaWithoutSnapshotIsNotAsked(t *testing.T) {
	for name, ids := range map[string][]base.RangeID{
		"range":           {base.RangeDefault},
		"index":           {base.RangeMeta},
		"range and index": {base.RangeMeta, base.RangeDefault},
		"root":            {base.RangeRoot, base.RangeMeta, base.RangeDefault},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			d := w.nodes[2]
			for _, id := range ids {
				newcomer(t, d, id, 7)
				d.Learn(at(id, 1, 2))
			}
			_, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
			must(t, err)
			for _, id := range ids {
				d.Learn(at(id, 9, 2)) // newer than what the index holds: it proves wrong all the same
			}
			if v := get(t, w, d, "a"); v != "1" {
				t.Errorf("read %q", v)
			}
			if r, p := w.requests(read), w.requests(propose); r > 5 || p != 1 { // two for each look-up, and the read itself
				t.Errorf("%d reads and %d proposals were sent", r, p)
			}
		})
	}
}

// A node that is becoming one of a range's, as its descriptor says, asks the others; the index has nothing to say to that.
func TestJoiningReplicaAsksTheOthers(t *testing.T) {
	w := newWorld(t, 2)
	d := w.nodes[2]
	newcomer(t, d, base.RangeDefault, 7)
	w.fails[3] = true
	d.Learn(at(base.RangeDefault, 2, 2, 3, 1))
	_, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
	must(t, err)
	if r, p := w.requests(read), w.requests(propose); r != 0 || p != 1 {
		t.Errorf("%d reads and %d proposals were sent, want none and one", r, p)
	}
}

// Nodes that are gone say nothing of where their ranges went. The index is asked when they have been silent for longer than an
// election takes; and root for an index that is where nobody is.
func TestGoneNodesAreNotAskedForEver(t *testing.T) {
	for name, ids := range map[string][]base.RangeID{
		"range": {base.RangeDefault}, "index": {base.RangeMeta}, "range and index": {base.RangeMeta, base.RangeDefault},
		"root": {base.RangeRoot, base.RangeMeta, base.RangeDefault},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			d := w.nodes[2]
			w.cameTo(2)
			for _, id := range ids {
				d.Learn(at(id, 1, 3, 4))
			}
			_, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
			must(t, err)
			if v := get(t, w, d, "a"); v != "1" {
				t.Errorf("read %q", v)
			}
		})
	}
}

// However many wait for a leader, the index is asked for them once in a while; and what it says that is older is not believed.
func TestElectionDoesNotStormTheIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	d := w.nodes[2]
	known := at(base.RangeDefault, 9, 3, 4) // the index holds generation 1
	d.Learn(known)
	ctx, cancel := context.WithTimeout(context.Background(), base.DoubtAfter*5/4)
	defer cancel()
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			_, err := d.Propose(ctx, base.KeyspaceDefault, []byte("a"), putCommand(t, "a", "1"))
			if !errors.As(err, new(*base.NotLeader)) {
				t.Errorf("a write ended with %v", err)
			}
		})
	}
	waiting.Wait()
	d.Stop() // a look-up that is under way ends
	if n := w.requests(read); n != 2 {
		t.Errorf("the index was read %d times, want root's once and meta's once", n)
	}
	if got := d.routes.find(base.KeyspaceDefault, []byte("a")); got != known {
		t.Errorf("the range is looked for at %v", got)
	}
}

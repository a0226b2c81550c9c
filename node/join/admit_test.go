package join

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

func (m *machine) change(t *testing.T, id base.NodeID, e liveness.Event) *metapb.NodeRecord {
	t.Helper()
	after, err := Change(t.Context(), m, id, func(r *metapb.NodeRecord) (*metapb.NodeRecord, error) {
		return liveness.Apply(r, e, "a test says so", 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	return after
}

// TestAnnounceKeepsWhatOthersDecided: flags, epoch and generation outlive a node's process; what it says of itself is written.
func TestAnnounceKeepsWhatOthersDecided(t *testing.T) {
	w := newWorld(t)
	ms := w.cluster(2)
	before := ms[0].record(t, 2)
	if before.Generation != 2 || before.State != metapb.NodeState_NODE_STATE_ACTIVE {
		t.Errorf("let in and announced: %v", before)
	}
	if _, err := ms[1].announce(); err != nil { // once more: there is nothing new in it
		t.Fatal(err)
	}
	if r := ms[0].record(t, 2); !proto.Equal(r, before) {
		t.Errorf("a second announcement changed the record to %v", r)
	}

	ms[0].change(t, 2, liveness.Drain)
	suspected := ms[0].change(t, 2, liveness.Suspected)
	if _, err := ms[1].announce(); err != nil { // the same start of it: that others do not hear it is as true as before
		t.Fatal(err)
	}
	if r := ms[0].record(t, 2); !proto.Equal(r, suspected) {
		t.Errorf("an announcement of a suspect start changed the record to %v", r)
	}
	failed := ms[0].change(t, 2, liveness.Failed)
	if failed.Epoch != 1 {
		t.Errorf("failed under epoch %d, want 1", failed.Epoch)
	}
	ms[1].stop()
	ms[1].cfg.Self = &metapb.NodeRecord{Address: ms[1].address, Version: "0.1.0", Attributes: []string{"ssd"}, DiskBytes: 7, Cpus: 3}
	ms[1].start()
	ms[1].mustEnter()
	if _, err := ms[1].announce(); err != nil {
		t.Fatal(err)
	}
	r := ms[0].record(t, 2)
	if r.State != metapb.NodeState_NODE_STATE_ACTIVE || r.Epoch != 1 || r.Generation != failed.Generation+1 || !r.Cordoned || !r.Draining ||
		r.Incarnation != 2 || len(r.Attributes) != 1 || r.DiskBytes != 7 || r.Cpus != 3 {
		t.Errorf("failed and announced again: %v", r)
	}

	ms[0].change(t, 2, liveness.Leave)
	ms[1].stop()
	ms[1].start()
	ms[1].mustEnter()
	if _, err := ms[1].announce(); err != nil {
		t.Fatal(err)
	}
	if r := ms[0].record(t, 2); r.State != metapb.NodeState_NODE_STATE_LEAVING {
		t.Errorf("a node that leaves, started again: %v", r)
	}
	ms[0].change(t, 2, liveness.Left)
	_, err := ms[1].announce()
	wantRefused(t, err, "n2 was removed from the cluster (a test says so): start with an empty store directory")
}

func TestChange(t *testing.T) {
	w := newWorld(t)
	m := w.cluster(1)[0]
	sys := w.sys(m.store.id.ClusterId)

	sys.ambiguous = 1 // it was carried out, and nobody says so
	if r := m.change(t, 1, liveness.Cordon); !r.Cordoned || m.record(t, 1).Generation != r.Generation {
		t.Errorf("cordoned with an unknown outcome: %v, and stored is %v", r, m.record(t, 1))
	}
	tries := 0
	r, err := Change(t.Context(), m, 1, func(r *metapb.NodeRecord) (*metapb.NodeRecord, error) {
		if tries++; tries == 1 {
			m.change(t, 1, liveness.Uncordon) // somebody comes between
		}
		return liveness.Apply(r, liveness.Suspected, "why", 1)
	})
	if err != nil || tries != 2 || r.Cordoned || r.State != metapb.NodeState_NODE_STATE_SUSPECT || !proto.Equal(r, m.record(t, 1)) {
		t.Errorf("changed between: %d tries, %v, %v", tries, r, err)
	}
	var refused *base.Refused
	if _, err := Change(t.Context(), m, 9, nil); !errors.As(err, &refused) || refused.For != base.RefusedUnknown {
		t.Errorf("a node that is none: %v", err)
	}
}

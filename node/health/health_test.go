package health

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/node/sysrec"
)

const (
	active  = metapb.NodeState_NODE_STATE_ACTIVE
	suspect = metapb.NodeState_NODE_STATE_SUSPECT
	failed  = metapb.NodeState_NODE_STATE_FAILED
)

func (w *world) expect(id uint64, state metapb.NodeState, generation, epoch uint64) {
	w.t.Helper()
	if r := w.record(id); r.State != state || r.Generation != generation || r.Epoch != epoch {
		w.t.Errorf("n%d is %s, generation %d, epoch %d; want %s, %d, %d", id, r.State, r.Generation, r.Epoch, state, generation, epoch)
	}
}

// TestSuspectFailed: what the table finds is in `sys`, by the policy that is stored there, and everybody is told.
func TestSuspectFailed(t *testing.T) {
	w := newWorld(t, 3)
	w.pass(10 * time.Second)
	for id := uint64(1); id <= 3; id++ {
		w.expect(id, active, 1, 0)
	}
	w.put(sysrec.PolicyKey(0), &metapb.PolicyRecord{Cluster: &metapb.ClusterPolicy{FailedAfterMillis: 20_000}})
	w.silent[3] = true
	w.pass(10 * time.Second)
	w.expect(3, suspect, 2, 0)
	nodes, by, age := w.monitors[2].Health()
	if len(nodes) != 3 || by != 1 || age != 0 || !strings.Contains(nodes[2].Why, "it is held to be failed after 20s") {
		t.Errorf("n2 was told by %s, %s ago: %v", by, age, nodes)
	}
	w.pass(20 * time.Second)
	w.expect(3, failed, 3, 1)
	w.silent[3] = false
	w.pass(time.Second)
	if own := w.learned[3]; own.GetState() != failed || own.GetEpoch() != 1 {
		t.Errorf("n3 was told of itself: %v", own)
	}
}

// TestWrittenMeanwhile: a record that somebody else changes between the decision and its writing is decided on anew; one whose
// writing was carried out and not answered is not written twice.
func TestWrittenMeanwhile(t *testing.T) {
	w := newWorld(t, 3)
	w.pass(5 * time.Second)
	w.silent[3] = true
	w.between = func() {
		r := proto.CloneOf(w.record(3))
		r.Cordoned, r.Generation = true, r.Generation+1
		w.put(nodeKey(3), r)
	}
	w.pass(10 * time.Second)
	w.expect(3, suspect, 3, 0)
	if !w.record(3).Cordoned {
		t.Error("what somebody else wrote is gone")
	}
	w.silent[3], w.ambig = false, true
	w.pass(10 * time.Second)
	w.expect(3, active, 4, 0)
}

// TestNewLeader: whoever leads anew knows nothing, and gives everybody a whole window.
func TestNewLeader(t *testing.T) {
	w := newWorld(t, 3)
	w.pass(10 * time.Second)
	w.silent[3] = true
	w.pass(3 * time.Second)
	w.term++
	w.pass(4 * time.Second)
	w.expect(3, active, 1, 0)
	w.pass(5 * time.Second)
	w.expect(3, suspect, 2, 0)

	w.term = 0
	if leads, err := w.monitors[1].step(); leads || err != nil {
		t.Errorf("a node that does not lead sys looks at a table: %v", err)
	}
	var notLeader *base.NotLeader
	if _, err := w.monitors[1].Heartbeat(&metapb.Heartbeat{NodeId: 2}); !errors.As(err, &notLeader) {
		t.Errorf("it takes a heartbeat: %v", err)
	}
}

// TestManyNodes: in a large cluster an answer tells of all nodes only now and then, and of the asker always.
func TestManyNodes(t *testing.T) {
	w := newWorld(t, 2)
	for id := uint64(3); id <= 3*base.HeartbeatNodes; id++ {
		w.put(nodeKey(id), &metapb.NodeRecord{NodeId: id, State: active, Generation: 1, Incarnation: 1})
	}
	w.pass(2 * time.Second)
	told := 0
	for seq := uint64(100); seq < 108; seq++ {
		a, err := w.monitors[1].Heartbeat(&metapb.Heartbeat{NodeId: 2, Incarnation: 1, Seq: seq})
		if err != nil || a.Own.GetNodeId() != 2 {
			t.Fatalf("%v, %v", a, err)
		}
		if len(a.Nodes) == 3*base.HeartbeatNodes {
			told++
		} else if len(a.Nodes) > 0 {
			t.Errorf("told of %d nodes", len(a.Nodes))
		}
	}
	if told != 2 {
		t.Errorf("told of all nodes %d times in 8, want 2", told)
	}
}

// TestStartStop: the goroutines send heartbeats, look at the table, and end.
func TestStartStop(t *testing.T) {
	w := newWorld(t, 2)
	learned := make(chan *metapb.NodeRecord, 100)
	m := w.monitors[1]
	m.cfg.Learn = func(r *metapb.NodeRecord) { learned <- r }
	m.Start()
	select {
	case r := <-learned:
		if r.NodeId != 1 {
			t.Errorf("it learned of %v", r)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no heartbeat was answered within 20 s")
	}
	m.Stop()
	if m.Load() == nil {
		t.Error("it does not know its load")
	}
	if answered, unanswered := m.Beats(); answered == 0 || unanswered != 0 {
		t.Errorf("%d heartbeats were answered, %d not", answered, unanswered)
	}
}

// TestUnanswered: a node whose heartbeats nobody answers for a window finds out in another way.
func TestUnanswered(t *testing.T) {
	w := newWorld(t, 1)
	w.term = 0 // nobody leads sys
	unanswered := make(chan struct{}, 1)
	m, err := New(Config{
		Node: 2, Incarnation: 1, Cluster: cluster{w}, Leads: func() (uint64, bool) { return 0, false }, Heard: func() []*metapb.HeardOf { return nil },
		Load: func(time.Duration) *metapb.NodeLoad { return nil }, Epoch: func() uint64 { return 0 }, Learn: func(*metapb.NodeRecord) {},
		Unanswered: func() {
			select {
			case unanswered <- struct{}{}:
			default:
			}
		},
		Now: store.Now, Interval: time.Millisecond, Step: time.Millisecond, Table: liveness.Config{Window: 10 * time.Millisecond},
	})
	must(t, err)
	m.Start()
	defer m.Stop()
	await(t, unanswered)
	await(t, unanswered)
	if answered, unanswered := m.Beats(); answered != 0 || unanswered < 2 {
		t.Errorf("%d heartbeats were answered, %d not", answered, unanswered)
	}
}

func TestConfig(t *testing.T) {
	cfg := Config{Interval: 2 * time.Second}
	cfg.EnsureDefaults()
	err := cfg.Validate()
	for _, want := range []string{"a node, a cluster and all functions are needed", "three of them must fit"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

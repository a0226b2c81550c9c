package liveness

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// failer is a test, or a drawn case of one.
type failer interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is a cluster as the table sees it: nodes that live or not, links that carry or not, and a leader of `sys` to whom those
// heartbeats come that its links let through. Records are written as soon as the table wants them written.
type world struct {
	t       failer
	now     base.Instant
	leader  uint64
	table   *Table
	policy  Policy
	records map[uint64]*metapb.NodeRecord
	down    map[uint64]bool
	cut     map[[2]uint64]bool // either way
	alone   map[uint64]bool    // shares no range with anybody
	load    map[uint64]*metapb.NodeLoad
	epoch   map[uint64]uint64 // that each node knows
	seq     uint64
	lost    bool // what is written does not go through
	events  []string
}

func newWorld(t failer, nodes uint64) *world {
	w := &world{
		t: t, leader: 1, policy: PolicyOf(nil), records: map[uint64]*metapb.NodeRecord{}, down: map[uint64]bool{},
		cut: map[[2]uint64]bool{}, alone: map[uint64]bool{}, load: map[uint64]*metapb.NodeLoad{}, epoch: map[uint64]uint64{},
	}
	for id := uint64(1); id <= nodes; id++ {
		w.records[id] = &metapb.NodeRecord{NodeId: id, State: metapb.NodeState_NODE_STATE_ACTIVE, Generation: 1, Incarnation: 1}
	}
	w.lead(1)
	return w
}

// lead makes a node the leader of `sys`, with a table that knows nothing.
func (w *world) lead(id uint64) {
	table, err := New(Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.leader, w.table = id, table
	w.tell()
}

func (w *world) tell() {
	var records []*metapb.NodeRecord
	for _, r := range w.records {
		records = append(records, r)
	}
	w.table.SetRecords(w.now, records)
}

func (w *world) carries(a, b uint64) bool {
	return !w.down[a] && !w.down[b] && (a == b || !w.cut[[2]uint64{min(a, b), max(a, b)}])
}

func (w *world) sever(a, b uint64, cut bool) { w.cut[[2]uint64{min(a, b), max(a, b)}] = cut }

// beat has every node that can send its heartbeat.
func (w *world) beat() {
	w.seq++
	for id := range w.records {
		if !w.carries(id, w.leader) {
			continue
		}
		h := &metapb.Heartbeat{NodeId: id, Incarnation: w.records[id].Incarnation, Epoch: w.epoch[id], Seq: w.seq, Load: w.load[id]}
		for other := range w.records {
			if other != id && !w.alone[id] && !w.alone[other] && !Gone(w.records[other].State) {
				h.Heard = append(h.Heard, &metapb.HeardOf{NodeId: other, Supports: w.carries(id, other), Supported: w.carries(id, other)})
			}
		}
		w.table.Heartbeat(w.now, h)
	}
}

// run lets time pass, with a heartbeat a second and four looks.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now < end; {
		if w.now%base.Instant(time.Second) == 0 {
			w.beat()
		}
		w.step()
		w.now = w.now.Add(base.HealthStep)
	}
}

func (w *world) step() {
	for _, x := range w.table.Step(w.now, int64(w.now)/1000, w.policy) {
		id := x.After.NodeId
		if !proto.Equal(x.Before, w.records[id]) {
			w.t.Fatalf("n%d changes from %v, and is %v", id, x.Before, w.records[id])
		}
		if w.lost {
			continue
		}
		w.events = append(w.events, fmt.Sprintf("%s n%d is %s, generation %d, epoch %d: %s",
			time.Duration(w.now), id, StateName(x.After.State), x.After.Generation, x.After.Epoch, x.Reason))
		w.records[id] = x.After
	}
	w.tell()
}

// announce has a node start again, and be told its epoch.
func (w *world) announce(id uint64) error {
	said := proto.CloneOf(w.records[id])
	said.Incarnation++
	r, err := Announce(w.records[id], said, "it has started", int64(w.now)/1000)
	if err != nil {
		return err
	}
	w.records[id], w.down[id], w.epoch[id] = r, false, r.Epoch
	w.tell()
	return nil
}

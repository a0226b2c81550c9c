package liveness

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// legal are the edges of the state machine, written down a second time.
var legal = map[metapb.NodeState][]metapb.NodeState{
	metapb.NodeState_NODE_STATE_JOINING: {metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED},
	metapb.NodeState_NODE_STATE_ACTIVE:  {metapb.NodeState_NODE_STATE_SUSPECT, metapb.NodeState_NODE_STATE_LEAVING, metapb.NodeState_NODE_STATE_REPLACED},
	metapb.NodeState_NODE_STATE_SUSPECT: {
		metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_FAILED, metapb.NodeState_NODE_STATE_LEAVING,
		metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED,
	},
	metapb.NodeState_NODE_STATE_FAILED:  {metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED},
	metapb.NodeState_NODE_STATE_LEAVING: {metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED},
}

// checkChange is the law of every change of a record: it moves along an edge, it is counted, and what fences raises the epoch.
func checkChange(t failer, before, after *metapb.NodeRecord) {
	if after.State != before.State {
		ok := false
		for _, to := range legal[before.State] {
			ok = ok || to == after.State
		}
		if !ok {
			t.Fatalf("a node that is %s became %s", StateName(before.State), StateName(after.State))
		}
	}
	if changed := !proto.Equal(before, after); changed != (after.Generation == before.Generation+1) || !changed && after.Generation != before.Generation {
		t.Fatalf("the generation went from %d to %d: %v, %v", before.Generation, after.Generation, before, after)
	}
	raised := uint64(0)
	if after.State != before.State {
		switch after.State {
		case metapb.NodeState_NODE_STATE_FAILED, metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED:
			raised = 1
		}
	}
	if after.Epoch != before.Epoch+raised {
		t.Fatalf("%s → %s: the epoch went from %d to %d", StateName(before.State), StateName(after.State), before.Epoch, after.Epoch)
	}
}

func lawOfRecords(t *rapid.T) {
	r := &metapb.NodeRecord{NodeId: 3, State: metapb.NodeState_NODE_STATE_JOINING, Generation: 1, Address: "a:1", Incarnation: 1}
	for range rapid.IntRange(1, 40).Draw(t, "events") {
		before := proto.CloneOf(r)
		var after *metapb.NodeRecord
		var err error
		e := Event(rapid.IntRange(0, int(events)-1).Draw(t, "event"))
		if e == Announced {
			said := proto.CloneOf(r)
			said.Incarnation += rapid.Uint64Range(0, 1).Draw(t, "starts")
			said.Epoch, said.Generation, said.State, said.Cordoned, said.Draining = 0, 0, 0, false, false // it may say what it likes
			after, err = Announce(r, said, "because", 7)
			if err == nil && (after.Cordoned != r.Cordoned || after.Draining != r.Draining) {
				t.Fatalf("an announcement took back what others had decided: %v, %v", r, after)
			}
		} else {
			after, err = Apply(r, e, "because", 7)
		}
		if !proto.Equal(before, r) {
			t.Fatalf("%s changed the record that it was made of", e)
		}
		if err != nil {
			continue
		}
		checkChange(t, before, after)
		if again, err := Apply(after, e, "because", 9); e != Announced && (err != nil || again != after) {
			t.Fatalf("%s a second time: %v, %v", e, again, err)
		}
		r = after
	}
}

// TestRecords: states move along the edges, generations and epochs only grow, and an event that is carried out twice is carried out
// once.
func TestRecords(t *testing.T) { rapid.Check(t, lawOfRecords) }

func drawWorld(t *rapid.T, least uint64) *world {
	w := newWorld(t, rapid.Uint64Range(least, 7).Draw(t, "nodes"))
	w.lead(rapid.Uint64Range(1, uint64(len(w.records))).Draw(t, "leader"))
	w.now = base.Instant(rapid.Int64Range(1, 4).Draw(t, "start")) * base.Instant(base.HealthStep)
	w.run(10 * time.Second)
	return w
}

// TestOneBadLink: with every pair of links but one well, nobody is suspected, however long, and whoever begins to lead meanwhile.
func TestOneBadLink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 3)
		n := uint64(len(w.records))
		a := rapid.Uint64Range(1, n-1).Draw(t, "a")
		w.sever(a, rapid.Uint64Range(a+1, n).Draw(t, "b"), true)
		for range 4 {
			w.run(time.Duration(rapid.Int64Range(1, 90).Draw(t, "for")) * time.Second)
			if rapid.Bool().Draw(t, "another leads") {
				w.lead(rapid.Uint64Range(1, n).Draw(t, "leader"))
			}
		}
		if len(w.events) > 0 {
			t.Fatalf("one bad link: %q", w.events)
		}
	})
}

// TestSilent: when k of n fall silent exactly those are suspected; they are held to be failed if the others are most of the members,
// and nobody is if they are not.
func TestSilent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 2)
		n := 0
		for id := range w.records {
			if id != w.leader && rapid.Bool().Draw(t, "silent") {
				w.down[id] = true
				n++
			}
		}
		w.run(10 * time.Second)
		expect := func(state metapb.NodeState) {
			for id, r := range w.records {
				want := metapb.NodeState_NODE_STATE_ACTIVE
				if w.down[id] {
					want = state
				}
				if r.State != want {
					t.Fatalf("n%d is %s, and should be %s; silent are %v; %q", id, StateName(r.State), StateName(want), w.down, w.events)
				}
			}
		}
		expect(metapb.NodeState_NODE_STATE_SUSPECT)
		w.run(base.FailedAfter + 10*time.Second)
		if 2*n < len(w.records) {
			expect(metapb.NodeState_NODE_STATE_FAILED)
		} else {
			expect(metapb.NodeState_NODE_STATE_SUSPECT)
		}
	})
}

// TestShortPauses: who is away for less than the window, again and again, is not suspected.
func TestShortPauses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 3)
		for range rapid.IntRange(1, 5).Draw(t, "pauses") {
			id := rapid.Uint64Range(1, uint64(len(w.records))).Draw(t, "who")
			if id == w.leader {
				w.now = w.now.Add(time.Duration(rapid.Int64Range(0, 20).Draw(t, "for")) * base.HealthStep)
			} else {
				w.down[id] = true
				w.run(time.Duration(rapid.Int64Range(0, 11).Draw(t, "for")) * base.HealthStep)
				w.down[id] = false
			}
			w.run(5 * time.Second)
		}
		if len(w.events) > 0 {
			t.Fatalf("pauses below the window: %q", w.events)
		}
	})
}

// TestAnyFaults: whatever fails and heals, records change along the edges, and each change is told why.
func TestAnyFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 2)
		w.policy.FailedAfter = 20 * time.Second
		n := uint64(len(w.records))
		who := func() uint64 { return rapid.Uint64Range(1, n).Draw(t, "who") }
		for range rapid.IntRange(1, 20).Draw(t, "faults") {
			switch rapid.IntRange(0, 4).Draw(t, "fault") {
			case 0:
				w.sever(who(), who(), rapid.Bool().Draw(t, "cut"))
			case 1:
				w.down[who()] = rapid.Bool().Draw(t, "down")
			case 2:
				w.lead(who())
			case 3:
				_ = w.announce(who())
			case 4:
				id := who()
				if r, err := Apply(w.records[id], Event(rapid.IntRange(int(Cordon), int(events)-1).Draw(t, "event")), "asked for", 1); err == nil {
					w.records[id] = r
					w.tell()
				}
			}
			for range rapid.IntRange(1, 60).Draw(t, "looks") {
				w.now = w.now.Add(base.HealthStep)
				if w.now%base.Instant(time.Second) == 0 {
					w.beat()
				}
				before := make(map[uint64]*metapb.NodeRecord)
				for id, r := range w.records {
					before[id] = r
				}
				w.step()
				for id, r := range w.records {
					checkChange(t, before[id], r)
				}
			}
			for _, h := range w.table.Health(w.now) {
				if h.Why == "" && !Gone(w.records[h.NodeId].State) {
					t.Fatalf("nothing says why n%d is what it is", h.NodeId)
				}
			}
		}
	})
}

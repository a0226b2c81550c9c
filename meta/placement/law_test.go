package placement_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/placement"
)

// laws hold what deciders send, and what comes of it, to what must be.
type laws struct {
	t       *rapid.T
	w       *world
	granted map[grant]base.Instant // until when, counted from when it was asked for
	sent    map[grant]base.Instant
	last    map[decided]directed
}

type grant struct {
	by   int
	id   base.RangeID
	seq  uint64
	node base.NodeID
}

type decided struct {
	by int
	id base.RangeID
}

type directed struct {
	seq uint64
	at  base.Instant
	end bool // it was done, or nobody follows it any more
}

func watchLaws(t *rapid.T, w *world) {
	l := &laws{t: t, w: w, granted: make(map[grant]base.Instant), sent: make(map[grant]base.Instant), last: make(map[decided]directed)}
	w.watch = watch{action: l.action, event: l.event, answer: l.answer, step: l.step}
}

func (l *laws) action(by int, a placement.Action) {
	switch {
	case a.Reserve != nil && !a.Reserve.Release:
		l.sent[grant{by, a.Range, a.Seq, a.Node}] = l.w.now
	case a.Direct != nil && a.Direct.Withdraw:
		last := l.last[decided{by, a.Range}]
		if last.seq != a.Seq {
			l.t.Fatalf("%s: directive %d is withdrawn, the last was %d", a.Range, a.Seq, last.seq)
		}
		last.end = false // until somebody says so
		l.last[decided{by, a.Range}] = last
	case a.Direct != nil:
		l.reserved(by, a)
		key := decided{by, a.Range}
		if last := l.last[key]; last.seq != 0 && last.seq != a.Seq && !last.end && l.w.now.Sub(last.at) < base.DirectTimeout {
			l.t.Fatalf("%s: directive %d while %d, sent %s ago, may still be followed", a.Range, a.Seq, last.seq, l.w.now.Sub(last.at))
		}
		l.last[key] = directed{seq: a.Seq, at: l.w.now}
	}
}

// reserved: nothing is directed to a node that has not said that it takes it, or that said so too long ago.
func (l *laws) reserved(by int, a placement.Action) {
	for _, n := range a.Direct.Voters {
		if desc.ReplicaOn(a.Descriptor, base.NodeID(n)) != nil {
			continue
		}
		if until, ok := l.granted[grant{by, a.Range, a.Seq, base.NodeID(n)}]; !ok || l.w.now >= until {
			l.t.Fatalf("%s is directed to n%d, which has not said that it takes it: %v", a.Range, n, a.Direct)
		}
	}
}

func (l *laws) answer(by int, a placement.Action, m *rangepb.Reservation) {
	key := grant{by, a.Range, a.Seq, a.Node}
	if delete(l.granted, key); m.Granted {
		l.granted[key] = l.sent[key].Add(base.ReserveTimeout)
	}
}

func (l *laws) event(by int, e placement.Event) {
	key := decided{by, e.Range}
	last := l.last[key]
	stale := l.w.ranges[e.Range] != nil && l.w.ranges[e.Range].desc.Generation > uint64(e.Generation)
	if last.seq == e.Seq && (e.Kind == placement.Done || e.Kind == placement.Withdrawn || e.Kind == placement.GivenUp && stale) {
		last.end = true
		l.last[key] = last
	}
}

// step: what is up stays a quorum of every configuration that comes.
func (l *laws) step(r *ranged, before *metapb.RangeDescriptor) {
	if l.w.quorum(before) && !l.w.quorum(r.desc) {
		l.t.Fatalf("%s had a quorum, %s has none", desc.Format(before), desc.Format(r.desc))
	}
	if _, err := desc.Check(before, r.desc); err != nil {
		l.t.Fatal(err)
	}
}

func descriptor(id uint64, on ...uint64) *metapb.RangeDescriptor {
	d := &metapb.RangeDescriptor{RangeId: id, KeyspaceId: 100, Generation: 1, NextReplicaId: uint64(len(on)) + 1, Start: fmt.Appendf(nil, "k%03d", id), End: fmt.Appendf(nil, "k%03d", id+1)}
	for i, n := range on {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(i) + 1, NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}

// TestConverges: whatever is lost, doubled and late, however often deciders die, whether one knows of everything too late, whatever
// befalls nodes: nothing is directed that is not reserved, no two directives of one decider hold for a range at once, no quorum is
// given away; and when it is over, all replicas come to be where they may be, and nobody wants anything any more.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.IntRange(4, 7).Draw(t, "nodes")
		w := newWorld(rapid.Uint64().Draw(t, "seed"), nodes)
		for id := range rapid.IntRange(1, 6).Draw(t, "ranges") {
			on := rapid.Permutation([]uint64{1, 2, 3, 4}).Draw(t, "on")[:3]
			w.addRange(descriptor(uint64(1000+id), on...))
		}
		watchLaws(t, w)
		w.loss = rapid.SampledFrom([]int64{0, 10, 40}).Draw(t, "loss")
		w.stale = rapid.IntRange(0, 10).Draw(t, "stale")
		w.decider(0)
		if rapid.Bool().Draw(t, "two") {
			w.decider(1)
		}
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			w.befall(t)
			w.run(time.Duration(rapid.IntRange(1, 80).Draw(t, "for")) * 100 * time.Millisecond)
		}
		w.heal()
		for range 60 {
			if w.placed() == "" {
				return
			}
			w.run(10 * time.Second)
		}
		t.Fatalf("no end: %s\n%s", w.placed(), w.log.String())
	})
}

// befall is one thing that happens. No more than one node is down at a time: what many do together is the planner's to judge.
func (w *world) befall(t *rapid.T) {
	id := base.NodeID(rapid.IntRange(1, len(w.nodes)).Draw(t, "node"))
	h := w.nodes[id]
	switch rapid.IntRange(0, 8).Draw(t, "what") {
	case 0:
		w.decider(rapid.IntRange(0, len(w.deciders)-1).Draw(t, "decider"))
	case 1:
		for _, o := range w.nodes {
			o.down = false
		}
		h.down = true
	case 2:
		h.down = false
	case 3:
		h.set(func(r *metapb.NodeRecord) { r.Cordoned = !r.Cordoned })
	case 4:
		leaving := 0
		for _, o := range w.nodes {
			if o.record.State == metapb.NodeState_NODE_STATE_LEAVING {
				leaving++
			}
		}
		if h.record.State == metapb.NodeState_NODE_STATE_ACTIVE && len(w.nodes)-leaving > 4 {
			h.set(func(r *metapb.NodeRecord) { r.State = metapb.NodeState_NODE_STATE_LEAVING })
		}
	case 5:
		h.against = rapid.SampledFrom([]string{"", "its disk is full"}).Draw(t, "against")
	case 6: // a split, a merge: the range is another
		r := w.ranges[base.RangeID(1000+rapid.IntRange(0, len(w.ranges)-1).Draw(t, "range"))]
		r.desc = clone(r.desc)
		r.desc.Generation++
	case 7:
		r := uint64(1000 + rapid.IntRange(0, len(w.ranges)-1).Draw(t, "range"))
		on := rapid.Permutation([]uint64{1, 2, 3, 4}).Draw(t, "wanted")[:3]
		slices.Sort(on)
		w.ops = []*metapb.Operation{{OpId: uint64(w.now), Kind: metapb.OperationKind_OPERATION_KIND_RELOCATE, RangeId: r, Voters: on, Leader: on[0],
			State: metapb.OperationState_OPERATION_STATE_RUNNING}}
	case 8:
		w.ops = nil
	}
}

func (h *host) set(f func(*metapb.NodeRecord)) {
	r := clone(h.record)
	f(r)
	h.record = r
}

// heal undoes what can be undone; nodes that leave go on leaving. Who believed to lead the index, and does not, hears of it.
func (w *world) heal() {
	w.loss, w.stale, w.ops, w.deciders = 0, 0, nil, w.deciders[:1]
	for _, h := range w.nodes {
		h.down, h.against = false, ""
		h.set(func(r *metapb.NodeRecord) { r.Cordoned = false })
	}
}

func clone[M proto.Message](m M) M { return proto.CloneOf(m) }

package sim

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/merge"
)

// Merges of which one step is met by what makes its guard count: who drives the merge is stuck until another has taken it up; a node
// crashes as soon as it has confirmed, and its disk has done nothing since; the right range's leader does not hear that it is taken over,
// and is read from.

// mergeAim is what is to happen when a merge comes to a step: it returns how long the step has to wait, and
// whether something was done.
type mergeAim struct {
	right base.RangeID
	at    func(s *merge.Step) (wait time.Duration, hit bool)
}

// aim is told of each step of a merge before it is taken.
func (w *world) aim(s *merge.Step) (wait time.Duration) {
	for _, a := range slices.Clone(w.aims) {
		confirms := s.Confirm != nil && s.Confirm.Range == a.right
		merges := s.Propose != nil && base.RangeID(s.Propose.Command.GetMerge().GetRight().GetDescriptor_().GetRangeId()) == a.right
		if confirms || merges {
			more, _ := a.at(s)
			wait = max(wait, more)
		}
	}
	return wait
}

var aimedMerges = []kind{
	{"merge-nap", "W12", "who merges two ranges is stuck before the last step, until another has found out what becomes of it", drawAim, aimMerge(mergeNap)},
	{"confirm-torn", "F16", "a disk does nothing from when a range is frozen that is to be merged, and its node crashes when it has confirmed that", drawAim, aimMerge(confirmTorn)},
	{"merge-read", "W12", "the right one's leader applies nothing from when it is to be taken over, and is read from", drawAim, aimMerge(mergeRead)},
}

func drawAim(r *base.Rand, p *Plan, f *Fault) {
	drawMerge(r, p, f)
	f.For = between(r, 8*time.Second, 12*time.Second)
}

// aimedFor is how long what is done at a step lasts at most.
const aimedFor = 2 * time.Second

// aimMerge tries to merge two ranges that different nodes lead, and aims at a step of that: make says what is done there, and how that
// is undone. The right one is to be the last of its keyspace, so that there is a key in it that is no workload's.
func aimMerge(make func(in *injector, f *Fault, left, right *rangeInfo) (a *mergeAim, undo func())) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, f *Fault) (func(), bool) {
		w := in.w
		pairs := slices.DeleteFunc(w.pairs(), func(p [2]*rangeInfo) bool { return len(w.newest(p[1]).End) > 0 })
		if len(pairs) == 0 {
			return nil, false
		}
		left, right := pairs[f.Range%len(pairs)][0], pairs[f.Range%len(pairs)][1]
		a, undo := make(in, f, left, right)
		w.aims = append(w.aims, a)
		over, hit := false, false
		end := func() {
			if !over {
				over = true
				w.aims = slices.DeleteFunc(w.aims, func(o *mergeAim) bool { return o == a })
				undo()
			}
		}
		at := a.at
		a.at = func(s *merge.Step) (time.Duration, bool) {
			wait, now := at(s)
			if now {
				hit = true
				w.queue.put(w.now+wait+aimedFor, end)
			}
			return wait, now
		}
		w.tryUntil(func() bool {
			if over || in.healed || w.merged[left.id] || w.merged[right.id] {
				return true
			}
			if !hit && in.apart(left, right) {
				in.mergeNow(left, right)
			}
			return hit
		}, 300)
		return end, true
	}
}

// apart says whether two ranges are led by different nodes; if one leads both, it hands the right one over.
func (in *injector) apart(left, right *rangeInfo) bool {
	l, r := in.w.leader(left), in.w.leader(right)
	if l == nil || r == nil || r.pauses > 0 || l.pauses > 0 {
		return false
	}
	if l != r {
		return true
	}
	st, _ := r.process.hand.Status(right.id)
	for _, n := range change.Voters(st.Descriptor) {
		if n != r.id {
			r.process.do(func() { r.process.store.Transfer(right.id, base.ReplicaID(desc.ReplicaOn(st.Descriptor, n).ReplicaId)) })
			break
		}
	}
	return false
}

// mergeNow has the leader of the left one merge them, if they can be merged as they are, and else brings them to the same nodes.
func (in *injector) mergeNow(left, right *rangeInfo) {
	w := in.w
	l, r := w.newest(left), w.newest(right)
	if desc.Mergeable(l, r) != nil {
		if on := change.Voters(l); !desc.SameNodes(l, r) && !desc.IsFrozen(r) && (len(on) == 3 || w.sys != nil) {
			w.together(left, right, on)
		}
		return
	}
	n := w.leader(left)
	n.process.do(func() { n.process.mover.merge(merge.Begin(l, r), func(*merge.Done) {}) })
}

// mergeNap has who merges be stuck for as long as it takes another to find out what becomes of the merge, and then some.
func mergeNap(in *injector, f *Fault, _, right *rangeInfo) (*mergeAim, func()) {
	napped := false
	return &mergeAim{right.id, func(s *merge.Step) (time.Duration, bool) {
		if s.Propose == nil || napped {
			return 0, false
		}
		napped = true
		in.w.count("merges whose driver was stuck")
		return base.MergePatience + time.Duration(f.Amount>>12%3000)*time.Millisecond, true
	}}, func() {}
}

// confirmTorn picks a node that leads neither range when all are asked to confirm that they have all of the right one, stalls its disk as
// soon as that has applied the freeze, and has it crash when it has confirmed: what it said is on its disk, or is no more.
func confirmTorn(in *injector, _ *Fault, left, right *rangeInfo) (*mergeAim, func()) {
	w := in.w
	stalled, over := (*node)(nil), false
	a := &mergeAim{right.id, func(s *merge.Step) (time.Duration, bool) {
		if s.Confirm == nil || stalled != nil || s.Confirm.Need != len(s.Confirm.Nodes) {
			return 0, false
		}
		for _, id := range s.Confirm.Nodes {
			n := w.node(id)
			if n == w.leader(left) || n == w.leader(right) || n.process == nil || n.process.crashAt != "" {
				continue
			}
			w.tryEvery(50*time.Microsecond, func() bool {
				if over || n.process == nil || n.process.crashAt != "" {
					return true
				}
				v := n.process.store.View(right.id)
				if v == nil || desc.Generation(v.Descriptor) < s.Confirm.Generation {
					return false
				}
				w.count("disks that stalled when a merge was to be confirmed")
				stalled = n
				n.slow.stall(w.now)
				n.process.crashAt, n.process.crashPasses, n.process.crashLose = confirmed, 1, 100
				return true
			}, 1000)
			return 0, true
		}
		return 0, false
	}}
	return a, func() {
		if over = true; stalled == nil {
			return
		}
		stalled.slow.stalls--
		if p := stalled.process; p != nil {
			if p.crashAt == confirmed {
				p.crashAt = ""
			}
			p.do(func() {})
			return
		}
		restart(stalled)
	}
}

// confirmed is the point at which a node has said that it has all of a range that is to be taken over.
const confirmed = "after confirm"

// mergeRead keeps the right one's leader from applying when the left one is to take it over. When that has happened, somebody writes to
// a key, and then another reads it at the node that has not heard.
func mergeRead(in *injector, f *Fault, left, right *rangeInfo) (*mergeAim, func()) {
	w := in.w
	var deaf *node
	a := &mergeAim{right.id, func(s *merge.Step) (time.Duration, bool) {
		l, r := w.leader(left), w.leader(right)
		if s.Propose == nil || deaf != nil || l == nil || r == nil || l == r {
			return 0, false
		}
		deaf = r
		deaf.slow.applyStalls++
		w.taken = append(w.taken, func(*rangeInfo, []byte) bool {
			if w.merged[right.id] {
				w.readBehind(left, l, r, f)
			}
			return w.merged[right.id]
		})
		return 0, true
	}}
	return a, func() {
		if deaf == nil {
			return
		}
		deaf.slow.applyStalls--
		if p := deaf.process; p != nil {
			p.do(func() {})
		}
	}
}

// readBehind writes a key of no workload at one node and reads it at another.
func (w *world) readBehind(r *rangeInfo, at, then *node, f *Fault) {
	key := []byte("\xffprobed")
	value := []byte{byte(f.Amount)}
	w.askAt(r, at, &pb.PutRequest{Key: key, Value: value}, func(op *linearizability.Op) {
		if op.Outcome != linearizability.OK {
			return
		}
		written := op.Response.(*pb.PutResponse).Header.Revision
		w.askAt(r, then, &pb.RangeRequest{Key: key}, func(op *linearizability.Op) {
			w.count("reads where a merge had not been heard of")
			if resp, ok := op.Response.(*pb.RangeResponse); ok && (len(resp.Kvs) == 0 || resp.Kvs[0].ModRevision < written) {
				w.violate("reads are fresh", "%q was read at %s, and what was written at %d before is not there: %v", key, then.id, written, proto.Message(resp))
			}
		})
	})
}

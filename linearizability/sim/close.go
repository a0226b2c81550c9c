package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// How long things may take, in simulated time, when nothing is wrong any more. An election takes one to two seconds; a
// replica that is far behind has its snapshot sent again after a time-out.
const (
	firstLimit   = 20 * time.Second
	recoverLimit = 60 * time.Second
	restLimit    = 10 * time.Second
	leaseLimit   = 30 * time.Second // the longest TTL of a session is 5 s, counted again by whoever was elected last, and a revocation is tried again after some
)

// led says whether every range has a leader that its nodes know.
func (w *world) led() bool {
	for _, r := range w.ranges {
		if w.leader(r) == nil {
			return false
		}
	}
	return true
}

// leader is the node that leads a range, at the highest term; nil if none does.
func (w *world) leader(r *rangeInfo) *node {
	var found *node
	var term uint64
	for _, n := range w.nodes {
		if n.process == nil {
			continue
		}
		if st, ok := n.process.hand.Status(r.id); ok && st.Role == raftgroup.Leader && st.Term > term {
			found, term = n, st.Term
		}
	}
	return found
}

// setup carries out what the workloads need before their clients begin.
func (w *world) setup() bool {
	for _, r := range w.ranges {
		if r.workload == nil {
			continue
		}
		c := w.newClient(r, w.plan.Clients)
		for _, req := range r.workload.Setup() {
			op := w.do1(c, req, false)
			if op == nil || op.Outcome != linearizability.OK {
				w.violate("liveness", "nothing is wrong, and %v on %s did not succeed: %s", req, r.id, errText(op))
				return false
			}
		}
	}
	return true
}

func errText(op *linearizability.Op) string {
	if op == nil {
		return "no answer"
	}
	return op.Outcome.String() + ": " + op.Err
}

// recover is the phase after the faults: everything is well again, and within recoverLimit each range must have a leader
// and its replicas where they are wanted, all of them equal, and each node must serve every client.
func (w *world) recover() {
	w.clientsEnd = true
	if !w.await("the clients end", 2*patience+10*w.plan.Think, w.clientsIdle) || !w.await("the cluster is whole", w.limit(), w.whole) {
		return
	}
	for _, r := range w.ranges {
		if r.workload == nil {
			continue
		}
		for i, n := range w.nodes {
			if w.sys != nil && !n.process.member.serves() {
				continue
			}
			c := w.newClient(r, w.plan.Clients+1+i)
			c.to = i
			// A key of no workload: each looks at its own alone.
			req := &pb.PutRequest{Key: fmt.Appendf(nil, "\xffprobe%d", i), Value: []byte("x")}
			op := w.do1(c, req, true)
			if w.sys != nil && !n.process.member.serves() {
				continue // it has left meanwhile
			}
			if op == nil || op.Outcome != linearizability.OK {
				w.violate("liveness", "all is well again, and a put on %s through node %d did not succeed: %s", r.id, i+1, errText(op))
			}
		}
		c := w.newClient(r, w.plan.Clients)
		for _, req := range r.workload.Final() {
			c.to = w.member(c.to)
			op := w.do1(c, req, true)
			if w.sys != nil && !w.nodes[c.to].process.member.serves() { // it has left, and has heard of that meanwhile
				c.to = w.member(c.to)
				op = w.do1(c, req, true)
			}
			if op == nil || op.Outcome != linearizability.OK {
				w.violate("liveness", "all is well again, and %v on %s did not succeed: %s", req, r.id, errText(op))
			}
		}
	}
	w.await("the replicas are equal", w.limit(), w.whole)
	w.await("leases end that nobody keeps alive", leaseLimit, w.leaseless)
	w.await("the ranges rest", restLimit, w.rest)
}

// leaseless says whether no range has a lease of a client, nor a key that belongs to one: sessions have ended with the clients.
func (w *world) leaseless() bool {
	for _, r := range w.ranges {
		if !r.leases {
			continue
		}
		for _, o := range w.ranges {
			if l := w.leader(o); o.ks == r.ks && (l == nil || !w.withoutLeases(l, o)) {
				return false
			}
		}
	}
	return true
}

func (w *world) withoutLeases(l *node, r *rangeInfo) bool {
	store := l.process.store
	recs, _, err := store.ClientLeases(r.id, 0, 1)
	if err != nil || len(recs) > 0 {
		return false
	}
	out := &pb.RangeResponse{}
	d := w.newest(r)
	req := &pb.RangeRequest{Key: d.Start, RangeEnd: d.End}
	if len(req.Key) == 0 {
		req.Key = []byte{0}
	}
	if len(req.RangeEnd) == 0 {
		req.RangeEnd = []byte{0}
	}
	if err := store.Read(r.id, req, out); err != nil {
		return false
	}
	return !slices.ContainsFunc(out.Kvs, func(kv *mvccpb.KeyValue) bool { return kv.Lease != 0 })
}

// rest says whether every leader holds its lease and is neither ticked nor sends anything: nothing is wrong, and nobody
// asks for anything.
func (w *world) rest() bool {
	for _, r := range w.ranges {
		l := w.leader(r)
		if l == nil {
			return false
		}
		st, _ := l.process.hand.Status(r.id)
		if !st.Resting || st.LeaseLeft <= 0 && !st.LeaseForEver {
			return false
		}
	}
	return true
}

// whole says whether every range is led, has its replicas where they are wanted and no others, and all have applied all.
func (w *world) whole() bool { return w.lacking() == "" }

// lacking says what is not whole; nothing if all is.
func (w *world) lacking() string {
	for _, n := range w.nodes {
		for i, o := range w.nodes {
			if p := n.process; p != nil && o.process != nil && i != n.i && (p.peers.down[i] || w.now-p.peers.last[i] > 2*beatInterval) {
				return fmt.Sprintf("%s does not hear %s yet", n.id, o.id)
			}
		}
	}
	for _, r := range w.ranges {
		if what := w.lackingIn(r); what != "" {
			return fmt.Sprintf("%s: %s", r.id, what)
		}
	}
	if w.sys != nil {
		if what := w.sys.lacking(); what != "" {
			return what
		}
	}
	for _, r := range w.gone {
		for _, n := range w.nodes {
			if n.process == nil {
				return fmt.Sprintf("%s is down", n.id)
			}
			if _, err := n.process.eng.Get(keys.RangeDescriptor(r.id)); err == nil { // one that never had a state is nobody's harm
				return fmt.Sprintf("%s keeps a replica of %s, which was merged", n.id, r.id)
			}
		}
	}
	return ""
}

func (w *world) lackingIn(r *rangeInfo) string {
	l := w.leader(r)
	if l == nil {
		return "no leader"
	}
	st, _ := l.process.hand.Status(r.id)
	switch {
	case st.Descriptor == nil || st.Applied != st.Last:
		return fmt.Sprintf("the leader, %s, has applied %d of %d", l.id, st.Applied, st.Last)
	case desc.Joint(st.Descriptor):
		return "a joint configuration: " + desc.Format(st.Descriptor)
	case desc.IsFrozen(st.Descriptor) || st.Descriptor.Absorbing != 0:
		return "a merge that is not ended: " + desc.Format(st.Descriptor)
	}
	if w.sys != nil {
		if what := w.misplaced(r, st.Descriptor); what != "" {
			return what
		}
	} else if len(r.goal.Voters) > 0 {
		if step, done := change.Next(st.Descriptor, change.Observe(&st, nil), r.goal); !done {
			return fmt.Sprintf("its voters are to be on %v: %s", r.goal.Voters, step.Reason)
		}
	}
	for _, n := range w.nodes {
		if n.process == nil {
			return fmt.Sprintf("%s is down", n.id)
		}
		wanted := desc.ReplicaOn(st.Descriptor, n.id) != nil
		v := n.process.store.View(r.id)
		switch {
		case wanted && v == nil:
			return fmt.Sprintf("%s has no replica yet", n.id)
		case !wanted && v != nil:
			return fmt.Sprintf("%s keeps a replica that was removed", n.id)
		case wanted && v.AppliedIndex != st.Last:
			return fmt.Sprintf("%s has applied %d of %d", n.id, v.AppliedIndex, st.Last)
		}
	}
	if r.ks != base.KeyspaceMeta && !w.published(st.Descriptor) {
		return "the index does not hold its descriptor: " + desc.Format(st.Descriptor)
	}
	return ""
}

// published says whether the index holds a range's own descriptor.
func (w *world) published(d *metapb.RangeDescriptor) bool { return desc.Equal(w.indexed(d), d) }

// indexed is what the index says of the range that begins where this one does, as its leader has it; nil if it says nothing.
func (w *world) indexed(d *metapb.RangeDescriptor) *metapb.RangeDescriptor {
	l := w.leader(w.meta)
	if l == nil {
		return nil
	}
	out := &pb.RangeResponse{}
	start, end := route.IndexSpan(base.KeyspaceID(d.KeyspaceId), d.Start)
	err := l.process.store.Read(w.meta.id, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: 1}, out)
	if err != nil || len(out.Kvs) != 1 {
		return nil
	}
	got := &metapb.RangeDescriptor{}
	if err := proto.Unmarshal(out.Kvs[0].Value, got); err != nil {
		w.violate("index", "%s: the entry cannot be read: %v", base.RangeID(d.RangeId), err)
		return nil
	}
	return got
}

// check holds what is there at the end, and the histories, against what must be.
func (w *world) check() {
	for _, r := range w.ranges {
		for _, n := range w.nodes {
			if n.process != nil && n.process.store.View(r.id) != nil {
				w.rules.compare(n, n.process.eng, r.id)
			}
		}
		if r.workload == nil {
			continue
		}
		w.place(r)
		for _, c := range r.workload.Checkers() {
			for _, v := range c.Check(r.history) {
				w.violate(v.Checker, "%s: %s%s", r.id, v.What, describeOps(v.Ops))
			}
		}
	}
}

// place tells the checkers where the log has each write: it saves them a search, and proves nothing.
func (w *world) place(r *rangeInfo) {
	for _, op := range r.history.Ops {
		sum, sent := w.commands[op]
		place, applied := w.rules.place(r.ks, sum)
		switch {
		case sent && applied:
			op.Place = place
		case op.Outcome == linearizability.Unknown:
			op.Place = -1
		}
	}
}

// describeOps shows the operations of a violation, a few of them.
func describeOps(ops []*linearizability.Op) (s string) {
	for i, op := range ops {
		if i == 8 {
			return s + fmt.Sprintf("; and %d more", len(ops)-i)
		}
		s += fmt.Sprintf("\n    client %d [%d, %d] %s: %T %v -> %s %s", op.Client, op.Invoked, op.Returned, op.Outcome, op.Request, op.Request, describe(op.Response), op.Err)
	}
	return s
}

// describe shows a response.
func describe(m proto.Message) string {
	resp, ok := m.(*followpb.FollowResponse)
	if !ok {
		return fmt.Sprint(m)
	}
	s := fmt.Sprintf("%d events, next %d, compacted %d, broken %t %s", resp.Events, resp.Next, resp.Compacted, resp.Broken, resp.Reason)
	msgs, err := linearizability.FollowMessages(resp)
	if err != nil {
		return s + ": " + err.Error()
	}
	for i, m := range msgs {
		if i == 40 {
			return s + fmt.Sprintf("; and %d more responses", len(msgs)-i)
		}
		s += "\n        " + m.String()
	}
	return s
}

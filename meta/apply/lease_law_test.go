package apply_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

// leaseWorld is a keyspace of some ranges, with clients who put keys with leases, and revoke them, step by step: between any two steps of
// one anything may happen, and whoever takes them may die. Each command goes to two replicas; the other one applies many at once.
type leaseWorld struct {
	*rapid.T
	mine, other node
	ranges      []base.RangeID // in the order of their spans
	next        base.RangeID
	seq         uint64
	clock       int64
	actors      []*leaseActor
	sent        []func() // commands that may be carried out once more
	open        func() engine.Engine
}

// node is one that has a replica of each range.
type node struct {
	eng      engine.Engine
	replicas map[base.RangeID]*replica
	queue    map[base.RangeID][]*raftpb.Entry // that the other one has not applied yet
}

var (
	lawLeases = []string{"bbbbbbbb", "dddddddd", "ffffffff"}
	lawKeys   = []string{"a", "b", "c", "d", "e", "f", "g"}
	lawCuts   = []string{"b", "c", "d", "dd", "e", "f", "ff", "g"}
)

func newLeaseWorld(t *rapid.T, open func() engine.Engine) *leaseWorld {
	w := &leaseWorld{T: t, ranges: []base.RangeID{9}, next: 10, clock: 100, open: open}
	d, err := desctest.Parse("r9 ks9 [-∞, +∞) gen 1: 1@n1 2@n2 next 3")
	must(t, err)
	for i, n := range []*node{&w.mine, &w.other} {
		n.eng, n.queue = open(), map[base.RangeID][]*raftpb.Entry{}
		n.replicas = map[base.RangeID]*replica{9: bootstrap(t, n.eng, base.NodeID(i+1), d)}
	}
	return w
}

// engines opens engines in memory, or, now and then, Pebbles.
func engines(t *testing.T, rt *rapid.T) (open func() engine.Engine, closeAll func()) {
	if rapid.IntRange(0, 19).Draw(rt, "on Pebble") != 7 { // what a failing case is made smaller to needs none
		return func() engine.Engine { return engine.NewMem() }, func() {}
	}
	var opened []engine.Engine
	return func() engine.Engine {
			e, err := engine.OpenPebble(engine.PebbleConfig{Dir: t.TempDir()})
			must(t, err)
			opened = append(opened, e)
			return e
		}, func() {
			for _, e := range opened {
				must(t, e.Close())
			}
		}
}

// of is the range that holds a key.
func (w *leaseWorld) of(key string) base.RangeID {
	for _, id := range w.ranges {
		if desc.Contains(w.mine.replicas[id].sm.Descriptor(), 9, []byte(key)) {
			return id
		}
	}
	w.Fatalf("nobody holds %q", key)
	return 0
}

func (w *leaseWorld) descriptor(id base.RangeID) *metapb.RangeDescriptor {
	return w.mine.replicas[id].sm.Descriptor()
}

// propose carries a command out in a range, at some time of some clock, after a crash or not.
func (w *leaseWorld) propose(id base.RangeID, cmd *kvpb.Command) (proto.Message, error) {
	w.clock += rapid.Int64Range(0, 3).Draw(w.T, "clock")
	cmd.NowMicros = max(1, w.clock-rapid.SampledFrom([]int64{0, 0, 5, 50}).Draw(w.T, "behind"))
	w.seq++
	r := w.mine.replicas[id]
	e := entry(w.T, r.sm.AppliedIndex()+1, raftgroup.ProposalID{Node: 1, Seq: w.seq}, cmd, nil)
	if rapid.IntRange(0, 9).Draw(w.T, "crash") == 0 {
		if err := r.apply(w.T, true, e); err != errDropped {
			w.Fatal(err)
		}
	}
	must(w.T, r.apply(w.T, false, e))
	w.other.queue[id] = append(w.other.queue[id], e)
	if rapid.IntRange(0, 3).Draw(w.T, "other") == 0 {
		w.catchUp(id)
	}
	out := r.out.Outcomes[0]
	return out.Response, out.Err
}

// catchUp has the other replica apply what it has not yet.
func (w *leaseWorld) catchUp(id base.RangeID) {
	if w.other.replicas[id] == nil { // it was cut off a range that has not applied that yet
		for _, from := range w.ranges {
			if w.other.replicas[from] != nil && len(w.other.queue[from]) > 0 {
				w.catchUp(from)
			}
		}
		if w.other.replicas[id] == nil {
			w.Fatalf("%s never begins on the other node", id)
		}
	}
	if q := w.other.queue[id]; len(q) > 0 {
		w.other.queue[id] = nil
		must(w.T, w.other.replicas[id].apply(w.T, false, q...))
		for _, d := range w.other.replicas[id].out.Splits {
			w.begin(&w.other, 2, base.RangeID(d.RangeId))
		}
	}
}

func (w *leaseWorld) begin(n *node, self base.NodeID, id base.RangeID) {
	r := &replica{eng: n.eng, node: self}
	r.load(w.T, id)
	n.replicas[id] = r
}

func (w *leaseWorld) split() {
	key := rapid.SampledFrom(lawCuts).Draw(w.T, "cut")
	id := w.of(key)
	cmd, err := apply.Split(w.descriptor(id), []byte(key), w.next)
	if err != nil {
		return // there is a cut already
	}
	if _, err := w.propose(id, cmd); err != nil {
		w.Fatal(err)
	}
	w.begin(&w.mine, 1, w.next)
	w.ranges = slices.Insert(w.ranges, slices.Index(w.ranges, id)+1, w.next)
	w.next++
}

func (w *leaseWorld) merge() {
	if len(w.ranges) == 1 {
		return
	}
	i := rapid.IntRange(0, len(w.ranges)-2).Draw(w.T, "merge")
	left, right := w.ranges[i], w.ranges[i+1]
	resp, err := w.propose(right, freeze(w.descriptor(right), w.descriptor(left)))
	if err != nil {
		w.Fatal(err)
	}
	w.catchUp(right) // every replica has all of the right one
	if _, err := w.propose(left, merge(w.descriptor(left).Generation, resp.(*kvpb.FreezeResponse).Right)); err != nil {
		w.Fatal(err)
	}
	w.ranges = slices.Delete(w.ranges, i+1, i+2)
	if _, err := w.propose(left, absorbed(w.descriptor(left).Generation)); err != nil {
		w.Fatal(err)
	}
}

// move has a new store take all ranges in from snapshots.
func (w *leaseWorld) move() {
	to := w.open()
	b := to.NewBatch()
	for _, id := range w.ranges {
		for _, s := range apply.Spans(w.descriptor(id)) {
			it, err := w.mine.eng.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
			must(w.T, err)
			for ok := it.First(); ok; ok = it.Next() {
				v, err := it.Value()
				must(w.T, err)
				must(w.T, b.Set(it.Key(), v))
			}
			must(w.T, it.Error())
			must(w.T, it.Close())
		}
	}
	must(w.T, b.CommitNoSync())
	must(w.T, b.Close())
	w.mine.eng = to
	for _, id := range w.ranges {
		w.begin(&w.mine, 1, id)
	}
}

// leaseActor is somebody who does something of many steps.
type leaseActor struct{ step action }

// action is one step, which says what the next is; nil: it is done.
type action func() action

func (w *leaseWorld) start(step action) {
	w.actors = append(w.actors, &leaseActor{step})
}

// again remembers a command, whose proposer does not know whether it was carried out: it is, once more, at some time.
func (w *leaseWorld) again(key string, cmd *kvpb.Command) {
	w.sent = append(w.sent, func() { w.onLease(key, proto.CloneOf(cmd)) })
}

// onLease proposes a command of leases where a key is now.
func (w *leaseWorld) onLease(key string, cmd *kvpb.Command) (proto.Message, error) {
	resp, err := w.propose(w.of(key), cmd)
	if evicted, ok := resp.(*kvpb.LeaseEvictResponse); ok && evicted.Deleted > 0 {
		id := cmd.GetLeaseEvict().Id
		if rec := w.record(id); rec == nil || !rec.Ending {
			w.Fatalf("keys of lease %s are evicted, and it is alive: %v", eval.LeaseHome(id), rec)
		}
	}
	return resp, err
}

func (w *leaseWorld) record(id int64) *kvpb.LeaseRecord {
	rec, err := eval.ReadLease(w.mine.eng, w.of(string(eval.LeaseHome(id))), id)
	must(w.T, err)
	return rec
}

// put is a client's put with a lease, by way of a gateway.
func (w *leaseWorld) put(key string, lease int64) action {
	home := string(eval.LeaseHome(lease))
	var try action
	try = func() action {
		_, err := w.propose(w.of(key), leasePut(w.T, key, "v", lease, false))
		if err == nil {
			return nil
		}
		if err != rpctypes.ErrGRPCLeaseNotFound {
			w.Fatal(err)
		}
		return func() action {
			at := w.of(key)
			ticket := int64(w.mine.replicas[at].sm.Counters().Revision)
			span := &kvpb.LeaseSpan{Start: w.descriptor(at).Start, End: w.descriptor(at).End}
			return func() action {
				cmd := leaseAttach(lease, span)
				w.again(home, cmd)
				resp, err := w.onLease(home, cmd)
				if err != nil {
					return nil // there is no such lease
				}
				granted := resp.(*kvpb.LeaseAttachResponse).Lease.GrantedRevision
				return func() action {
					cmd := leaseAdmit(&kvpb.LeaseAdmit{Key: []byte(key), Id: lease, GrantedRevision: granted, Ticket: ticket, Span: span})
					w.again(key, cmd)
					if _, err := w.onLease(key, cmd); err != nil {
						w.Fatal(err)
					}
					return try // whether it was admitted or not
				}
			}
		}
	}
	return try
}

// revoke is somebody who ends a lease: a client, or the leader of its home.
func (w *leaseWorld) revoke(lease, granted int64) action {
	home := string(eval.LeaseHome(lease))
	var evicted []*kvpb.LeaseSpan
	var try action
	try = func() action {
		cmd := leaseRevoke(&kvpb.LeaseRevoke{Id: lease, GrantedRevision: granted, Evicted: evicted})
		if granted != 0 {
			w.again(home, cmd)
		}
		resp, err := w.onLease(home, cmd)
		if err != nil || resp.(*kvpb.LeaseRevokeResponse).Ended {
			return nil
		}
		rec := resp.(*kvpb.LeaseRevokeResponse).Lease
		granted = rec.GrantedRevision
		evicted = rec.Spans
		return w.evict(rec, slices.Clone(rec.Spans), try)
	}
	return try
}

// evict goes through spans, and then on.
func (w *leaseWorld) evict(rec *kvpb.LeaseRecord, spans []*kvpb.LeaseSpan, then action) action {
	return func() action {
		if len(spans) == 0 {
			return then()
		}
		s := spans[0]
		cmd := leaseEvict(string(s.Start), rec.Id, rec.GrantedRevision)
		w.again(string(s.Start), cmd)
		resp, err := w.onLease(string(s.Start), cmd)
		if err != nil {
			w.Fatal(err)
		}
		end := resp.(*kvpb.LeaseEvictResponse).Span.End
		if len(end) == 0 || len(s.End) > 0 && bytes.Compare(end, s.End) >= 0 {
			return w.evict(rec, spans[1:], then)
		}
		return w.evict(rec, append([]*kvpb.LeaseSpan{{Start: end, End: s.End}}, spans[1:]...), then)
	}
}

// act does one thing of those that happen.
func (w *leaseWorld) act() {
	lease := leaseAt(rapid.SampledFrom(lawLeases).Draw(w.T, "lease"))
	key := rapid.SampledFrom(lawKeys).Draw(w.T, "key")
	switch rapid.IntRange(0, 15).Draw(w.T, "act") {
	case 0, 1:
		if _, err := w.propose(w.of(string(eval.LeaseHome(lease))), leaseGrant(lease, 10)); err != nil && err != rpctypes.ErrGRPCLeaseExist {
			w.Fatal(err)
		}
	case 2, 3, 4:
		w.start(w.put(key, lease))
	case 5:
		w.start(w.revoke(lease, 0))
	case 6:
		w.write(key)
	case 7:
		w.split()
	case 8:
		w.merge()
	case 9:
		if rapid.IntRange(0, 3).Draw(w.T, "move") == 0 {
			w.move()
		}
	case 10:
		if n := len(w.sent); n > 0 {
			w.sent[rapid.IntRange(0, n-1).Draw(w.T, "again")]()
		}
	case 11:
		if n := len(w.actors); n > 0 && rapid.IntRange(0, 3).Draw(w.T, "dies") == 0 {
			i := rapid.IntRange(0, n-1).Draw(w.T, "who")
			w.actors = slices.Delete(w.actors, i, i+1)
		}
	default:
		if n := len(w.actors); n > 0 {
			w.take(rapid.IntRange(0, n-1).Draw(w.T, "step"))
		}
	}
}

// take takes an actor's next step.
func (w *leaseWorld) take(i int) {
	a := w.actors[i]
	if a.step = a.step(); a.step == nil {
		w.actors = slices.Delete(w.actors, i, i+1)
	}
}

// write writes a key without naming a lease.
func (w *leaseWorld) write(key string) {
	var cmd *kvpb.Command
	switch rapid.IntRange(0, 3).Draw(w.T, "write") {
	case 0:
		cmd = put(w.T, key, "v")
	case 1:
		cmd = del(w.T, key)
	case 2:
		cmd = leasePut(w.T, key, "w", 0, true)
	case 3:
		cmd = &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: marshal(w.T, &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(key + "zzz")})}}
	}
	if _, err := w.propose(w.of(key), cmd); err != nil && err != rpctypes.ErrGRPCKeyNotFound {
		if _, moved := err.(*base.RangeMoved); !moved { // the span of a deletion is cut
			w.Fatal(err)
		}
	}
}

// check looks at all ranges: the index says of each key whose it is; a key and a guest have a lease that is there, and that knows of them.
func (w *leaseWorld) check() {
	for _, id := range w.ranges {
		view, err := apply.ReadView(w.mine.eng, id)
		must(w.T, err)
		resp, err := eval.Range(w.mine.eng, view.Env(), &pb.RangeRequest{Key: append(bytes.Clone(view.Descriptor.Start), 0), RangeEnd: rangeEnd(view.Descriptor)})
		must(w.T, err)
		first, err := eval.Range(w.mine.eng, view.Env(), &pb.RangeRequest{Key: view.Descriptor.Start})
		must(w.T, err)
		var truth []string
		for _, kv := range append(first.Kvs, resp.Kvs...) {
			if kv.Lease != 0 {
				truth = append(truth, string(keys.RangeLeaseKey(id, kv.Lease, kv.Key)))
			}
		}
		slices.Sort(truth)
		var index, guests []string
		w.keysOf(keys.RangeLeaseKeysSpan(id), &index)
		w.keysOf(keys.RangeLeaseGuestSpan(id), &guests)
		if !slices.Equal(truth, index) {
			w.Fatalf("%s: the index is %q, the keys say %q\n%s", id, index, truth, leases(w.T, w.mine.eng, id))
		}
		for _, k := range append(index, guests...) {
			lease, key, _ := keys.LeaseOf([]byte(k))
			w.checkKnown(id, lease, key)
		}
	}
}

func rangeEnd(d *metapb.RangeDescriptor) []byte {
	if len(d.End) == 0 {
		return []byte{0}
	}
	return d.End
}

func (w *leaseWorld) keysOf(s keys.Span, into *[]string) {
	it, err := w.mine.eng.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
	must(w.T, err)
	for ok := it.First(); ok; ok = it.Next() {
		*into = append(*into, string(it.Key()))
	}
	must(w.T, it.Error())
	must(w.T, it.Close())
}

// checkKnown looks at a key that a lease holds in a range, or at what it is as a guest there.
func (w *leaseWorld) checkKnown(id base.RangeID, lease int64, key []byte) {
	what := fmt.Sprintf("%s: lease %s, key %q", id, eval.LeaseHome(lease), key)
	rec := w.record(lease)
	guest, err := eval.ReadLeaseGuest(w.mine.eng, id, lease)
	must(w.T, err)
	home := w.of(string(eval.LeaseHome(lease)))
	switch {
	case rec == nil:
		w.Fatalf("%s: the lease is gone", what)
	case guest != nil && id == home:
		w.Fatalf("%s: it is a guest at home", what)
	case guest != nil && guest.GrantedRevision != rec.GrantedRevision:
		w.Fatalf("%s: the guest is of grant %d, the lease %s", what, guest.GrantedRevision, formatLease(rec))
	case len(key) > 0 && id != home && !eval.LeaseSpanHas(rec.Spans, key):
		w.Fatalf("%s: the lease does not know of it: %s", what, formatLease(rec))
	case len(key) > 0 && id != home && !rec.Ending && !eval.LeaseSpanHas(guest.GetSpans(), key):
		w.Fatalf("%s: the range does not know of it: %v", what, guest)
	}
	d := w.descriptor(id)
	for _, s := range guest.GetSpans() {
		inRange := bytes.Compare(d.Start, s.Start) <= 0 && (len(d.End) == 0 || len(s.End) > 0 && bytes.Compare(s.End, d.End) <= 0)
		known := slices.ContainsFunc(rec.Spans, func(k *kvpb.LeaseSpan) bool {
			return bytes.Compare(k.Start, s.Start) <= 0 && (len(k.End) == 0 || len(s.End) > 0 && bytes.Compare(s.End, k.End) <= 0)
		})
		if !inRange || !known {
			w.Fatalf("%s: it is a guest in %s: of the range %v, known %v: %s", what, formatSpans(guest.Spans), inRange, known, formatLease(rec))
		}
	}
}

// TestNoKeyOutlivesItsLease: whatever is between the steps of those who put keys with leases and end them (splits, merges, crashes, snapshots,
// deaths, and commands that are carried out late, or again), a key's lease is there and knows of it, a lease that ends takes all of its
// keys with it, and no other lease's. How a replica groups the entries makes no difference.
func TestNoKeyOutlivesItsLease(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		open, closeAll := engines(t, rt)
		defer closeAll()
		w := newLeaseWorld(rt, open)
		for range rapid.IntRange(1, 120).Draw(rt, "acts") {
			w.act()
			w.check()
		}
		// Those who are alive come to their end, and then nobody is in anybody's way: each lease can be ended.
		for n := 0; len(w.actors) > 0; n++ {
			if n > 1000 {
				rt.Fatal("somebody never comes to an end")
			}
			w.take(0)
			w.check()
		}
		for _, home := range lawLeases {
			w.start(w.revoke(leaseAt(home), 0))
			for len(w.actors) > 0 {
				w.take(0)
				w.check()
			}
			if rec := w.record(leaseAt(home)); rec != nil {
				rt.Fatalf("lease %s is still there", formatLease(rec))
			}
		}
		w.same()
	})
}

// same compares the two nodes.
func (w *leaseWorld) same() {
	for _, id := range w.ranges {
		w.catchUp(id)
		mine, sum := w.mine.replicas[id].at(w.T)
		if theirs, other := w.other.replicas[id].at(w.T); sum != other || mine.AppliedIndex != theirs.AppliedIndex {
			w.Fatalf("%s\n%s\nand on the other node %s\n%s", desc.Format(mine.Descriptor), leases(w.T, w.mine.eng, id), desc.Format(theirs.Descriptor), leases(w.T, w.other.eng, id))
		}
	}
}

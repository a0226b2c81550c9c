package sim

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability/workloads"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// W12: ranges are cut in two while everything else goes on, and goes wrong. Which of a run's keyspaces are cut is drawn after
// all else, so that a seed of before is what it was but for that.

// spread is the workload whose requests touch one key each: its keyspace may be cut anywhere. Others are cut beside their keys.
const spread = "spread"

// snapshot is the one that reads several ranges together.
const snapshot = "snapshot"

var splitKinds = []kind{
	{"split", "W12", "a range is cut in two", drawSplit, func(in *injector, f *Fault) (func(), bool) {
		return nil, in.split(f)
	}},
	{"crash-split", "F16", "nodes crash before or after they apply a split", func(r *base.Rand, p *Plan, f *Fault) {
		drawSplit(r, p, f)
		f.For = between(r, time.Second, 6*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		disarm := in.arm([]string{"before split", "after split"}[f.Amount%2], f.Amount)
		return disarm, in.split(f)
	}},
	{"split-behind", "W12", "a range is cut and both parts moved while a node is behind", func(r *base.Rand, p *Plan, f *Fault) {
		drawSplit(r, p, f)
		f.Node, f.For = int(r.Int63n(int64(p.Nodes))), between(r, 500*time.Millisecond, 8*time.Second)
	}, splitBehind},
}

// splitBehind keeps a node from applying, or cuts it off, has a range cut in two, and moves the parts: what the node gets to know
// last is then the split, a snapshot, or its removal.
func splitBehind(in *injector, f *Fault) (func(), bool) {
	n := in.w.nodes[f.Node%len(in.w.nodes)]
	was := in.w.nextID
	if !in.split(f) {
		return nil, false
	}
	in.w.born = func(r *rangeInfo) {
		if r.id == was && len(in.w.nodes) > 3 {
			in.scatter(r)
			for _, o := range in.w.ranges {
				if o.ks == r.ks && f.Amount>>31%2 == 0 {
					in.scatter(o)
				}
			}
		}
	}
	if f.Amount>>30%2 == 0 {
		n.slow.applyStalls++
		return func() {
			n.slow.applyStalls--
			if p := n.process; p != nil {
				p.do(func() {})
			}
		}, true
	}
	var edges []edge
	for i := range in.w.nodes {
		if i != n.i {
			edges = append(edges, both(n.i, i)...)
		}
	}
	return in.cutEdges(edges, classRaft, classBulk), true
}

func drawSplit(r *base.Rand, p *Plan, f *Fault) {
	f.Range, f.Amount = int(r.Int63n(16)), r.Int63n(1<<40)
}

// drawSplits adds to a plan what cuts its ranges.
func drawSplits(r *base.Rand, p *Plan, only Only) {
	if p.Ranges < 2 || !only.allows("W12") || r.Int63n(2) == 0 {
		return
	}
	for i := 1; i < p.Ranges; i++ { // the first is single
		if r.Int63n(3) > 0 {
			p.Workload[i] = spread
		}
	}
	for range 1 + r.Int63n(8) {
		k := &splitKinds[[]int{0, 0, 2, 1}[r.Int63n(4)]]
		if !only.allows(k.Class) {
			k = &splitKinds[0]
		}
		f := Fault{Kind: k.Kind, At: between(r, 0, p.Length)}
		k.draw(r, p, &f)
		p.Faults = append(p.Faults, f)
	}
	together := false
	for i := range p.Workload {
		if p.Workload[i] == spread && r.Int63n(3) > 0 {
			p.Workload[i], together = snapshot, true
		}
	}
	for range 4 { // what is read together is to be in several ranges from early on
		f := Fault{Kind: "split", At: between(r, p.Length/20, p.Length/4)}
		if drawSplit(r, p, &f); together {
			p.Faults = append(p.Faults, f)
		}
	}
}

// split has the leader of one of the ranges that can be cut propose it.
func (in *injector) split(f *Fault) bool {
	var may []*rangeInfo
	for _, r := range in.w.ranges {
		if r.ks.Splits() && r != in.w.meta {
			may = append(may, r)
		}
	}
	if len(may) == 0 {
		return false
	}
	r := may[f.Range%len(may)]
	l := in.w.leader(r)
	if l == nil || l.pauses > 0 {
		return false
	}
	proposed := false
	l.process.do(func() { proposed = l.process.mover.split(r, uint64(f.Amount)) })
	return proposed
}

// split proposes to cut a range that this node leads.
func (m *mover) split(r *rangeInfo, draw uint64) bool {
	key := m.splitKey(r, draw)
	return key != nil && m.splitAt(r, key)
}

// splitAt proposes to cut a range that this node leads at a key.
func (m *mover) splitAt(r *rangeInfo, key []byte) bool {
	w := m.p.n.w
	st, ok := m.p.hand.Status(r.id)
	if !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
		return false
	}
	cmd, err := apply.Split(st.Descriptor, key, w.nextID)
	if err != nil {
		w.tracef("%s %s is not split at %q: %v", m.p.n.id, r.id, key, err)
		return false
	}
	w.nextID++
	cmd.NowMicros = m.p.gateway.micros()
	data, err := proto.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	w.tracef("%s splits %s at %q", m.p.n.id, r.id, key)
	m.p.store.Propose(raftgroup.Proposal{Range: r.id, Data: data}, m.p.gateway.now().Add(base.RequestTimeout), func(_ proto.Message, err error) {
		var stale *base.StaleGeneration
		switch {
		case err == nil:
			w.count("splits")
		case errors.As(err, &stale):
			w.count("stale splits")
		}
	})
	return true
}

// splitKey draws a key at which a range can be cut without cutting what is one transaction's.
func (m *mover) splitKey(r *rangeInfo, draw uint64) []byte {
	v := m.p.store.View(r.id)
	if v == nil {
		return nil
	}
	kind, _ := workloads.Named(r.name)
	if kind.Cut == nil && kind.Leases {
		return nil // its leases, and the keys that they hold, are to be in one range
	}
	if kind.Cut == nil {
		beside := []string{"\x01", "A", "a", "~", "\xff", "\xffprobe1"}
		return []byte(beside[draw>>8%uint64(len(beside))])
	}
	out := &pb.RangeResponse{}
	req := &pb.RangeRequest{Key: slices.Concat(v.Descriptor.Start, []byte{0}), RangeEnd: v.Descriptor.End, KeysOnly: true}
	if len(req.RangeEnd) == 0 {
		req.RangeEnd = []byte{0}
	}
	if err := m.p.store.Read(r.id, req, out); err != nil || len(out.Kvs) == 0 {
		return nil
	}
	return kind.Cut(out.Kvs[draw>>8%uint64(len(out.Kvs))].Key)
}

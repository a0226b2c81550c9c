package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// What a Decider knows, and how it becomes what the planner knows.

// known is what is known of a range.
type known struct {
	desc *metapb.RangeDescriptor
	// What its leader reported last: hints. leader is 0 if it is not known who leads.
	leader base.NodeID
	bytes  int64
	load   float64
	behind []base.NodeID
	busy   string

	told   float64      // the load that was reported
	counts base.NodeID  // who reported it: the last that is known to have led
	rising base.Instant // until when that is too little, for the leader has been counting only since it leads
}

// rise is a range whose load is believed from then on.
type rise struct {
	id base.RangeID
	at base.Instant
}

// node is what is known of a node.
type node struct {
	record *metapb.NodeRecord
	health *metapb.NodeHealth
	view   allocator.Node // as the planner was given it

	slow        base.Instant // since when it is held to be slow; Never: it is not
	ask         base.Instant // when it is to be asked for a report next
	version     uint64       // of its last report
	incarnation uint64
	silent      int // how often in a row it did not answer
	leads       map[base.RangeID]struct{}
}

// pause is why a range is left alone, and until when.
type pause struct {
	until base.Instant
	why   string
}

// silentReports is how often in a row a node may not report before what it said of whom it leads counts no more.
const silentReports = 3

// Learn takes in a descriptor as the index lists it, or as the range itself has it; an older one than is known changes nothing.
func (d *Decider) Learn(m *metapb.RangeDescriptor) {
	id := base.RangeID(m.GetRangeId())
	r := d.ranges[id]
	switch {
	case id == 0 || r != nil && m.Generation <= r.desc.Generation:
		return
	case r == nil:
		r = &known{}
		d.ranges[id] = r
		for _, rep := range m.Replicas { // its leader may have reported it before it was listed
			if n := d.nodes[base.NodeID(rep.NodeId)]; n != nil {
				n.version = 0
			}
		}
	}
	r.desc = proto.CloneOf(m)
	if desc.ReplicaOn(m, r.leader) == nil {
		d.led(id, r, 0)
	}
	d.put(id)
	d.due = true
}

// Forget takes out a range that the index lists no more, or that another index range lists now. What is under way with it ends by
// itself.
func (d *Decider) Forget(id base.RangeID) {
	if e := d.ledger[id]; e != nil {
		kind := GivenUp
		if e.given != nil {
			kind = Withdrawn
		}
		d.end(e, kind, "the range is another's now, or no more")
		d.due = true
	}
	if r := d.ranges[id]; r != nil {
		d.led(id, r, 0)
	}
	delete(d.ranges, id)
	delete(d.pauses, id)
	d.snap.Delete(id)
}

// Ranges are those that the Decider knows, in order.
func (d *Decider) Ranges() []base.RangeID { return slices.Sorted(maps.Keys(d.ranges)) }

// put gives the planner a range as it is known now.
func (d *Decider) put(id base.RangeID) {
	r := d.ranges[id]
	if r == nil {
		return
	}
	out := allocator.Range{
		ID: id, Keyspace: base.KeyspaceID(r.desc.KeyspaceId), Generation: base.Generation(r.desc.Generation),
		Leader: r.leader, Bytes: r.bytes, Load: r.load, Behind: r.behind, Busy: d.busy(id, r),
	}
	for _, rep := range r.desc.Replicas {
		out.Replicas = append(out.Replicas, allocator.Replica{Node: base.NodeID(rep.NodeId), Role: role(rep.Role)})
	}
	if op := d.wanted[id]; op != nil {
		out.Wanted, out.WantedLeader = ids(op.Voters), base.NodeID(op.Leader)
	}
	d.snap.Put(out)
}

// busy says why nothing is to be decided for a range now.
func (d *Decider) busy(id base.RangeID, r *known) string {
	switch p, paused := d.pauses[id]; {
	case desc.IsFrozen(r.desc) || r.desc.Absorbing != 0:
		return "a merge is under way"
	case paused:
		return p.why
	}
	return r.busy
}

func role(r metapb.ReplicaRole) allocator.Role {
	switch r {
	case metapb.ReplicaRole_REPLICA_ROLE_LEARNER:
		return allocator.Learner
	case metapb.ReplicaRole_REPLICA_ROLE_INCOMING:
		return allocator.Incoming
	case metapb.ReplicaRole_REPLICA_ROLE_OUTGOING:
		return allocator.Outgoing
	}
	return allocator.Voter
}

func ids(in []uint64) (out []base.NodeID) {
	for _, n := range in {
		out = append(out, base.NodeID(n))
	}
	slices.Sort(out)
	return out
}

func numbers(in []base.NodeID) (out []uint64) {
	for _, n := range in {
		out = append(out, uint64(n))
	}
	return out
}

// SetNodes takes in all nodes' records, and what is known of them beside (node/health); a node that is not among them is forgotten.
func (d *Decider) SetNodes(records []*metapb.NodeRecord, health []*metapb.NodeHealth) {
	d.told = true
	seen := make(map[base.NodeID]bool, len(records))
	for _, rec := range records {
		id := base.NodeID(rec.GetNodeId())
		if seen[id] = true; d.nodes[id] == nil {
			d.nodes[id] = &node{slow: base.Never, leads: make(map[base.RangeID]struct{})}
		}
		d.nodes[id].record, d.nodes[id].health = rec, nil
	}
	d.norm = normOf(records)
	for _, h := range health {
		if n := d.nodes[base.NodeID(h.GetNodeId())]; n != nil {
			n.health = h
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) {
		if !seen[id] {
			d.unlead(id)
			delete(d.nodes, id)
			d.snap.RemoveNode(id)
			continue
		}
		d.view(id)
	}
}

// view gives the planner a node, if what it is to know of it has changed.
func (d *Decider) view(id base.NodeID) {
	n := d.nodes[id]
	load := n.health.GetLoad()
	switch {
	case n.health.GetSlow() == "":
		n.slow = base.Never
	case d.now > 0: // before the first step nobody has said what time it is
		n.slow = min(n.slow, d.now)
	}
	v := allocator.Node{
		ID: id, Attributes: n.record.Attributes, State: state(n.record.State), Cordoned: n.record.Cordoned, Draining: n.record.Draining,
		Suspected: time.Duration(max(n.health.GetSuspectedMicros(), 0)) * time.Microsecond, Slow: n.health.GetSlow(), Strained: d.strained.of(load),
		Weight: weight(n.record.DiskBytes, d.norm.disk), LeadWeight: weight(uint64(n.record.Cpus), d.norm.cpus),
		DiskBytes: int64(cmp.Or(load.GetDiskBytes(), n.record.DiskBytes)), DiskUsed: int64(load.GetDiskUsed()),
	}
	v.LeadWeight = min(v.LeadWeight, 2*v.Weight)
	if op := d.stopping[id]; op != 0 {
		v.Strained = fmt.Sprintf("somebody is about to stop it (operation %d)", op)
		if v.State == allocator.Failed || v.State == allocator.Suspect { // it was said to be away: nothing of it is replaced meanwhile
			v.State, v.Suspected = allocator.Suspect, 0
		}
	}
	if n.slow != base.Never {
		v.SlowFor = d.now.Sub(n.slow)
	}
	for _, t := range n.record.Locality {
		v.Locality = append(v.Locality, allocator.Tier{Key: t.Key, Value: t.Value})
	}
	if n.view.ID == id && equal(n.view, v) {
		return
	}
	if b := n.view; b.ID != id || b.State != v.State || b.Cordoned != v.Cordoned || b.Draining != v.Draining {
		d.hurry()
	}
	n.view = v
	d.snap.SetNode(v)
	if v.State == allocator.Failed || v.State == allocator.Left {
		d.unlead(id)
	}
}

// equal is whether the planner would do the same with both. A disk's use changes all the time; a hundredth of it is of interest.
func equal(a, b allocator.Node) bool {
	near := func(x, y, of int64) bool { return x-y <= of/100 && y-x <= of/100 }
	return slices.Equal(a.Locality, b.Locality) && slices.Equal(a.Attributes, b.Attributes) && a.State == b.State && a.Cordoned == b.Cordoned &&
		a.Draining == b.Draining && a.Suspected == b.Suspected && a.Slow == b.Slow && a.SlowFor == b.SlowFor && a.Strained == b.Strained && a.Weight == b.Weight && a.LeadWeight == b.LeadWeight &&
		a.DiskBytes == b.DiskBytes && near(a.DiskUsed, b.DiskUsed, a.DiskBytes)
}

func state(s metapb.NodeState) allocator.NodeState {
	switch s {
	case metapb.NodeState_NODE_STATE_ACTIVE:
		return allocator.Active
	case metapb.NodeState_NODE_STATE_SUSPECT:
		return allocator.Suspect
	case metapb.NodeState_NODE_STATE_FAILED:
		return allocator.Failed
	case metapb.NodeState_NODE_STATE_LEAVING:
		return allocator.Leaving
	case metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED:
		return allocator.Left
	}
	return allocator.Joining
}

// SetPolicies takes in all policies that are stored.
func (d *Decider) SetPolicies(records []*metapb.PolicyRecord) {
	d.policies, d.policy, d.strained = records, Policies(records), strainOf(records)
	d.snap.SetPolicy(d.policy)
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) {
		d.view(id)
	}
}

// SetOperations takes in all operations that are stored; now is by the wall clock, which they count by.
func (d *Decider) SetOperations(ops []*metapb.Operation, nowUnixMicros int64) {
	wanted, stopping := make(map[base.RangeID]*metapb.Operation), make(map[base.NodeID]uint64)
	for _, op := range ops {
		switch {
		case op.State != metapb.OperationState_OPERATION_STATE_RUNNING:
		case op.Kind == metapb.OperationKind_OPERATION_KIND_RELOCATE:
			if old := wanted[base.RangeID(op.RangeId)]; old == nil || old.OpId < op.OpId { // what was asked for last holds
				wanted[base.RangeID(op.RangeId)] = op
			}
		case op.Kind == metapb.OperationKind_OPERATION_KIND_HOLD && op.UntilUnixMicros > nowUnixMicros:
			for _, n := range op.Nodes {
				stopping[base.NodeID(n)] = op.OpId
			}
		}
	}
	old := d.wanted
	d.wanted, d.stopping = wanted, stopping
	for _, ops := range []map[base.RangeID]*metapb.Operation{old, wanted} {
		for _, id := range slices.Sorted(maps.Keys(ops)) {
			d.put(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) {
		d.view(id)
	}
}

// Reported takes in what a node reports of the ranges that it leads; err: it could not be asked, or did not answer.
func (d *Decider) Reported(id base.NodeID, m *rangepb.Report, err error, now base.Instant) {
	d.news(now)
	n := d.nodes[id]
	switch {
	case n == nil:
		return
	case err != nil || m == nil:
		if n.silent++; n.silent == silentReports {
			n.version = 0
			d.unlead(id)
		}
		return
	}
	n.silent = 0
	if m.All {
		d.unlead(id)
	} else if m.Incarnation != n.incarnation || n.version == 0 || m.Version < n.version {
		return // of another question than the last one
	}
	n.version, n.incarnation = m.Version, m.Incarnation
	for _, ended := range m.Ended {
		if r := d.ranges[base.RangeID(ended)]; r != nil && r.leader == id {
			d.led(r.id(), r, 0)
			d.put(r.id())
		}
	}
	for _, rep := range m.Ranges {
		d.reported(id, rep)
	}
	for _, at := range slices.Sorted(maps.Keys(d.ledger)) {
		if e := d.ledger[at]; e.decision.Leader == id {
			d.expect(e)
		}
	}
}

func (d *Decider) reported(by base.NodeID, m *rangepb.RangeReport) {
	id := base.RangeID(m.GetDescriptor_().GetRangeId())
	r := d.ranges[id]
	if r == nil || m.Descriptor_.Generation < r.desc.Generation && r.leader != 0 {
		return // not listed here, or a leader of before
	}
	r.bytes, r.told, r.behind, r.busy = int64(m.Bytes), m.RequestsPerSecond, ids(m.Behind), m.Busy
	if m.Descriptor_.Generation > r.desc.Generation && len(m.Descriptor_.Replicas) > 0 { // often only which one it is, is told
		r.desc = proto.CloneOf(m.Descriptor_)
	}
	if desc.ReplicaOn(r.desc, by) == nil {
		by = 0
	}
	if by != 0 && by != r.counts {
		if r.counts != 0 {
			r.rising = d.now.Add(base.LoadRises)
			d.rises = append(d.rises, rise{id, r.rising})
		}
		r.counts = by
	}
	r.believe(d.now)
	d.led(id, r, by)
	d.put(id)
}

// believe takes what a range's leader says of its load, unless that is less than is known and the leader is new: its range would
// seem to be idle, and its node would be given more than its share, to give it back when all has been counted.
func (r *known) believe(now base.Instant) {
	if now >= r.rising || r.told > r.load {
		r.load = r.told
	}
}

// risen has what was said of ranges whose leaders were new count now.
func (d *Decider) risen() {
	n := 0
	for ; n < len(d.rises) && d.rises[n].at <= d.now; n++ {
		if r := d.ranges[d.rises[n].id]; r != nil && r.load != r.told {
			r.believe(d.now)
			d.put(d.rises[n].id)
		}
	}
	d.rises = slices.Delete(d.rises, 0, n)
}

func (r *known) id() base.RangeID { return base.RangeID(r.desc.RangeId) }

// led notes who leads a range.
func (d *Decider) led(id base.RangeID, r *known, by base.NodeID) {
	if n := d.nodes[r.leader]; n != nil {
		delete(n.leads, id)
	}
	if n := d.nodes[by]; n != nil {
		n.leads[id] = struct{}{}
	} else {
		by = 0
	}
	r.leader = by
}

// unlead forgets what a node leads.
func (d *Decider) unlead(n base.NodeID) {
	for _, id := range slices.Sorted(maps.Keys(d.nodes[n].leads)) {
		d.led(id, d.ranges[id], 0)
		d.put(id)
	}
}

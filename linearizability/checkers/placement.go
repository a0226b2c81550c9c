package checkers

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// Placement holds what is said of where ranges are, by the index and by nodes that are asked, against what a move may do:
//
//   - one generation of a range is one span with one set of replicas, whoever says it;
//   - in the index a range's generation only grows;
//   - a replica's id is of one node for ever, and is below the next one that will be given out;
//   - a node that says where a key is names a range of the same keyspace that holds it;
//   - one that serves a read that must be fresh, and says that it leads, has a replica, and knows the range as new as the index did;
//   - after everything ranges cover each keyspace once, and each node that the index names serves.
func Placement() linearizability.Checker {
	return linearizability.Checker{Name: "placement", Check: func(h *linearizability.History) []linearizability.Violation {
		p := &placed{
			complaints: complaints{checker: "placement"}, indexed: map[uint64]*growth[struct{}]{},
			one: map[descriptorName]seenRange{}, nodes: map[replicaName]seenReplica{},
		}
		for _, op := range answered(h) {
			switch resp := op.Response.(type) {
			case *clusterpb.ListRangesResponse:
				p.list(op, resp)
			case *askpb.AskResponse:
				p.ask(op, op.Request.(*askpb.AskRequest), resp)
			}
		}
		return p.found
	}}
}

type placed struct {
	complaints
	indexed map[uint64]*growth[struct{}] // by range: its generation
	one     map[descriptorName]seenRange
	nodes   map[replicaName]seenReplica
}

type (
	descriptorName struct{ id, generation uint64 }
	replicaName    struct{ id, replica uint64 }
	seenRange      struct {
		desc *metapb.RangeDescriptor
		op   *linearizability.Op
	}
	seenReplica struct {
		node uint64
		op   *linearizability.Op
	}
)

func (p *placed) list(op *linearizability.Op, resp *clusterpb.ListRangesResponse) {
	newest := map[uint64]uint64{} // a range that has taken another over is in the index twice until its old entry is removed
	for _, r := range resp.Ranges {
		d := r.Descriptor_
		p.descriptor(op, d)
		newest[d.GetRangeId()] = max(newest[d.GetRangeId()], d.GetGeneration())
	}
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		g := at(p.indexed, id)
		if last, ok := g.before(op.Invoked); ok && last.number > newest[id] {
			p.add(fmt.Sprintf("the index has %s at generation %d after %d", base.RangeID(id), newest[id], last.number), last.op, op)
		}
		g.saw(newest[id], struct{}{}, op)
	}
	if op.Final {
		if what := Untiled(resp.Ranges); what != "" {
			p.add("after everything "+what, op)
		}
	}
}

// descriptor takes in what anybody says of a range.
func (p *placed) descriptor(op *linearizability.Op, d *metapb.RangeDescriptor) {
	id := base.RangeID(d.GetRangeId())
	name := descriptorName{d.GetRangeId(), d.GetGeneration()}
	if same, ok := p.one[name]; !ok {
		p.one[name] = seenRange{d, op}
	} else if !samePlace(same.desc, d) {
		p.add(fmt.Sprintf("%s is two things at generation %d: %s and %s", id, d.GetGeneration(), rangeText(same.desc), rangeText(d)), same.op, op)
	}
	for _, r := range d.GetReplicas() {
		if r.ReplicaId >= d.GetNextReplicaId() {
			p.add(fmt.Sprintf("%s has replica %d, and the next is to be %d", id, r.ReplicaId, d.GetNextReplicaId()), op)
		}
		name := replicaName{d.GetRangeId(), r.ReplicaId}
		if same, ok := p.nodes[name]; !ok {
			p.nodes[name] = seenReplica{r.NodeId, op}
		} else if same.node != r.NodeId {
			p.add(fmt.Sprintf("%s: replica %d is on %s and on %s", id, r.ReplicaId, base.NodeID(same.node), base.NodeID(r.NodeId)), same.op, op)
		}
	}
}

func rangeText(d *metapb.RangeDescriptor) string {
	s := fmt.Sprintf("[%q, %q) on", d.GetStart(), d.GetEnd())
	for _, r := range d.GetReplicas() {
		s += fmt.Sprintf(" %s/%d(%s)", base.NodeID(r.NodeId), r.ReplicaId, strings.ToLower(strings.TrimPrefix(r.Role.String(), "REPLICA_ROLE_")))
	}
	return s
}

func samePlace(a, b *metapb.RangeDescriptor) bool {
	return a.GetKeyspaceId() == b.GetKeyspaceId() && bytes.Equal(a.GetStart(), b.GetStart()) && bytes.Equal(a.GetEnd(), b.GetEnd()) &&
		a.GetNextReplicaId() == b.GetNextReplicaId() &&
		slices.EqualFunc(a.GetReplicas(), b.GetReplicas(), func(x, y *metapb.Replica) bool {
			return x.ReplicaId == y.ReplicaId && x.NodeId == y.NodeId && x.Role == y.Role
		})
}

func (p *placed) ask(op *linearizability.Op, req *askpb.AskRequest, resp *askpb.AskResponse) {
	if op.Final && !resp.Served {
		p.add(fmt.Sprintf("after everything the index names %s for %s, and it does not serve %q: %s", base.NodeID(resp.NodeId), base.RangeID(req.RangeId), req.Key, resp.Refusal), op)
	}
	d := resp.Route.GetRange()
	if d == nil {
		return
	}
	p.descriptor(op, d)
	id, node := base.RangeID(d.GetRangeId()), base.NodeID(resp.NodeId)
	if d.GetKeyspaceId() != req.KeyspaceId || !holds(d, req.Key) {
		p.add(fmt.Sprintf("%s says that %q of keyspace %s is in %s, which does not hold it: %s", node, req.Key, base.KeyspaceID(req.KeyspaceId), id, rangeText(d)), op)
	}
	if !resp.Route.Leads || !resp.Served || req.Serializable {
		return
	}
	if !slices.ContainsFunc(d.GetReplicas(), func(r *metapb.Replica) bool { return r.NodeId == resp.NodeId }) {
		p.add(fmt.Sprintf("%s says that it leads %s, and has no replica of it: %s", node, id, rangeText(d)), op)
	}
	if known, ok := p.indexed[d.GetRangeId()].before(op.Invoked); ok && known.number > d.GetGeneration() {
		p.add(fmt.Sprintf("%s leads %s at generation %d, which the index had at %d before", node, id, d.GetGeneration(), known.number), known.op, op)
	}
}

func holds(d *metapb.RangeDescriptor, key []byte) bool {
	return bytes.Compare(d.GetStart(), key) <= 0 && (len(d.GetEnd()) == 0 || bytes.Compare(key, d.GetEnd()) < 0)
}

// Untiled says where ranges do not cover each of their keyspaces once; empty: they do.
func Untiled(all []*clusterpb.IndexedRange) string {
	if len(all) == 0 {
		return "there are no ranges"
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *clusterpb.IndexedRange) int {
		x, y := a.Descriptor_, b.Descriptor_
		return cmp.Or(cmp.Compare(x.GetKeyspaceId(), y.GetKeyspaceId()), bytes.Compare(x.GetStart(), y.GetStart()), cmp.Compare(x.GetRangeId(), y.GetRangeId()))
	})
	var out []string
	wrong := func(where string, r *clusterpb.IndexedRange) {
		out = append(out, fmt.Sprintf("keyspace %s: the keys %s range %d at %q are of none or of several", r.Keyspace, where, r.Descriptor_.GetRangeId(), r.Descriptor_.GetStart()))
	}
	for i, r := range all {
		d := r.Descriptor_
		first := i == 0 || all[i-1].Descriptor_.GetKeyspaceId() != d.GetKeyspaceId()
		switch {
		case first && len(d.GetStart()) > 0, !first && (len(d.GetStart()) == 0 || !bytes.Equal(all[i-1].Descriptor_.GetEnd(), d.GetStart())):
			wrong("before", r)
		}
		last := i == len(all)-1 || all[i+1].Descriptor_.GetKeyspaceId() != d.GetKeyspaceId()
		if last && len(d.GetEnd()) > 0 {
			wrong("behind", r)
		}
	}
	return strings.Join(out, "\n")
}

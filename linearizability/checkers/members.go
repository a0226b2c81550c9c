package checkers

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// Members holds the nodes' records, and the nodes themselves when they are asked, against what membership promises:
//
//   - a record's generation only grows, one generation is one record, and with it grow its epoch and its incarnation;
//   - a node that is held to be failed, or is gone, is so under a higher epoch than before, and one that is gone stays gone;
//   - no two nodes that may come back have one address;
//   - who serves has been taken note of: its record knows of that start of its process;
//   - a process that has refused because it may not serve does not serve before its record has changed.
func Members() linearizability.Checker {
	return linearizability.Checker{Name: "members", Check: func(h *linearizability.History) []linearizability.Violation {
		m := &members{
			complaints: complaints{checker: "members"}, records: map[uint64]*growth[*metapb.NodeRecord]{}, one: map[recordName]seenRecord{},
			served: map[uint64]*growth[struct{}]{}, fenced: map[processName][]*linearizability.Op{}, pending: map[uint64][]suspicion{},
		}
		for _, op := range answered(h) {
			switch resp := op.Response.(type) {
			case *clusterpb.ListNodesResponse:
				if !resp.Remembered { // what a node remembers may be of any time
					m.list(op, resp)
				}
			case *askpb.AskResponse:
				m.ask(op, resp)
			}
		}
		return m.found
	}}
}

type members struct {
	complaints
	records map[uint64]*growth[*metapb.NodeRecord] // by generation
	one     map[recordName]seenRecord
	served  map[uint64]*growth[struct{}] // by incarnation
	fenced  map[processName][]*linearizability.Op
	pending map[uint64][]suspicion
}

type (
	recordName  struct{ node, generation uint64 }
	processName struct{ node, incarnation uint64 }
	seenRecord  struct {
		record *metapb.NodeRecord
		op     *linearizability.Op
	}
	// suspicion is a process that served though it had refused under a record, which may have changed in between.
	suspicion struct {
		generation uint64
		refused    *linearizability.Op
		served     *linearizability.Op
	}
)

func (m *members) list(op *linearizability.Op, resp *clusterpb.ListNodesResponse) {
	there := map[uint64]bool{}
	addresses := map[string]uint64{}
	for _, n := range resp.Nodes {
		r := n.Record
		there[r.NodeId] = true
		m.record(op, r)
		if gone(r) {
			continue
		}
		if other, taken := addresses[r.Address]; taken {
			m.add(fmt.Sprintf("%s and %s both have the address %s", base.NodeID(other), base.NodeID(r.NodeId), r.Address), op)
		}
		addresses[r.Address] = r.NodeId
	}
	for node, g := range m.records {
		if last, ok := g.before(op.Invoked); ok && !there[node] {
			m.add(fmt.Sprintf("%s has no record any more; it had one of generation %d", base.NodeID(node), last.number), last.op, op)
		}
	}
}

func gone(r *metapb.NodeRecord) bool {
	return r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED
}

// givenUp says whether a record is of a node that may not serve.
func givenUp(r *metapb.NodeRecord) bool {
	return gone(r) || r.State == metapb.NodeState_NODE_STATE_FAILED
}

// record takes in one node's record.
func (m *members) record(op *linearizability.Op, r *metapb.NodeRecord) {
	id := base.NodeID(r.NodeId)
	name := recordName{r.NodeId, r.Generation}
	if same, ok := m.one[name]; !ok {
		m.one[name] = seenRecord{r, op}
	} else if !proto.Equal(same.record, r) {
		m.add(fmt.Sprintf("%s has two records of generation %d: %s, and %s", id, r.Generation, nodeText(same.record), nodeText(r)), same.op, op)
	}
	g := at(m.records, r.NodeId)
	if last, ok := g.before(op.Invoked); ok && last.number > r.Generation {
		m.add(fmt.Sprintf("%s is at generation %d after %d", id, r.Generation, last.number), last.op, op)
	}
	if n := len(g.seen); n > 0 && g.seen[n-1].number < r.Generation {
		m.follows(op, g.seen[n-1], r)
	}
	g.saw(r.Generation, r, op)
	if inc, ok := m.served[r.NodeId].before(op.Invoked); ok && inc.number > r.Incarnation {
		m.add(fmt.Sprintf("%s served in its start %d, and its record knows of %d starts: nobody has taken note of it", id, inc.number, r.Incarnation), inc.op, op)
	}
	for _, s := range m.pending[r.NodeId] {
		if s.generation == r.Generation && s.served.Returned < op.Invoked {
			m.add(fmt.Sprintf("%s, which is %s, refused because it may not serve, and served under the same record, of generation %d",
				id, stateText(r), r.Generation), s.refused, s.served, op)
		}
	}
}

func stateText(r *metapb.NodeRecord) string {
	return strings.ToLower(strings.TrimPrefix(r.State.String(), "NODE_STATE_"))
}

func nodeText(r *metapb.NodeRecord) string {
	return fmt.Sprintf("%s at %s, start %d, epoch %d, cordoned %t, draining %t", stateText(r), r.Address, r.Incarnation, r.Epoch, r.Cordoned, r.Draining)
}

// follows holds a record against an older one.
func (m *members) follows(op *linearizability.Op, before grown[*metapb.NodeRecord], r *metapb.NodeRecord) {
	id, old := base.NodeID(r.NodeId), before.of
	wrong := func(format string, args ...any) {
		m.add(fmt.Sprintf("%s: generation %d to %d: %s", id, old.Generation, r.Generation, fmt.Sprintf(format, args...)), before.op, op)
	}
	if string(old.StoreUuid) != string(r.StoreUuid) {
		wrong("the store is another one")
	}
	if r.Epoch < old.Epoch {
		wrong("the epoch goes from %d to %d", old.Epoch, r.Epoch)
	}
	if r.Incarnation < old.Incarnation {
		wrong("the incarnation goes from %d to %d", old.Incarnation, r.Incarnation)
	}
	if gone(old) && r.State != old.State {
		wrong("it was %s for good, and is %s", stateText(old), stateText(r))
	}
	if givenUp(r) && r.State != old.State && r.Epoch == old.Epoch {
		wrong("it comes to be %s, and its epoch stays %d", stateText(r), r.Epoch)
	}
}

// ask takes in what one process answered.
func (m *members) ask(op *linearizability.Op, resp *askpb.AskResponse) {
	name := processName{resp.NodeId, resp.Incarnation}
	if resp.Fenced {
		m.fenced[name] = append(m.fenced[name], op)
		return
	}
	if !resp.Served {
		return
	}
	at(m.served, resp.NodeId).saw(resp.Incarnation, struct{}{}, op)
	record, ok := m.records[resp.NodeId].before(op.Invoked)
	if !ok || !givenUp(record.of) {
		return
	}
	for _, refused := range m.fenced[name] {
		if refused.Invoked > record.op.Returned && refused.Returned < op.Invoked {
			m.pending[resp.NodeId] = append(m.pending[resp.NodeId], suspicion{record.number, refused, op})
			return
		}
	}
}

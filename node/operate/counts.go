package operate

import "github.com/cairndb/cairn/api/metapb"

// Counts is what this node has to do with operations: those that go on are counted on the node that leads `sys`, as of its last look,
// and those that ended where they were seen to.
type Counts struct {
	Running, Paused int
	Done, Failed    uint64 // since this node's start
}

// Counts reads them.
func (m *Manager) Counts() Counts {
	c := &m.counts
	return Counts{Running: int(c.running.Load()), Paused: int(c.paused.Load()), Done: uint64(c.done.Load()), Failed: uint64(c.failed.Load())}
}

// countActive takes in which operations there are.
func (m *Manager) countActive(ops []*metapb.Operation) {
	var running, paused int64
	for _, op := range ops {
		switch op.State {
		case metapb.OperationState_OPERATION_STATE_RUNNING:
			running++
		case metapb.OperationState_OPERATION_STATE_PAUSED:
			paused++
		}
	}
	m.counts.running.Store(running)
	m.counts.paused.Store(paused)
}

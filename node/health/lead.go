package health

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/sysrec"
)

// leading is what the leader of `sys` keeps, for one term.
type leading struct {
	term    uint64
	table   *liveness.Table
	policy  liveness.Policy
	read    bool // the records were read at all
	alarms  [][]byte
	health  []*metapb.NodeHealth
	writing bool // transitions of an earlier step are being written
}

// Heartbeat takes what a node says of itself, on the leader of `sys`.
func (m *Monitor) Heartbeat(h *metapb.Heartbeat) (*metapb.HeartbeatAnswer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, err := m.table()
	if err != nil {
		return nil, err
	}
	l.table.Heartbeat(m.cfg.Now(), h)
	answer := &metapb.HeartbeatAnswer{Own: l.table.Record(h.NodeId), Alarms: l.alarms}
	if every := uint64(len(l.health)/base.HeartbeatNodes + 1); h.Seq%every == 0 || h.Seq == 1 {
		answer.Nodes = l.health
	}
	return answer, nil
}

// table is this term's, made if there is none; base.NotLeader if this node does not lead `sys`. mu is held.
func (m *Monitor) table() (*leading, error) {
	term, leads := m.cfg.Leads()
	if !leads {
		m.lead = nil
		return nil, &base.NotLeader{Range: base.RangeSys}
	}
	if m.lead == nil || m.lead.term != term {
		table, err := liveness.New(m.cfg.Table)
		if err != nil {
			return nil, err
		}
		m.lead = &leading{term: term, table: table, policy: liveness.PolicyOf(nil)}
		m.dirty.Store(true)
		m.cfg.Logger.Info("this node leads sys: it keeps the table of the nodes, and suspects nobody for a while", "term", term, "window", m.cfg.Table.Window)
	}
	l := m.lead
	if m.dirty.Swap(false) || !l.read {
		if err := m.readSys(l); err != nil {
			m.dirty.Store(true)
			return nil, err
		}
	}
	return l, nil
}

// readSys gives the table the records as this node's own replica has them. What is not applied here yet is read when it is; until
// then a write that rests on an old record does not go through.
func (m *Monitor) readSys(l *leading) error {
	ctx, cancel := context.WithTimeout(m.ctx, base.HeartbeatTimeout)
	defer cancel()
	records, err := join.ReadNodes(ctx, serializable{m.cfg.Cluster})
	if err != nil {
		return err
	}
	policy, err := readPolicy(ctx, serializable{m.cfg.Cluster})
	if err != nil {
		return err
	}
	start, end := sysrec.AlarmSpan()
	alarms, err := sysrec.List(ctx, serializable{m.cfg.Cluster}, start, end)
	if err != nil {
		return err
	}
	l.alarms = nil
	for _, kv := range alarms {
		l.alarms = append(l.alarms, kv.Value)
	}
	l.table.SetRecords(m.cfg.Now(), records)
	l.policy, l.read = liveness.PolicyOf(policy), true
	if l.health == nil {
		l.health = l.table.Health(m.cfg.Now())
	}
	return nil
}

// serializable reads what this node's own replica has applied.
type serializable struct{ Cluster }

func (s serializable) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	req.Serializable = true
	return s.Cluster.Range(ctx, ks, req)
}

// readPolicy is the cluster's own policy; an empty one if nobody has set any.
func readPolicy(ctx context.Context, c sysrec.Cluster) (*metapb.PolicyRecord, error) {
	kv, err := sysrec.Get(ctx, c, sysrec.PolicyKey(0))
	if err != nil {
		return nil, err
	}
	p := &metapb.PolicyRecord{}
	return p, sysrec.Decode(kv, p)
}

// run steps the table while this node leads `sys`, and sleeps while it does not.
func (m *Monitor) run() {
	timer := time.NewTimer(m.cfg.Step)
	defer timer.Stop()
	said := ""
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
		leads, err := m.step()
		if err != nil && m.ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.cfg.Logger.Warn("the nodes' records cannot be looked at; it is tried again", "error", err)
		}
		if leads {
			timer.Reset(m.cfg.Step)
		}
	}
}

// step looks at the table once, and begins to write what is to change. The table wants it again as long as it is so, whatever becomes
// of the write.
func (m *Monitor) step() (leads bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, err := m.table()
	var notLeader *base.NotLeader
	if errors.As(err, &notLeader) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	now := m.cfg.Now()
	transitions := l.table.Step(now, m.cfg.UnixMicros(), l.policy)
	l.health = l.table.Health(now)
	if len(transitions) > 0 && !l.writing {
		l.writing = true
		m.wg.Go(func() {
			for i := range transitions {
				m.write(&transitions[i])
			}
			m.mu.Lock()
			l.writing = false
			m.mu.Unlock()
			m.Changed()
		})
	}
	return true, nil
}

var errMoved = errors.New("the record is another by now")

// write makes one transition stand, if the record is still what it was decided on.
func (m *Monitor) write(t *liveness.Transition) {
	id := base.NodeID(t.After.NodeId)
	ctx, cancel := context.WithTimeout(m.ctx, base.RequestTimeout)
	defer cancel()
	after, err := join.Change(ctx, m.cfg.Cluster, id, func(r *metapb.NodeRecord) (*metapb.NodeRecord, error) {
		switch {
		case proto.Equal(r, t.After):
			return r, nil
		case !proto.Equal(r, t.Before):
			return nil, errMoved
		}
		return t.After, nil
	})
	switch {
	case errors.Is(err, errMoved) || m.ctx.Err() != nil:
	case err != nil:
		m.cfg.Logger.Info("a node's record was not changed; it is looked at again", "node", id, "state", liveness.StateName(t.After.State), "error", err)
	default:
		level := slog.LevelInfo
		if t.Event == liveness.Suspected || t.Event == liveness.Failed {
			level = slog.LevelWarn
		}
		m.cfg.Logger.Log(m.ctx, level, "node "+t.Event.String(), "node", id, "was", liveness.StateName(t.Before.State), "is", liveness.StateName(after.State),
			"reason", t.Reason, "generation", after.Generation, "epoch", after.Epoch)
	}
}

package health

import (
	"context"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// beat sends a heartbeat about every interval, each bounded, jittered so that many nodes do not send theirs in step.
func (m *Monitor) beat() {
	rand := base.NewRand(uint64(m.cfg.Incarnation)<<32 ^ uint64(m.cfg.Node))
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := m.cfg.Now()
	answered := due // or told that it was not
	said := ""
	for seq := uint64(1); ; seq++ {
		select {
		case <-timer.C:
		case <-m.ctx.Done():
			return
		}
		load := m.cfg.Load(max(0, m.cfg.Now().Sub(due)))
		m.load.Store(load)
		err := m.tell(seq, load)
		switch {
		case m.ctx.Err() != nil:
			return
		case err == nil:
			answered = m.cfg.Now()
			m.beats.answered.Add(1)
		case m.cfg.Now().Sub(answered) >= m.cfg.Table.Window:
			answered = m.cfg.Now()
			m.cfg.Unanswered()
		}
		if err != nil && m.ctx.Err() == nil {
			m.beats.unanswered.Add(1)
		}
		switch {
		case err == nil && said != "":
			m.cfg.Logger.Info("the leader of sys takes this node's heartbeats again")
			said = ""
		case err != nil && said != err.Error():
			said = err.Error()
			m.cfg.Logger.Info("the leader of sys was not told how this node is", "reason", err)
		}
		pause := m.cfg.Interval - m.cfg.Interval/10 + time.Duration(rand.Int63n(int64(m.cfg.Interval/5)+1))
		due = m.cfg.Now().Add(pause)
		timer.Reset(pause)
	}
}

// tell sends one heartbeat, and keeps the answer. A cluster of many nodes does not tell all of itself each time.
func (m *Monitor) tell(seq uint64, load *metapb.NodeLoad) error {
	ctx, cancel := context.WithTimeout(m.ctx, base.HeartbeatTimeout)
	defer cancel()
	answer, by, err := m.cfg.Cluster.Heartbeat(ctx, &metapb.Heartbeat{
		NodeId: uint64(m.cfg.Node), Incarnation: uint64(m.cfg.Incarnation), Epoch: m.cfg.Epoch(), Seq: seq,
		Address: m.cfg.Address, Version: m.cfg.Version, Load: load, Heard: m.cfg.Heard(),
	})
	if err != nil {
		return err
	}
	if len(answer.Nodes) > 0 {
		m.last.Store(&told{nodes: answer.Nodes, by: by, at: m.cfg.Now()})
	}
	alarms, err := sysrec.Alarms(answer.Alarms)
	if err != nil {
		return err
	}
	m.cfg.Alarms(alarms)
	if answer.Own != nil {
		m.cfg.Learn(answer.Own)
	}
	return nil
}

// Package health is the membership's "who is well" on a running node.
//
// Every node tells the leader of `sys` about once a second how it is and whom it supports, and keeps what that answers (beat.go). The
// leader of `sys` keeps the table (meta/liveness) for as long as it leads, and writes what changes into the nodes' records (lead.go).
// What a node says of its load is measured in load.go. A node that is told that it was given up serves nothing until it has announced
// itself again, or never more (fence.go).
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/sysrec"
)

// Cluster is what a Monitor needs of the cluster.
type Cluster interface {
	sysrec.Cluster
	// Heartbeat brings one to the leader of `sys`; by is who that was.
	Heartbeat(ctx context.Context, h *metapb.Heartbeat) (answer *metapb.HeartbeatAnswer, by base.NodeID, err error)
}

// Config is what a Monitor works with.
type Config struct {
	Node        base.NodeID
	Incarnation base.Incarnation
	Address     string
	Version     string
	Cluster     Cluster
	// Leads says whether this node leads `sys`, and in which term.
	Leads func() (term uint64, leads bool)
	// Heard is what this node can say of others now; Load how busy it is, given how late its timer was. Load is called by one goroutine.
	Heard func() []*metapb.HeardOf
	Load  func(late time.Duration) *metapb.NodeLoad
	// Epoch is that under which the node serves; Learn takes its own record, as the leader of `sys` has it.
	Epoch func() uint64
	Learn func(own *metapb.NodeRecord)
	// Alarms is told which alarms are raised, as the leader of `sys` has them; nil: nobody asks.
	Alarms func([]*pb.AlarmMember)
	// Unanswered is told when no heartbeat was answered for a window, and again after each further one: the others may have no address
	// for this node any more, and it must find out in another way.
	Unanswered func()

	Now        func() base.Instant
	UnixMicros func() int64
	Interval   time.Duration   // between two heartbeats; 0: base's
	Step       time.Duration   // between two looks at the table; 0: base's
	Table      liveness.Config // zero values are base's
	Logger     *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	if c.Interval == 0 {
		c.Interval = base.HeartbeatInterval
	}
	if c.Step == 0 {
		c.Step = base.HealthStep
	}
	if c.Alarms == nil {
		c.Alarms = func([]*pb.AlarmMember) {}
	}
	if c.Unanswered == nil {
		c.Unanswered = func() {}
	}
	if c.UnixMicros == nil {
		c.UnixMicros = func() int64 { return time.Now().UnixMicro() }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Table.EnsureDefaults()
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Node == 0 || c.Cluster == nil || c.Leads == nil || c.Heard == nil || c.Load == nil || c.Epoch == nil || c.Learn == nil || c.Now == nil {
		errs = append(errs, errors.New("a node, a cluster and all functions are needed"))
	}
	if c.Interval <= 0 || c.Step <= 0 {
		errs = append(errs, errors.New("intervals must be above zero"))
	}
	if c.Interval*3 > c.Table.Window {
		errs = append(errs, fmt.Errorf("a window of %s is too short for heartbeats every %s: three of them must fit", c.Table.Window, c.Interval))
	}
	return errors.Join(append(errs, c.Table.Validate())...)
}

// Monitor sends this node's heartbeats, keeps the last answer, and runs the table while this node leads `sys`. Its methods may be
// called from any goroutine.
type Monitor struct {
	cfg  Config
	wake chan struct{} // capacity 1: the lead may have changed, or the records

	last atomic.Pointer[told]
	load atomic.Pointer[metapb.NodeLoad]

	beats struct{ answered, unanswered atomic.Uint64 }

	dirty atomic.Bool // what is stored in `sys` may be other than the table knows
	mu    sync.Mutex
	lead  *leading // nil: this node does not lead `sys`

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// told is what the leader of `sys` answered last.
type told struct {
	nodes []*metapb.NodeHealth
	by    base.NodeID
	at    base.Instant
}

// New makes a monitor; Start runs it.
func New(cfg Config) (*Monitor, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Monitor{cfg: cfg, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel}, nil
}

// Start begins to send heartbeats.
func (m *Monitor) Start() {
	m.wg.Go(m.beat)
	m.wg.Go(m.run)
	m.Changed()
}

// Stop ends it, with whatever is being written.
func (m *Monitor) Stop() {
	m.cancel()
	m.wg.Wait()
}

// Changed is told that the leader of `sys` is another, or that something was written there. It does not block.
func (m *Monitor) Changed() {
	m.dirty.Store(true)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Beats is how many heartbeats were answered since the start, and how many were not.
func (m *Monitor) Beats() (answered, unanswered uint64) {
	return m.beats.answered.Load(), m.beats.unanswered.Load()
}

// Health is what the leader of `sys` told last of all nodes, which node that was, and how long ago. The messages must not be changed.
// by is 0 if none has answered yet.
func (m *Monitor) Health() (nodes []*metapb.NodeHealth, by base.NodeID, age time.Duration) {
	t := m.last.Load()
	if t == nil {
		return nil, 0, 0
	}
	return t.nodes, t.by, m.cfg.Now().Sub(t.at)
}

// Load is how busy this node is, as it said last; nil before its first heartbeat. It must not be changed.
func (m *Monitor) Load() *metapb.NodeLoad { return m.load.Load() }

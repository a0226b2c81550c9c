// Package operate keeps what people asked of the cluster: operations and policies, as records in `sys`, and carries operations on.
//
// A Manager holds nothing that counts: every node's can do all of it, at the same time. What begins or ends an operation is one
// transaction over its record and those of its nodes (meta/operation says which), and of two that rest on the same record one is
// tried again. On the leader of `sys` the manager also looks how far operations are, by the stored descriptors, and writes that down;
// whoever leads next goes on from the records.
package operate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/sysrec"
)

// Cluster is what a Manager needs of the cluster that its node is a member of. The errors are those of internal/base.
type Cluster interface {
	sysrec.Cluster
	// Descriptor is the range that holds a key, as a replica that has applied all that is committed knows it.
	Descriptor(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error)
}

// Config says what a Manager works with.
type Config struct {
	Cluster Cluster
	// Leads says whether this node leads `sys` now.
	Leads func() bool
	// Holds says whether this node has a replica of sys: only then is it told of changes.
	Holds func() bool
	// NodeStatus asks one node how it is.
	NodeStatus func(ctx context.Context, node base.NodeID, ranges bool) (*clusterpb.NodeStatusResponse, error)
	// Report asks one node of what size the ranges are that it leads.
	Report func(ctx context.Context, node base.NodeID, req *rangepb.ReportRequest) (*rangepb.Report, error)
	// Health is what is known of the nodes beside their records; it may lack some.
	Health func(ctx context.Context) []*metapb.NodeHealth
	// Explain asks the decider of a range what would be decided, and says which node that is.
	Explain    func(ctx context.Context, d *metapb.RangeDescriptor) (*metapb.Explanation, base.NodeID, error)
	Keyspaces  func(ctx context.Context) ([]*metapb.KeyspaceRecord, error)
	UnixMicros func() int64
	Now        func() base.Instant
	Logger     *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Health == nil {
		c.Health = func(context.Context) []*metapb.NodeHealth { return nil }
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	for what, missing := range map[string]bool{
		"cluster": c.Cluster == nil, "Leads": c.Leads == nil, "Holds": c.Holds == nil, "NodeStatus": c.NodeStatus == nil, "Report": c.Report == nil, "Explain": c.Explain == nil, "Keyspaces": c.Keyspaces == nil,
		"UnixMicros": c.UnixMicros == nil, "Now": c.Now == nil,
	} {
		if missing {
			errs = append(errs, errors.New("no "+what))
		}
	}
	return errors.Join(errs...)
}

// Manager does it. Its methods may be called from any goroutine.
type Manager struct {
	cfg Config

	wake   chan struct{} // capacity 1
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when something was applied in `sys` here

	drive  driver // the loop's own
	counts struct{ running, paused, done, failed atomic.Int64 }
}

// New makes a manager; Start runs its loop.
func New(cfg Config) (*Manager, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{cfg: cfg, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, changed: make(chan struct{})}, nil
}

// Start runs the loop that carries operations on whenever this node leads `sys`.
func (m *Manager) Start() { m.wg.Go(m.run) }

// Stop ends the loop.
func (m *Manager) Stop() {
	m.cancel()
	m.wg.Wait()
}

// Applied is told when something was applied in `sys` on this node, or its role in it is another. It does not block.
func (m *Manager) Applied() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
	m.mu.Lock()
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

// next is closed at the next change of `sys` here.
func (m *Manager) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Watch calls send with an operation now, and again whenever it has changed, until it has ended. This node must have a replica of `sys`.
func (m *Manager) Watch(ctx context.Context, id uint64, send func(*metapb.Operation) error) error {
	var sent uint64
	for {
		next := m.next() // before the reading: what comes after it is not missed
		op, err := m.Operation(ctx, id)
		if err != nil {
			return err
		}
		if op.Generation != sent {
			if err := send(op); err != nil {
				return err
			}
			sent = op.Generation
		}
		if !active(op) {
			return nil
		}
		if !m.cfg.Holds() {
			return &base.NotLeader{Range: base.RangeSys} // it was moved away: whoever watches asks another node
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return base.ErrStopped
		}
	}
}

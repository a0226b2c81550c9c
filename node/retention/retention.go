// Package retention compacts the history of the ranges that its node leads when meta/retention says so: that of clients' keyspaces as it
// is set, if it is, and that of Cairn's own always. What a compaction hides is removed by every replica on its own, in the background
// (node/store).
package retention

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/retention"
	"github.com/cairndb/cairn/raftgroup"
)

// Store is what is seen of this node's replicas.
type Store interface {
	Ranges() []base.RangeID
	State(base.RangeID) (raftgroup.StateChange, bool)
	View(base.RangeID) *apply.View
	Now() base.Instant
}

// Config is what it works with.
type Config struct {
	Policy retention.Policy // of clients' keyspaces; the zero value keeps all
	Own    time.Duration    // how long the history of Cairn's own keyspaces is kept; 0: base's
	Node   base.NodeID
	Store  Store
	// Compact has one range, that this node leads, forget what is before a revision.
	Compact func(ctx context.Context, r *metapb.RangeDescriptor, cmd *kvpb.Command) error
	// Micros is the time since the cluster was made.
	Micros func() int64
	Logger *slog.Logger
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	c.Own = cmp.Or(c.Own, base.OwnHistory)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Retention runs until it is stopped.
type Retention struct {
	cfg  Config
	all  []history
	done atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// history is that of some keyspaces, kept by one policy.
type history struct {
	keeper *retention.Keeper
	of     func(base.KeyspaceID) bool
}

// New makes one; Start runs it.
func New(cfg Config) (*Retention, error) {
	cfg.EnsureDefaults()
	r := &Retention{cfg: cfg}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.keep(retention.Policy{Mode: retention.Periodic, Period: cfg.Own}, ofCairn); err != nil {
		return nil, err
	}
	if cfg.Policy.Mode == retention.Off {
		return r, nil
	}
	return r, r.keep(cfg.Policy, ofClients)
}

func (r *Retention) keep(p retention.Policy, of func(base.KeyspaceID) bool) error {
	k, err := retention.New(p)
	if err != nil {
		return fmt.Errorf("history kept by %+v: %w", p, err)
	}
	r.all = append(r.all, history{k, of})
	return nil
}

func ofClients(ks base.KeyspaceID) bool { return ks >= base.KeyspaceDefault }

func ofCairn(ks base.KeyspaceID) bool { return !ofClients(ks) }

// Start runs it.
func (r *Retention) Start() {
	for _, h := range r.all {
		r.wg.Go(func() { r.run(h) })
	}
}

// Stop ends it.
func (r *Retention) Stop() {
	r.cancel()
	r.wg.Wait()
}

// Compacted is how many compactions this node has decided on and seen through.
func (r *Retention) Compacted() uint64 { return r.done.Load() }

func (r *Retention) run(h history) {
	tick := time.NewTicker(h.keeper.Interval())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		r.carryOut(h.keeper.Step(r.cfg.Store.Now(), r.cfg.Micros(), r.led(h.of)))
	}
}

// led are the ranges of some keyspaces that this node leads.
func (r *Retention) led(of func(base.KeyspaceID) bool) (out []retention.Range) {
	for _, id := range r.cfg.Store.Ranges() {
		st, ok := r.cfg.Store.State(id)
		if !ok || st.LeaderNode != r.cfg.Node {
			continue
		}
		v := r.cfg.Store.View(id)
		if v == nil || v.Descriptor.Frozen != nil {
			continue
		}
		ks := base.KeyspaceID(v.Descriptor.KeyspaceId)
		if of(ks) {
			out = append(out, retention.Range{ID: id, Timed: !ks.Single(), Revision: v.Counters.Revision, Compacted: v.Counters.Compacted})
		}
	}
	return out
}

// carryOut has what is due compacted, a few at a time.
func (r *Retention) carryOut(due []retention.Decision) {
	slots := make(chan struct{}, base.RetentionAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range due {
		select {
		case slots <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.compact(d); err != nil && r.ctx.Err() == nil {
				r.cfg.Logger.Warn("history was not compacted; it is tried again", "range", d.ID, "revision", d.Revision, "error", err)
			}
		})
	}
}

func (r *Retention) compact(d retention.Decision) error {
	v := r.cfg.Store.View(d.ID)
	if v == nil {
		return nil // it is gone
	}
	raw, err := proto.Marshal(&pb.CompactionRequest{Revision: int64(d.Revision)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, base.RequestTimeout)
	defer cancel()
	err = r.cfg.Compact(ctx, v.Descriptor, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: raw}})
	if status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCCompacted).Message() { // it may come from another node
		return nil // somebody did it by hand
	}
	if err != nil {
		return fmt.Errorf("compaction: %w", err)
	}
	r.done.Add(1)
	r.cfg.Logger.Info("history compacted", "range", d.ID, "revision", d.Revision)
	return nil
}
